// Convolutions to 4 or 8 channels, fewer than a vector has lanes: it holds those of several neighbouring pixels.

#include "kernels.h"

#include <cstring>

namespace {

// O channels of each pixel; K rows of taps. An input is read once for all the rows of outputs that see it. POOLED: of
// each 2x2 outputs the largest is written (NaN wins, as in PyTorch).
template <int O, int K, bool POOLED> struct Thin {
    using V = Vec<LANES>;
    using M = typename Vector<LANES>::Mask;
    static constexpr int P = LANES / O, DOWN = POOLED ? 2 : 1;
    const float *x, *w;
    float* y;
    long line, y_line;
    int taps, channels, apart;  // along a row; of a pixel those that are read, and those that lie there
    V first;
    M pixels;  // where each lane finds its pixel
    After after;

    template <int N> void some(int row) const {
        constexpr int R = N * DOWN;
        V sum[R];
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) sum[r] = first;
        const float* weights = w;
        for (int k = 0; k < taps; k++)
            for (int i = 0; i < channels; i++, weights += K * LANES) {
                const float* from = x + row * DOWN * line + k * apart + i;
                V own[K];
#pragma GCC unroll 8
                for (int t = 0; t < K; t++) own[t] = load<LANES>(weights + t * LANES);
#pragma GCC unroll 32
                for (int j = 0; j < R + K - 1; j++) {
                    V v = __builtin_shuffle(load<LANES>(from + j * line), pixels);
#pragma GCC unroll 8
                    for (int t = 0; t < K; t++)
                        if (j >= t && j - t < R) sum[j - t] += v * own[t];
                }
            }
        const After last = after;
        float* to = y + row * y_line;
#pragma GCC unroll 16
        for (int r = 0; r < N; r++, to += y_line)
            POOLED ? store_largest(last.apply<LANES>(sum[r * DOWN], 0), last.apply<LANES>(sum[(r + 1) * DOWN - 1], 0), to)
                   : store<LANES>(to, last.apply<LANES>(sum[r], 0));
    }

    static V larger_of(V best, V x) { return ((x > best) | (x != x)) ? x : best; }

    static void store_largest(V upper, V lower, float* to) {
        M left, right;
        for (int l = 0; l < LANES; l++) left[l] = l % (LANES / 2) / O * 2 * O + l % O, right[l] = left[l] + O;
        V both = larger_of(upper, lower);
        V best = larger_of(__builtin_shuffle(both, left), __builtin_shuffle(both, right));
        std::memcpy(to, &best, sizeof best / 2);
    }
};

// `k`: stride 1. What is behind the last input is read, and counts for nothing.
template <int O, int K, bool POOLED>
void thin_of(const float* x, const float* w, const float* bias, float* y, const Shape& s, const Window& k, int channels,
             const After& after) {
    constexpr int P = LANES / O, DOWN = POOLED ? 2 : 1;
    if constexpr (P > 1) {
        int wide = s.w + 2 * k.pw, high = s.h + 2 * k.ph, columns = s.out_w * DOWN;
        Thin<O, K, POOLED> common{x, w, y, (long)wide * s.c, (long)s.out_w * O, k.kw, channels, s.c, {}, {}, after};
        if (bias) common.first = load<LANES>(bias);
        for (int l = 0; l < LANES; l++) common.pixels[l] = l / O * s.c;
#pragma omp parallel for schedule(static) collapse(2)
        for (int n = 0; n < s.n; n++)
            for (int column = 0; column < columns; column += P) {
                Thin<O, K, POOLED> own = common;
                int at = std::min(column, columns - P);
                own.x += (long)n * high * own.line + at * s.c, own.y += n * s.out_h * own.y_line + at / DOWN * O;
                in_runs<ROWS / DOWN>(own, s.out_h);
            }
    }
}

template <bool POOLED, class... Given> void thin_in(int out_c, int kh, Given... given) {
    if (out_c == 4) return kh == 3 ? thin_of<4, 3, POOLED>(given...) : thin_of<4, 5, POOLED>(given...);
    kh == 3 ? thin_of<8, 3, POOLED>(given...) : thin_of<8, 5, POOLED>(given...);
}

}  // namespace

extern "C" {

// x: with its border; of its channels the first `channels` count. w: kw x channels x kh x LANES, the channels of an output
// again and again, as in `bias`. `pooled`: the largest of 2x2 outputs each.
void thin(const float* x, const float* w, const float* bias, float* y, Shape s, Window k, int channels, bool pooled,
          After after) {
    auto run = pooled ? thin_in<true, const float*, const float*, const float*, float*, Shape, Window, int, After>
                      : thin_in<false, const float*, const float*, const float*, float*, Shape, Window, int, After>;
    run(s.out_c, k.kh, x, w, bias, y, s, k, channels, after);
}
}
