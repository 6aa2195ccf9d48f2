// Convolutions and pooling in float32 on channels-last arrays (N, H, W, C), for whatever vectors the processor has.
//
// Vectors are GCC's own (`vector_size`), so the same text becomes AVX-512, AVX2 or NEON. Weights come packed: the lanes
// of one vector are neighbouring output channels. Every array is dense, and its channels fill whole vectors.

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <omp.h>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 14;  // ROWS x 2 vectors of sums stay in registers
#elif defined(__AVX__)
constexpr int LANES = 8, ROWS = 6;
#else
constexpr int LANES = 4, ROWS = 8;
#endif
constexpr int PANEL = 2 * LANES;

template <int L> struct Vector {
    typedef float Type __attribute__((vector_size(L * sizeof(float)), aligned(sizeof(float)), may_alias));
    typedef int Mask __attribute__((vector_size(L * sizeof(int))));
};
template <int L> using Vec = typename Vector<L>::Type;
template <int L> Vec<L> load(const float* p) { return *reinterpret_cast<const Vec<L>*>(p); }
template <int L> void store(float* p, Vec<L> v) { *reinterpret_cast<Vec<L>*>(p) = v; }

struct Shape { int n, h, w, c, out_h, out_w, out_c; };
struct Window { int kh, kw, sh, sw, ph, pw, dh, dw; };

int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Which taps of a window that starts at `at` fall inside an axis of `size` elements: [first, last).
struct Taps {
    int first, last;
    Taps(int at, int size, int taps, int gap)
        : first(at < 0 ? ceil_div(-at, gap) : 0), last(std::min(taps, at < size ? ceil_div(size - at, gap) : 0)) {}
};

// Which windows along an axis lie wholly inside: [first, last).
struct Inside {
    int first, last;
    Inside(int size, int out, int taps, int step, int pad, int gap) {
        first = std::min(out, ceil_div(pad, step));
        int room = size + pad - gap * (taps - 1) - 1;
        last = room < 0 ? first : std::max(first, std::min(out, room / step + 1));
    }
};

// What a window does with its inputs: a sum of products, or the largest (NaN wins, as in PyTorch).
template <int L> struct Sum {
    static void add(Vec<L>& sum, Vec<L> x, const float* w) { sum += x * load<L>(w); }
};
template <int L> struct Largest {
    static void add(Vec<L>& best, Vec<L> x, const float*) { best = ((x > best) | (x != x)) ? x : best; }
};

// A layer whose output channels see as many input channels as their group has outputs; pixels are `apart` floats apart.
struct Layer {
    const float *x, *w, *bias;
    Shape s;
    Window k;
    long x_apart, y_apart;
    Inside in;
    float initial;

    Layer(const float* x, const float* w, const float* bias, Shape s, Window k, float initial = 0)
        : x(x), w(w), bias(bias), s(s), k(k), x_apart(s.c), y_apart(s.out_c),
          in(s.w, s.out_w, k.kw, k.sw, k.pw, k.dw), initial(initial) {}
};

