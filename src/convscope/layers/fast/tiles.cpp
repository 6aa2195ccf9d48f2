// Convolutions in tiles: any window and groups, each with a multiple of SIDE inputs and of SIDE outputs.

#include "mixing.h"

namespace {

constexpr long HELD = 1 << 18;  // bfloat16 of one part of a band's inputs: half of a second-level cache for both

// Output rows [first, last) of one picture, their outputs [from, to), and the inputs that they see in two parts, with a
// border of zeros. Tiles are filled row by row, each with gaps up to `pitch` places, that are done for nothing: to whole
// tiles, or, where the stride is 1, just the border, if that is less.
struct Band {
    Layer a;
    int groups, n, first, last, from, to, wide, pitch;
    long row = (long)wide * a.s.c;

    // What a part needs: behind the last row, a last tile that is not full sees what is there.
    long memory() const { return held() * row + (long)TILE * a.s.c; }

    int held() const { return (last - first - 1) * a.k.sh + a.k.dh * (a.k.kh - 1) + 1; }

    void take(Half* larger, Half* smaller) const {
        long left = (long)a.k.pw * a.s.c, inside = (long)a.s.w * a.s.c, right = row - left - inside;
        for (int i = 0; i < held(); i++, larger += row, smaller += row) {
            int seen = first * a.k.sh - a.k.ph + i;
            bool outside = seen < 0 || seen >= a.s.h;
            for (Half* part : {larger, smaller}) {
                std::fill_n(part, outside ? row : left, 0);
                std::fill_n(part + row - right, outside ? 0 : right, 0);
            }
            if (!outside) split(a.x + ((long)a.s.h * n + seen) * inside, inside, larger + left, smaller + left);
        }
    }

    void run(const Half* larger, float* y) const {
        int in = a.s.c / groups, out = a.s.out_c / groups, taps = a.k.kh * a.k.kw;
        int blocks = ceil_div((last - first - 1) * pitch + a.s.out_w, TILE);
        Taken taken{a.k.kh, a.k.kw, in, a.k.dh * row, (long)a.k.dw * a.s.c, (long)(a.k.sw * a.s.c * sizeof(Half))};
        alignas(64) float sums[SIDE * SIDE];
        Tiles here;
        for (int o = from; o < to; o += SIDE) {
            const Half *inputs = larger + o / out * in, *w = (const Half*)a.w + 2L * o * taps * in;
            auto block = [&](int b) {
                return inputs + b * TILE / pitch * a.k.sh * row + (long)(b * TILE % pitch) * a.k.sw * a.s.c;
            };
            for (int b = 0; b < blocks; b += 2) {
                square(block(b), block(std::min(b + 1, blocks - 1)), memory(), w, taken, sums);
                for (int i = b; i < std::min(b + 2, blocks); i++) write(sums + (i - b) * TILE * SIDE, i * TILE, o, y);
            }
        }
    }

    // Of TILE places, those that are outputs.
    void write(const float* sums, int place, int o, float* y) const {
        for (int r = 0, i = place / pitch, column = place % pitch; r < TILE && i < last - first; i++) {
            int count = std::min(TILE - r, a.s.out_w - column);
            long at = (((long)n * a.s.out_h + first + i) * a.s.out_w + column) * a.s.out_c + o;
            After then = a.after;
            if (then.other) then.other += at;
            finish(sums + r * SIDE, y + at, a.bias ? a.bias + o : nullptr, a.s.out_c, count, then);
            r += pitch - column, column = 0;
        }
    }
};

}  // namespace

extern "C" {

void pointwise_tiled(const float*, const void*, const float*, float*, int, int, int, After);

// w: for each SIDE outputs, what `square` takes.
void tiled(const float* x, const void* w, const float* bias, float* y, Shape s, Window k, int groups, After after) {
    Layer a(x, (const float*)w, bias, s, k);
    a.after = after;
    int full = ceil_div(s.out_w, TILE) * TILE, bordered = s.w + 2 * k.pw;
    bool close = k.sh * k.sw == 1 && bordered < full;
    int wide = close ? bordered : std::max(bordered, (full - 1) * k.sw + k.dw * (k.kw - 1) + 1);
    int span = k.dh * (k.kh - 1) + 1, fit = std::max(1L, (HELD / ((long)wide * s.c) - span) / k.sh + 1);
    // What all threads read is better the smaller of the two: the weights, or the inputs.
    int threads = omp_get_max_threads(), outs = s.out_c / SIDE;
    bool apart = (long)k.kh * k.kw * s.c / groups * s.out_c > (long)s.h * s.w * s.c;
    if (groups * k.kh * k.kw * k.sh * k.sw == 1 && !k.ph && !k.pw && (!apart || s.n >= threads))
        return pointwise_tiled(x, w, bias, y, s.n * s.h * s.w, s.c, s.out_c, after);
    int high = std::min({s.out_h, fit, apart ? s.out_h : ceil_div(s.n * s.out_h, threads)});
    int some = apart ? ceil_div(outs, std::min(outs, ceil_div(threads, s.n))) * SIDE : s.out_c;
#pragma omp parallel for schedule(static) collapse(3)
    for (int n = 0; n < s.n; n++)
        for (int first = 0; first < s.out_h; first += high)
            for (int o = 0; o < s.out_c; o += some) {
                int last = std::min(first + high, s.out_h), to = std::min(o + some, s.out_c);
                Band band{a, groups, n, first, last, o, to, wide, close ? bordered : full};
                Half* larger = (Half*)scratch(band.memory());
                band.take(larger, larger + band.memory());
                band.run(larger, y);
            }
}
}  // extern "C"
