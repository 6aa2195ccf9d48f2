// Convolutions with 3 taps and stride 1, by Winograd's F(4, 3).

#include "kernels.h"

#include <type_traits>

namespace {

// Winograd's transforms for 4 outputs and 3 taps, from 6 inputs (Lavin & Gray 2015, arXiv:1509.09308).
template <class V> void to_products(V d[6]) {
    V a = d[4] - 4.f * d[2], b = d[3] - 4.f * d[1], c = d[4] - d[2], e = 2.f * (d[3] - d[1]);
    V first = 4.f * d[0] - 5.f * d[2] + d[4], last = 4.f * d[1] - 5.f * d[3] + d[5];
    d[0] = first, d[1] = a + b, d[2] = a - b, d[3] = c + e, d[4] = c - e, d[5] = last;
}
template <class V> void to_outputs(const V m[6], V y[4]) {
    V a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], e = m[3] - m[4];
    y[0] = m[0] + a + c, y[1] = b + 2.f * e, y[2] = a + 4.f * c, y[3] = b + 8.f * e + m[5];
}

// The transpose of `to_outputs`, and the transform of weights with its transpose.
template <class V> void from_outputs(const V y[4], V m[6]) {
    V a = y[0] + y[2], b = y[1] + y[3], c = y[0] + 4.f * y[2], e = 2.f * y[1] + 8.f * y[3];
    m[0] = y[0], m[1] = a + b, m[2] = a - b, m[3] = c + e, m[4] = c - e, m[5] = y[3];
}
constexpr double TWELFTH = 1. / 12, SIXTH = 1. / 6, TWENTY_FOURTH = 1. / 24;  // dividing would take most of the time
template <class V> void to_points(const V w[3], V u[6]) {
    V sum = (w[0] + w[2]) * SIXTH, middle = w[1] * SIXTH, near = w[0] * TWENTY_FOURTH + w[2] * SIXTH, far = w[1] * TWELFTH;
    u[0] = w[0] * .25, u[1] = -sum - middle, u[2] = middle - sum;
    u[3] = near + far, u[4] = near - far, u[5] = w[2];
}
template <class V> void from_points(const V u[6], V w[3]) {
    V a = (u[1] + u[2]) * SIXTH, b = u[3] + u[4];
    w[0] = u[0] * .25 - a + b * TWENTY_FOURTH, w[1] = (u[2] - u[1]) * SIXTH + (u[3] - u[4]) * TWELFTH;
    w[2] = b * SIXTH - a + u[5];
}

constexpr long HELD = 1 << 20;      // bytes of transformed tiles for a thread: about half of a second-level cache
constexpr long STREAMED = 4 << 20;  // bytes of weights that stay in no second-level cache
constexpr int SHARED = 128;         // tiles that threads work on together

// Floats between the end of one point's values and the next one's: with powers of two all would meet in the same lines
// of the cache.
constexpr long GAP = 16;