// One output row. PER: the channels of a group. Lane l needs input channel i of its own group: a shuffle of the vector.
// OVERLAP: 3 taps, stride 1, so that one input serves three neighbouring outputs.
template <int L, int PER, template <int> class Act, bool OVERLAP> struct Row {
    using V = Vec<L>;
    static constexpr int R = 8;  // outputs at a time, in registers
    const Layer& a;
    const float *x, *w;  // of the first row of taps
    int rows;
    long x_row, w_row, w_channel;

    Row(const Layer& a, int n, int row) : a(a) {
        int top = row * a.k.sh - a.k.ph;
        Taps down(top, a.s.h, a.k.kh, a.k.dh);
        x_row = (long)a.k.dh * a.s.w * a.x_apart, w_row = (long)a.k.kw * PER * L, rows = down.last - down.first;
        x = a.x + ((long)n * a.s.h + top + down.first * a.k.dh) * a.s.w * a.x_apart;
        w = a.w + down.first * w_row, w_channel = (long)a.k.kh * a.k.kw * PER;
    }

    static V spread(V v, int i) {
        if constexpr (PER == 1) return v;
        typename Vector<L>::Mask lane;
        for (int l = 0; l < L; l++) lane[l] = l / PER * PER + i;
        return __builtin_shuffle(v, lane);
    }

    // Borders first and last, one by one; the inside in runs of R, the last of which may do outputs again.
    void all(float* y) const {
        int c = 0, width = a.s.out_w, last = a.in.last - R;
        for (int end = last >= a.in.first ? a.in.first : width; c < end; c++) one(c, y + c * a.y_apart);
        for (; c < a.in.last; c += R) c = std::min(c, last), run(c, y + c * a.y_apart);
        for (; c < width; c++) one(c, y + c * a.y_apart);
    }

    V start(int channel) const { return a.bias ? load<L>(a.bias + channel) : V{} + a.initial; }

    void one(int column, float* y) const {
        int left = column * a.k.sw - a.k.pw;
        Taps along(left, a.s.w, a.k.kw, a.k.dw);
        for (int channel = 0; channel < a.s.c; channel += L) {
            V sum = start(channel);
            for (int i = 0; i < rows; i++)
                for (int k = along.first; k < along.last; k++)
                    for (int g = 0; g < PER; g++)
                        Act<L>::add(sum, spread(load<L>(x + channel + i * x_row + (left + k * a.k.dw) * a.x_apart), g),
                                    w + channel * w_channel + i * w_row + (k * PER + g) * L);
            store<L>(y + channel, sum);
        }
    }

    void run(int column, float* y) const {
        for (int channel = 0; channel < a.s.c; channel += L) {
            const float* from = x + channel + (column * a.k.sw - a.k.pw) * a.x_apart;
            const float* weights = w + channel * w_channel;
            V sum[R], first = start(channel);
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) sum[r] = first;
            for (int i = 0; i < rows; i++, from += x_row, weights += w_row) OVERLAP ? overlapping(sum, from, weights) : apart(sum, from, weights);
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) store<L>(y + channel + r * a.y_apart, sum[r]);
        }
    }

    // Any window: a weight is read once and serves R outputs.
    void apart(V* sum, const float* from, const float* w) const {
        long step = a.k.sw * a.x_apart;
        for (int k = 0; k < a.k.kw; k++, from += a.k.dw * a.x_apart, w += PER * L)
            for (int g = 0; g < PER; g++) {
#pragma GCC unroll 16
                for (int r = 0; r < R; r++) Act<L>::add(sum[r], spread(load<L>(from + r * step), g), w + g * L);
            }
    }

    // An input is read, and spread, once and serves every window that holds it. Sums take turns, so that none waits.
    void overlapping(V* sum, const float* from, const float* w) const {
        V v[R + 2], own[R + 2];
#pragma GCC unroll 16
        for (int j = 0; j < R + 2; j++) v[j] = load<L>(from + j * a.x_apart);
#pragma GCC unroll 4
        for (int g = 0; g < PER; g++) {
#pragma GCC unroll 16
            for (int j = 0; j < R + 2; j++) own[j] = spread(v[j], g);
#pragma GCC unroll 4
            for (int k = 0; k < 3; k++) {
                V weight = load<L>(w + (k * PER + g) * L);
#pragma GCC unroll 16
                for (int r = 0; r < R; r++) sum[r] += own[r + k] * weight;
            }
        }
    }
};

using RowOf = void (*)(const Layer&, int n, int row, float* y);

template <int L, int PER, template <int> class Act, bool OVERLAP> void row(const Layer& a, int n, int i, float* y) {
    Row<L, PER, Act, OVERLAP>(a, n, i).all(y);
}

// The widest vector that the channels fill.
int lanes_for(int channels) {
    for (int l = LANES; l > 4; l /= 2)
        if (channels % l == 0) return l;
    return 4;
}

template <int PER, template <int> class Act, bool OVERLAP> RowOf row_of(int channels) {
    switch (lanes_for(channels)) {
        case 16: return row<16, PER, Act, OVERLAP>;
        case 8: return row<8, PER, Act, OVERLAP>;
    }
    return row<4, PER, Act, OVERLAP>;
}

