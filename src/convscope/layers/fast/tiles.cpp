// Convolutions in tiles: any window and groups, each with a multiple of SIDE inputs and of SIDE outputs.

#include "mixing.h"

namespace {

constexpr long HELD = 1 << 18;  // bfloat16 of one part of a band's inputs: half of a second-level cache for both

// Output rows [first, last) of one picture, and the inputs that they see in two parts, with a border of zeros.
struct Band {
    Layer a;
    int groups, n, first, last, wide;
    long row = (long)wide * a.s.c;

    int held() const { return (last - first - 1) * a.k.sh + a.k.dh * (a.k.kh - 1) + 1; }

    void take(Half* larger, Half* smaller) const {
        long left = (long)a.k.pw * a.s.c, inside = (long)a.s.w * a.s.c, right = row - left - inside;
        for (int i = 0; i < held(); i++, larger += row, smaller += row) {
            int from = first * a.k.sh - a.k.ph + i;
            bool outside = from < 0 || from >= a.s.h;
            for (Half* part : {larger, smaller}) {
                std::fill_n(part, outside ? row : left, 0);
                std::fill_n(part + row - right, outside ? 0 : right, 0);
            }
            if (!outside) split(a.x + ((long)a.s.h * n + from) * inside, inside, larger + left, smaller + left);
        }
    }

    void run(const Half* larger, float* y) const {
        int in = a.s.c / groups, out = a.s.out_c / groups, across = ceil_div(a.s.out_w, TILE);
        int blocks = (last - first) * across, taps = a.k.kh * a.k.kw;
        Taken taken{a.k.kh, a.k.kw, in, a.k.dh * row, (long)a.k.dw * a.s.c, (long)(a.k.sw * a.s.c * sizeof(Half))};
        alignas(64) float sums[SIDE * SIDE];
        Tiles here;
        for (int o = 0; o < a.s.out_c; o += SIDE) {
            const Half *from = larger + o / out * in, *w = (const Half*)a.w + 2L * o * taps * in;
            auto block = [&](int b) { return from + b / across * a.k.sh * row + (long)(b % across) * TILE * a.k.sw * a.s.c; };
            for (int b = 0; b < blocks; b += 2) {
                square(block(b), block(std::min(b + 1, blocks - 1)), held() * row, w, taken, sums);
                for (int i = b; i < std::min(b + 2, blocks); i++) {
                    int column = i % across * TILE;
                    long at = (((long)n * a.s.out_h + first + i / across) * a.s.out_w + column) * a.s.out_c + o;
                    finish(sums + (i - b) * TILE * SIDE, y + at, a.bias ? a.bias + o : nullptr, a.s.out_c,
                           std::min(TILE, a.s.out_w - column),
                           {a.after.other ? a.after.other + at : nullptr, a.after.low, a.after.high});
                }
            }
        }
    }
};

}  // namespace

extern "C" {

// w: for each SIDE outputs, what `square` takes.
void tiled(const float* x, const void* w, const float* bias, float* y, Shape s, Window k, int groups, After after) {
    Layer a(x, (const float*)w, bias, s, k);
    a.after = after;
    int reached = (ceil_div(s.out_w, TILE) * TILE - 1) * k.sw + k.dw * (k.kw - 1) + 1;
    int wide = std::max(s.w + 2 * k.pw, reached), span = k.dh * (k.kh - 1) + 1;
    int fit = std::max(1L, (HELD / ((long)wide * s.c) - span) / k.sh + 1);
    int high = std::min({s.out_h, fit, ceil_div(s.n * s.out_h, omp_get_max_threads())});
#pragma omp parallel for schedule(static) collapse(2)
    for (int n = 0; n < s.n; n++)
        for (int first = 0; first < s.out_h; first += high) {
            Band band{a, groups, n, first, std::min(first + high, s.out_h), wide};
            Half* larger = (Half*)scratch(band.held() * band.row);
            band.take(larger, larger + band.held() * band.row);
            band.run(larger, y);
        }
}
}  // extern "C"