// Tiles of DOWN x ALONG outputs: 4 along an axis where the kernel has 3 taps, 1 where it has one.
template <int DOWN, int ALONG> struct Winograd {
    static constexpr int IN_H = DOWN == 4 ? 6 : 1, IN_W = ALONG == 4 ? 6 : 1, POINTS = IN_H * IN_W;
    using V = Vec<LANES>;
    Layer a;
    const float* zeros;
    int tiles_h, tiles_w;  // of one of the dh x dw grids that a dilated kernel sees apart
    After after;

    struct Tile { int n, top, left; };  // the first output

    Tile tile(int t) const {
        int per_grid = tiles_h * tiles_w, grids = a.k.dh * a.k.dw;
        int n = t / (per_grid * grids), grid = t / per_grid % grids, at = t % per_grid;
        return {n, grid / a.k.dw + a.k.dh * DOWN * (at / tiles_w), grid % a.k.dw + a.k.dw * ALONG * (at % tiles_w)};
    }

    const float* pixel(int n, int i, int j) const {
        bool inside = i >= 0 && i < a.s.h && j >= 0 && j < a.s.w;
        return inside ? a.x + (((long)n * a.s.h + i) * a.s.w + j) * a.s.c : zeros;
    }

    // One tile's inputs, transformed: point p goes to v + p * plane.
    void transform(Tile t, float* v, long plane) const {
        const float* from[POINTS];
        for (int i = 0; i < IN_H; i++)
            for (int j = 0; j < IN_W; j++)
                from[i * IN_W + j] = pixel(t.n, t.top - a.k.ph + i * a.k.dh, t.left - a.k.pw + j * a.k.dw);
        for (int c = 0; c < a.s.c; c += LANES) {
            V d[IN_H][IN_W], column[6];
            for (int j = 0; j < IN_W; j++) {
                for (int i = 0; i < IN_H; i++) column[i] = load<LANES>(from[i * IN_W + j] + c);
                if (DOWN == 4) to_products(column);
                for (int i = 0; i < IN_H; i++) d[i][j] = column[i];
            }
            for (int i = 0; i < IN_H; i++) {
                if (ALONG == 4) to_products(d[i]);
                for (int j = 0; j < IN_W; j++) store<LANES>(v + (i * IN_W + j) * plane + c, d[i][j]);
            }
        }
    }

    // One tile's products, transformed back and written where they lie inside.
    void outputs(Tile t, const float* m, long plane, float* y) const {
        int rows = std::min(DOWN, ceil_div(a.s.out_h - t.top, a.k.dh));
        int columns = std::min(ALONG, ceil_div(a.s.out_w - t.left, a.k.dw));
        for (int c = 0; c < a.s.out_c; c += LANES) {
            V half[DOWN][IN_W], column[6], out[4];
            for (int j = 0; j < IN_W; j++) {
                for (int i = 0; i < IN_H; i++) column[i] = load<LANES>(m + (i * IN_W + j) * plane + c);
                if (DOWN == 4) to_outputs(column, out); else out[0] = column[0];
                for (int i = 0; i < DOWN; i++) half[i][j] = out[i];
            }
            V bias = a.bias ? load<LANES>(a.bias + c) : V{};
            for (int i = 0; i < rows; i++) {
                if (ALONG == 4) to_outputs(half[i], out); else out[0] = half[i][0];
                for (int j = 0; j < columns; j++) {
                    long at = ((long)t.n * a.s.out_h + t.top + i * a.k.dh) * a.s.out_w + t.left + j * a.k.dw;
                    at = at * a.s.out_c + c;
                    store<LANES>(y + at, after.apply<LANES>(out[j] + bias, at));
                }
            }
        }
    }

    // One tile's gradients, transformed as the transpose of `outputs` does; those outside are zero.
    void gradients(Tile t, const float* grad, float* m, long plane) const {
        for (int c = 0; c < a.s.out_c; c += LANES) {
            V half[IN_H][ALONG], row[6], given[4];
            for (int j = 0; j < ALONG; j++) {
                for (int i = 0; i < DOWN; i++) {
                    int y = t.top + i * a.k.dh, x = t.left + j * a.k.dw;
                    bool inside = y < a.s.out_h && x < a.s.out_w;
                    const float* from = grad + (((long)t.n * a.s.out_h + y) * a.s.out_w + x) * a.s.out_c + c;
                    given[i] = inside ? load<LANES>(from) : V{};
                }
                if (DOWN == 4) from_outputs(given, row); else row[0] = given[0];
                for (int i = 0; i < IN_H; i++) half[i][j] = row[i];
            }
            for (int i = 0; i < IN_H; i++) {
                if (ALONG == 4) from_outputs(half[i], row); else row[0] = half[i][0];
                for (int j = 0; j < IN_W; j++) store<LANES>(m + (i * IN_W + j) * plane + c, row[j]);
            }
        }
    }

    // The gradient of the weights at Winograd's points x (C/groups x O, GAP), to which every tile adds.
    void weights(const float* grad, float* points, int groups, int block) const {
        int C = a.s.c, O = a.s.out_c, in = C / groups, out = O / groups, panels = O / PANEL;
        long v_plane = (long)block * C + GAP, m_plane = (long)block * O + GAP, plane = (long)in * O + GAP;
        Floats v = floats(POINTS * v_plane), m = floats(POINTS * m_plane);
        std::fill_n(points, POINTS * plane, 0.f);
#pragma omp parallel
        for (int first = 0; first < tiles(); first += block) {
            int count = std::min(block, tiles() - first);
#pragma omp for schedule(static)
            for (int t = 0; t < count; t++) {
                transform(tile(first + t), v.get() + (long)t * C, v_plane);
                gradients(tile(first + t), grad, m.get() + (long)t * O, m_plane);
            }
#pragma omp for schedule(static)
            for (int item = 0; item < POINTS * panels; item++) {
                int p = item / panels, o = item % panels * PANEL;
                Outer{v.get() + p * v_plane + o / out * in, m.get() + p * m_plane + o,
                      points + p * plane + o, C, O, count}.all(in);
            }
        }
    }

    int tiles() const { return a.s.n * a.k.dh * a.k.dw * tiles_h * tiles_w; }

    void run(float* y, int groups) const {
        long weights = (long)POINTS * a.s.out_c * (a.s.c / groups) * sizeof(float);
        weights > STREAMED ? together(y, groups) : apart(y, groups);
    }

    // Every thread takes blocks of tiles from their pixels to their outputs; what is transformed stays in its cache.
    void apart(float* y, int groups) const {
        int C = a.s.c, O = a.s.out_c, threads = omp_get_max_threads();
        int most = std::max<long>(ROWS, HELD / (POINTS * (C + O) * sizeof(float)) / ROWS * ROWS);
        int blocks = ceil_div(ceil_div(tiles(), most), threads) * threads, block = ceil_div(tiles(), blocks);
#pragma omp parallel
        {
            long v_plane = (long)block * C + GAP, m_plane = (long)block * O + GAP;
            Floats v = floats(POINTS * v_plane), m = floats(POINTS * m_plane);
#pragma omp for schedule(static)
            for (int b = 0; b < blocks; b++) {
                int first = b * block, count = std::min(block, tiles() - first);
                for (int t = 0; t < count; t++) transform(tile(first + t), v.get() + (long)t * C, v_plane);
                for (int i = 0; i < POINTS * O / PANEL; i++) product(i, v.get(), m.get(), groups, block, count);
                for (int t = 0; t < count; t++) outputs(tile(first + t), m.get() + (long)t * O, m_plane, y);
            }
        }
    }

    // All threads work on one block of tiles, each with weights of its own: where those fill no cache, each is read once.
    void together(float* y, int groups) const {
        int C = a.s.c, O = a.s.out_c, block = std::min(tiles(), SHARED);
        long v_plane = (long)block * C + GAP, m_plane = (long)block * O + GAP;
        Floats v = floats(POINTS * v_plane), m = floats(POINTS * m_plane);
#pragma omp parallel
        for (int first = 0; first < tiles(); first += block) {
            int count = std::min(block, tiles() - first);
#pragma omp for schedule(static)
            for (int t = 0; t < count; t++) transform(tile(first + t), v.get() + (long)t * C, v_plane);
#pragma omp for schedule(static)
            for (int i = 0; i < POINTS * O / PANEL; i++) product(i, v.get(), m.get(), groups, block, count);
#pragma omp for schedule(static)
            for (int t = 0; t < count; t++) outputs(tile(first + t), m.get() + (long)t * O, m_plane, y);
        }
    }

    // The products of one panel of weights at one point, for `count` tiles of a block.
    void product(int item, const float* v, float* m, int groups, int block, int count) const {
        int C = a.s.c, O = a.s.out_c, in = C / groups, out = O / groups;
        int p = item / (O / PANEL), o = item % (O / PANEL) * PANEL;
        Product{v + p * ((long)block * C + GAP) + o / out * in, a.w + p * ((long)in * O + GAP) + (long)o * in, nullptr,
                m + p * ((long)block * O + GAP) + o, C, O, in}.all(count);
    }
};