template <int PER> RowOf sums_of(int channels, const Window& k) {
    return k.kw == 3 && k.sw == 1 && k.dw == 1 ? row_of<PER, Sum, true>(channels) : row_of<PER, Sum, false>(channels);
}

// Rows that are worked on together: the more the kernel overlaps, the more, as long as all threads have work.
int band_rows(const Shape& s, const Window& k) {
    return std::max(1, std::min(2 * k.kh, ceil_div(s.n * s.out_h, 4 * omp_get_max_threads())));
}

template <class Body> void in_bands(const Shape& s, const Window& k, Body body) {
    int band = band_rows(s, k), bands = ceil_div(s.out_h, band);
#pragma omp parallel for schedule(dynamic, 1)
    for (int b = 0; b < s.n * bands; b++) {
        int first = b % bands * band;
        body(b / bands, first, std::min(first + band, s.out_h));
    }
}

using Floats = std::unique_ptr<float, decltype(&std::free)>;
Floats floats(size_t n) { return Floats((float*)std::aligned_alloc(64, (n * sizeof(float) + 63) / 64 * 64), std::free); }

// Memory of this thread that lasts from call to call.
float* scratch(size_t n) {
    static thread_local Floats held = floats(0);
    static thread_local size_t size = 0;
    if (size < n) held = floats(n), size = n;
    return held.get();
}

// Output rows in place: for kernels that are small beside the caches.
void rows(const Layer& a, RowOf row, float* y) {
    in_bands(a.s, a.k, [&](int n, int first, int last) {
        for (int i = first; i < last; i++) row(a, n, i, y + ((long)n * a.s.out_h + i) * a.s.out_w * a.y_apart);
    });
}

// T taps, added to R neighbouring sums: with stride 1 an input is read once and serves all that hold it.
template <int L, int R, int T> inline void add(Vec<L>* sum, const float* x, long step, const float* w) {
    Vec<L> v[R + T - 1];
#pragma GCC unroll 32
    for (int j = 0; j < R + T - 1; j++) v[j] = load<L>(x + j * (T > 1 ? L : step));
#pragma GCC unroll 4
    for (int k = 0; k < T; k++) {
        Vec<L> weight = load<L>(w + k * L);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) sum[r] += v[r + k] * weight;
    }
}

// A row of taps, added to R neighbouring sums that are held in memory from one row of taps to the next.
template <int L, int R> void add_taps(float* sums, const float* x, long step, long gap, const float* w, int taps) {
    Vec<L> sum[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) sum[r] = load<L>(sums + r * L);
    int k = 0;
    if (step == L && gap == L)
        for (; k + 2 <= taps; k += 2) add<L, R, 2>(sum, x + k * L, step, w + k * L);
    for (; k < taps; k++) add<L, R, 1>(sum, x + k * gap, step, w + k * L);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) store<L>(sums + r * L, sum[r]);
}

