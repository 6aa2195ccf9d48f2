// Convolutions with 3 taps and stride 1, by Winograd's F(4, 3).

#include "kernels.h"

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
                        Product{v.get() + p * v_plane + o / out * in, a.w + ((long)p * O + o) * in, nullptr,
                                m.get() + p * m_plane + o, C, O, in}.all(count);
                for (int t = 0; t < count; t++) outputs(tile(first + t), m.get() + (long)t * O, m_plane, y);
            }
        }
    }
};

template <int DOWN, int ALONG> void winograd_run(const Layer& a, float* y, int groups, int block, After after) {
    Floats zeros = floats(a.s.c);
    std::fill_n(zeros.get(), a.s.c, 0.f);
    int tiles_h = ceil_div(ceil_div(a.s.out_h, a.k.dh), DOWN), tiles_w = ceil_div(ceil_div(a.s.out_w, a.k.dw), ALONG);
    Winograd<DOWN, ALONG>{a, zeros.get(), tiles_h, tiles_w, after}.run(y, groups, block);
}

}  // namespace

// Winograd along the axes that have 3 taps. w: points x panels x C/groups x PANEL.
extern "C" void winograd(const float* x, const float* w, const float* bias, float* y, Shape s, Window k, int groups,
                         int block, After after) {
    Layer a(x, w, bias, s, k);
    if (k.kh == 3 && k.kw == 3) winograd_run<4, 4>(a, y, groups, block, after);
    else if (k.kh == 3) winograd_run<4, 1>(a, y, groups, block, after);
    else winograd_run<1, 4>(a, y, groups, block, after);
}