// Calls `body` with the Winograd that the window asks for.
template <class Body> void with_winograd(const Layer& a, After after, Body body) {
    Floats zeros = floats(a.s.c);
    std::fill_n(zeros.get(), a.s.c, 0.f);
    auto tiles = [](int out, int gap, int along) { return ceil_div(ceil_div(out, gap), along); };
    auto call = [&](auto down, auto along) {
        constexpr int D = decltype(down)::value, A = decltype(along)::value;
        body(Winograd<D, A>{a, zeros.get(), tiles(a.s.out_h, a.k.dh, D), tiles(a.s.out_w, a.k.dw, A), after});
    };
    std::integral_constant<int, 4> four;
    std::integral_constant<int, 1> one;
    if (a.k.kh == 3 && a.k.kw == 3) call(four, four);
    else if (a.k.kh == 3) call(four, one);
    else call(one, four);
}

// Several kernels at a time, in double precision: rounding here would be in every output.
constexpr int HALF = LANES / 2;
typedef double Doubles __attribute__((vector_size(HALF * sizeof(double))));
typedef float Singles __attribute__((vector_size(HALF * sizeof(float)), aligned(sizeof(float)), may_alias));

// The taps of such kernels become their points, or points taps: `change` goes along each axis that has more than one.
template <class V, class Change> void both_axes(V d[6][6], const Window& k, Change change) {
    V from[6], to[6] = {};
    for (int j = 0; j < 6 && k.kh > 1; j++) {
        for (int i = 0; i < 6; i++) from[i] = d[i][j];
        change(from, to);
        for (int i = 0; i < 6; i++) d[i][j] = to[i];
    }
    for (int i = 0; i < 6 && k.kw > 1; i++) {
        std::copy_n(d[i], 6, from);
        change(from, d[i]);
    }
}

}  // namespace