// Large kernels: one vector of channels is copied out with its border of zeros. A row of weights and a row of inputs
// then serve a whole row of outputs from the first-level cache.
template <int L> void blocks_of(const Layer& a, float* y) {
    const Shape& s = a.s;
    const Window& k = a.k;
    int high = s.h + 2 * k.ph, wide = s.w + 2 * k.pw, vectors = s.c / L;
    long step = k.sw * L, gap = k.dw * L;
#pragma omp parallel for schedule(dynamic, 1)
    for (int item = 0; item < s.n * vectors; item++) {
        int n = item / vectors, channel = item % vectors * L;
        float* padded = scratch((size_t)(high * wide + s.out_w) * L);
        float* sums = padded + (long)high * wide * L;
        std::fill_n(padded, (size_t)high * wide * L, 0.f);
        for (int i = 0; i < s.h; i++)
            for (int j = 0; j < s.w; j++)
                store<L>(padded + ((long)(i + k.ph) * wide + j + k.pw) * L,
                         load<L>(a.x + (((long)n * s.h + i) * s.w + j) * s.c + channel));
        for (int i = 0; i < s.out_h; i++) {
            for (int j = 0; j < s.out_w; j++) store<L>(sums + j * L, a.bias ? load<L>(a.bias + channel) : Vec<L>{});
            for (int t = 0; t < k.kh; t++) {
                const float* x = padded + (long)(i * k.sh + t * k.dh) * wide * L;
                const float* w = a.w + ((long)channel * k.kh + t * L) * k.kw;
                int j = 0;
                for (; j + ROWS <= s.out_w; j += ROWS) add_taps<L, ROWS>(sums + j * L, x + j * step, step, gap, w, k.kw);
                for (; j + ROWS / 2 <= s.out_w; j += ROWS / 2) add_taps<L, ROWS / 2>(sums + j * L, x + j * step, step, gap, w, k.kw);
                for (; j < s.out_w; j++) add_taps<L, 1>(sums + j * L, x + j * step, step, gap, w, k.kw);
            }
            for (int j = 0; j < s.out_w; j++)
                store<L>(y + (((long)n * s.out_h + i) * s.out_w + j) * s.c + channel, load<L>(sums + j * L));
        }
    }
}

void blocks(const Layer& a, float* y) {
    switch (lanes_for(a.s.c)) {
        case 16: return blocks_of<16>(a, y);
        case 8: return blocks_of<8>(a, y);
    }
    blocks_of<4>(a, y);
}

// R rows of a (R x C, rows `apart` floats apart) times a panel of weights (C x PANEL), into c.
template <int R> void product(const float* a, long apart, const float* w, int C, const float* bias, float* c, long c_apart) {
    using V = Vec<LANES>;
    V left[R], right[R];
    V bias_left = bias ? load<LANES>(bias) : V{}, bias_right = bias ? load<LANES>(bias + LANES) : V{};
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) left[r] = bias_left, right[r] = bias_right;
    for (int i = 0; i < C; i++) {
        V w_left = load<LANES>(w + i * PANEL), w_right = load<LANES>(w + i * PANEL + LANES);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            V value = a[r * apart + i] - V{};  // a broadcast: x - 0 is x
            left[r] += value * w_left;
            right[r] += value * w_right;
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) store<LANES>(c + r * c_apart, left[r]), store<LANES>(c + r * c_apart + LANES, right[r]);
}

void products(const float* a, long apart, int rows, const float* w, int C, const float* bias, float* c, long c_apart) {
    int r = 0;
    for (; r + ROWS <= rows; r += ROWS) product<ROWS>(a + r * apart, apart, w, C, bias, c + r * c_apart, c_apart);
    for (; r + ROWS / 2 <= rows; r += ROWS / 2) product<ROWS / 2>(a + r * apart, apart, w, C, bias, c + r * c_apart, c_apart);
    for (; r + 2 <= rows; r += 2) product<2>(a + r * apart, apart, w, C, bias, c + r * c_apart, c_apart);
    for (; r < rows; r++) product<1>(a + r * apart, apart, w, C, bias, c + r * c_apart, c_apart);
}

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