// Where the parts of a weight lie: floats from one group, output of a group, input of a group, row and column to the next.
struct Strides { long group, out, in, h, w; };

extern "C" {

// Weights at Winograd's points, in panels: points x (panels x C/groups x PANEL, GAP). As many at a time as lie nearest.
void winograd_pack(const float* w, float* packed, Strides at, Window k, int groups, int out, int in) {
    int panels = groups * out / PANEL, h = k.kh > 1 ? 6 : 1, wide = k.kw > 1 ? 6 : 1, blocks = ceil_div(in, HALF);
    long plane = (long)panels * in * PANEL + GAP;
    auto points = [&](const float* from, long apart, int count, auto put) {
        Doubles d[6][6] = {};
        for (int y = 0; y < k.kh; y++)
            for (int x = 0; x < k.kw; x++)
                for (int l = 0; l < count; l++) d[y][x][l] = from[l * apart + y * at.h + x * at.w];
        both_axes(d, k, to_points<Doubles>);
        for (int p = 0; p < h * wide; p++) put(p, __builtin_convertvector(d[p / wide][p % wide], Singles));
    };
#pragma omp parallel for schedule(static)
    for (int item = 0; item < panels * blocks; item++) {
        int o = item / blocks * PANEL, i = item % blocks * HALF, count = std::min(HALF, in - i);
        const float* from = w + o / out * at.group + o % out * at.out + i * at.in;
        float* to = packed + (long)o * in + (long)i * PANEL;
        for (int lane = 0; lane < PANEL && at.in <= at.out; lane++)
            points(from + lane * at.out, at.in, count, [&](int p, Singles u) {
                for (int l = 0; l < count; l++) to[p * plane + l * PANEL + lane] = u[l];
            });
        for (int l = 0; l < count && at.in > at.out; l++)
            for (int lane = 0; lane < PANEL; lane += HALF)
                points(from + l * at.in + lane * at.out, at.out, HALF, [&](int p, Singles u) {
                    *(Singles*)(to + p * plane + l * PANEL + lane) = u;
                });
    }
}

// The gradient of the weights, O x C/groups x kh x kw. points: memory for points x (C/groups x O, GAP).
void winograd_weights(const float* x, const float* grad, float* points, float* w, Shape s, Window k, int groups,
                      int block) {
    with_winograd(Layer(x, nullptr, nullptr, s, k), NOTHING, [&](const auto& it) {
        it.weights(grad, points, groups, block);
    });
    int in = s.c / groups, h = k.kh > 1 ? 6 : 1, wide = k.kw > 1 ? 6 : 1;
    long plane = (long)in * s.out_c + GAP;
#pragma omp parallel for schedule(static)
    for (int first = 0; first < in; first += HALF)
        for (int o = 0; o < s.out_c; o += HALF)
            for (int i = first; i < std::min(first + HALF, in); i++) {
                Doubles d[6][6] = {};
                for (int p = 0; p < h * wide; p++)
                    d[p / wide][p % wide] =
                        __builtin_convertvector(*(const Singles*)(points + p * plane + (long)i * s.out_c + o), Doubles);
                both_axes(d, k, from_points<Doubles>);
                for (int l = 0; l < HALF; l++)
                    for (int t = 0; t < k.kh * k.kw; t++)
                        w[((long)(o + l) * in + i) * k.kh * k.kw + t] = (float)d[t / k.kw][t % k.kw][l];
            }
}

// Winograd along the axes that have 3 taps. w: as `winograd_pack` makes it.
void winograd(const float* x, const float* w, const float* bias, float* y, Shape s, Window k, int groups, After after) {
    with_winograd(Layer(x, w, bias, s, k), after, [&](const auto& it) { it.run(y, groups); });
}
}  // extern "C"