// Tiles of DOWN x ALONG outputs: 4 along an axis where the kernel has 3 taps, 1 where it has one.
template <int DOWN, int ALONG> struct Winograd {
    static constexpr int IN_H = DOWN == 4 ? 6 : 1, IN_W = ALONG == 4 ? 6 : 1, POINTS = IN_H * IN_W;
    using V = Vec<LANES>;
    Layer a;
    const float* zeros;
    int tiles_h, tiles_w;  // of one of the dh x dw grids that a dilated kernel sees apart

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
        int rows = std::min(DOWN, ceil_div(a.s.out_h - t.top, a.k.dh)), columns = std::min(ALONG, ceil_div(a.s.out_w - t.left, a.k.dw));
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
                    store<LANES>(y + at * a.s.out_c + c, out[j] + bias);
                }
            }
        }
    }

    // `block` tiles at a time, so that their transformed values stay in the second-level cache.
    void run(float* y, int groups, int block) const {
        int C = a.s.c, O = a.s.out_c, in = C / groups, out = O / groups;
        int tiles = a.s.n * a.k.dh * a.k.dw * tiles_h * tiles_w, blocks = ceil_div(tiles, block);
#pragma omp parallel
        {
            Floats v = floats((size_t)POINTS * block * C), m = floats((size_t)POINTS * block * O);
            long v_plane = (long)block * C, m_plane = (long)block * O;
#pragma omp for schedule(dynamic, 1)
            for (int b = 0; b < blocks; b++) {
                int first = b * block, count = std::min(block, tiles - first);
                for (int t = 0; t < count; t++) transform(tile(first + t), v.get() + (long)t * C, v_plane);
                for (int p = 0; p < POINTS; p++)
                    for (int o = 0; o < O; o += PANEL)
                        products(v.get() + p * v_plane + o / out * in, C, count, a.w + ((long)p * O + o) * in, in, nullptr,
                                 m.get() + p * m_plane + o, O);
                for (int t = 0; t < count; t++) outputs(tile(first + t), m.get() + (long)t * O, m_plane, y);
            }
        }
    }
};

template <int DOWN, int ALONG> void winograd_run(const Layer& a, float* y, int groups, int block) {
    Floats zeros = floats(a.s.c);
    std::fill_n(zeros.get(), a.s.c, 0.f);
    int tiles_h = ceil_div(ceil_div(a.s.out_h, a.k.dh), DOWN), tiles_w = ceil_div(ceil_div(a.s.out_w, a.k.dw), ALONG);
    Winograd<DOWN, ALONG>{a, zeros.get(), tiles_h, tiles_w}.run(y, groups, block);
}

}  // namespace

extern "C" {

int panel() { return PANEL; }
int lanes(int channels) { return lanes_for(channels); }

// Each output channel sees `per` input channels (1, 2 or 4), as many as its group has outputs.
// w: blocks x kh x kw x per x lanes.
void grouped(const float* x, const float* w, const float* bias, float* y, Shape s, Window k, int per) {
    Layer a(x, w, bias, s, k);
    if (per == 1 && k.kw > 7) return blocks(a, y);
    rows(a, per == 1 ? sums_of<1>(s.c, k) : per == 2 ? sums_of<2>(s.c, k) : sums_of<4>(s.c, k), y);
}

void max_pool(const float* x, float* y, Shape s, Window k) {
    rows(Layer(x, nullptr, nullptr, s, k, -__builtin_inff()), row_of<1, Largest, false>(s.c), y);
}

// Depthwise, then 1x1: rows of the depthwise output stay in cache until they are used. point: panels x C x PANEL.
void separable(const float* x, const float* w, const float* point, const float* bias, float* y, Shape s, Window k) {
    Layer a(x, w, nullptr, s, k);
    a.y_apart = s.c;
    RowOf row = sums_of<1>(s.c, k);
    in_bands(s, k, [&](int n, int first, int last) {
        float* between = scratch((size_t)(last - first) * s.out_w * s.c);
        for (int i = first; i < last; i++) row(a, n, i, between + (long)(i - first) * s.out_w * s.c);
        float* out = y + ((long)n * s.out_h + first) * s.out_w * s.out_c;
        for (int o = 0; o < s.out_c; o += PANEL)
            products(between, s.c, (last - first) * s.out_w, point + (long)o * s.c, s.c, bias ? bias + o : nullptr, out + o,
                     s.out_c);
    });
}

// F(4, 3) along the axes that have 3 taps, stride 1. w: points x panels x C/groups x PANEL.
void winograd(const float* x, const float* w, const float* bias, float* y, Shape s, Window k, int groups, int block) {
    Layer a(x, w, bias, s, k);
    if (k.kh == 3 && k.kw == 3) winograd_run<4, 4>(a, y, groups, block);
    else if (k.kh == 3) winograd_run<4, 1>(a, y, groups, block);
    else winograd_run<1, 4>(a, y, groups, block);
}

}  // extern "C"
