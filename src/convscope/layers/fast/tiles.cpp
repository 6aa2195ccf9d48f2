// Convolutions in tiles: any window and groups, each with a multiple of SIDE inputs and of SIDE outputs; in bfloat16 also of
// fewer inputs, for which whole rows of taps fill a tile.

#include "mixing.h"

namespace {

constexpr long HELD = 1 << 18;  // bfloat16 of one part of a band's inputs: half of a second-level cache for two

inline void take_in(const float* x, long n, Half* larger, Half* smaller) { split(x, n, larger, smaller); }
inline void take_in(const Half* x, long n, Half* to, Half*) { std::copy_n(x, n, to); }

// Output rows [first, last) of one picture, their outputs [from, to), and the inputs that they see, each part of them with
// a border of zeros; of a window of one place without border, those alone that are seen. Tiles are filled row by row, each
// with gaps up to `pitch` places, that are done for nothing: to whole tiles, or, where the stride is 1, just the border, if
// that is less.
template <class T> struct Band {
    static constexpr int PARTS = sizeof(T) / sizeof(Half);
    const LayerOf<T>& a;
    int groups, n, first, last, from, to, wide, pitch;
    bool sparse;  // the inputs that are seen, alone
    long row = (long)wide * a.s.c;
    int in = a.s.c / groups, down = sparse ? 1 : a.k.sh, along = sparse ? 1 : a.k.sw;

    // What a part needs: behind the last row, a last tile that is not full sees what is there.
    long memory() const { return ceil_div(held() * row, DEPTH) * DEPTH + (long)SIDE * std::max(a.s.c, DEPTH); }

    int held() const { return (last - first - 1) * down + a.k.dh * (a.k.kh - 1) + 1; }

    const T* input(int i, int j) const { return a.x + (((long)a.s.h * n + i) * a.s.w + j) * a.s.c; }

    void take(Half* larger, Half* smaller) const {
        if (sparse) {
            for (int i = first; i < last; i++)
                for (int j = 0; j < a.s.out_w; j++, larger += a.s.c, smaller += a.s.c)
                    take_in(input(i * a.k.sh, j * a.k.sw), a.s.c, larger, smaller);
            std::fill_n(larger, DEPTH, 0);
            return;
        }
        long left = (long)a.k.pw * a.s.c, inside = (long)a.s.w * a.s.c, right = row - left - inside;
        for (int i = 0; i < held(); i++, larger += row, smaller += row) {
            int seen = first * a.k.sh - a.k.ph + i;
            bool outside = seen < 0 || seen >= a.s.h;
            for (Half* part : {larger, PARTS > 1 ? smaller : larger}) {
                std::fill_n(part, outside ? row : left, 0);
                std::fill_n(part + row - right, outside ? 0 : right, 0);
            }
            if (!outside) take_in(input(seen, 0), inside, larger + left, smaller + left);
        }
        std::fill_n(larger, DEPTH, 0);  // a row of taps may end there, on weights of zero
    }

    void run(const Half* larger, T* y) const {
        int out = a.s.out_c / groups, blocks = ceil_div((last - first - 1) * pitch + a.s.out_w, TILE);
        Taken taken{a.k.kh, a.k.kw, in, a.k.dh * row, (long)a.k.dw * a.s.c, (long)(along * a.s.c * sizeof(Half))};
        if (in % DEPTH) taken.kw = 1, taken.C = ceil_div(a.k.kw * in, DEPTH) * DEPTH;
        long depth = (long)taken.kh * taken.kw * taken.C;
        alignas(64) float sums[SIDE * SIDE];
        Tiles here;
        for (int o = from; o < to; o += SIDE) {
            const Half *inputs = larger + o / out * in, *w = (const Half*)a.w + PARTS * o * depth;
            auto block = [&](int b) {
                return inputs + b * TILE / pitch * down * row + (long)(b * TILE % pitch) * along * a.s.c;
            };
            for (int b = 0; b < blocks; b += 2) {
                square<T>(block(b), block(std::min(b + 1, blocks - 1)), memory(), w, taken, sums);
                for (int i = b; i < std::min(b + 2, blocks); i++) write(sums + (i - b) * TILE * SIDE, i * TILE, o, y);
            }
        }
    }

    // Of TILE places, those that are outputs.
    void write(const float* sums, int place, int o, T* y) const {
        for (int r = 0, i = place / pitch, column = place % pitch; r < TILE && i < last - first; i++) {
            int count = std::min(TILE - r, a.s.out_w - column);
            long at = (((long)n * a.s.out_h + first + i) * a.s.out_w + column) * a.s.out_c + o;
            AfterOf<T> then = a.after;
            if (then.other) then.other += at;
            finish(sums + r * SIDE, y + at, a.bias ? a.bias + o : nullptr, a.s.out_c, count, then);
            r += pitch - column, column = 0;
        }
    }
};

// Whether threads share the outputs, else the rows: what all of them read is better the smaller of weights and inputs.
template <class T> bool shares_outputs(const LayerOf<T>& a, int groups) {
    return (long)a.k.kh * a.k.kw * a.s.c / groups * a.s.out_c > (long)a.s.h * a.s.w * a.s.c;
}

template <class T> void in_bands(const LayerOf<T>& a, int groups, T* y) {
    const Shape& s = a.s;
    const Window& k = a.k;
    bool sparse = k.kh * k.kw == 1 && !k.ph && !k.pw;
    int full = ceil_div(s.out_w, TILE) * TILE, bordered = sparse ? s.out_w : s.w + 2 * k.pw;
    bool close = sparse || (k.sh * k.sw == 1 && bordered < full);
    int wide = close ? bordered : std::max(bordered, (full - 1) * k.sw + k.dw * (k.kw - 1) + 1);
    int span = k.dh * (k.kh - 1) + 1;
    int fit = std::max(1L, (HELD / ((long)wide * s.c) - span) / (sparse ? 1 : k.sh) + 1);
    int threads = omp_get_max_threads(), outs = s.out_c / SIDE;
    bool apart = shares_outputs(a, groups);
    int high = std::min({s.out_h, fit, apart ? s.out_h : ceil_div(s.n * s.out_h, threads)});
    int some = apart ? ceil_div(outs, std::min(outs, ceil_div(threads, s.n))) * SIDE : s.out_c;
#pragma omp parallel for schedule(static) collapse(3)
    for (int n = 0; n < s.n; n++)
        for (int first = 0; first < s.out_h; first += high)
            for (int o = 0; o < s.out_c; o += some) {
                int last = std::min(first + high, s.out_h), to = std::min(o + some, s.out_c);
                Band<T> band{a, groups, n, first, last, o, to, wide, close ? bordered : full, sparse};
                Half* larger = (Half*)scratch(band.memory());
                band.take(larger, larger + band.memory());
                band.run(larger, y);
            }
}

bool is_pointwise(const Window& k, int groups) { return groups * k.kh * k.kw * k.sh * k.sw == 1 && !k.ph && !k.pw; }

}  // namespace

extern "C" {

void pointwise_tiled(const float*, const void*, const float*, float*, int, int, int, After);

// w: for each SIDE outputs, what `square` takes.
void tiled(const float* x, const void* w, const float* bias, float* y, Shape s, Window k, int groups, After after) {
    Layer a(x, (const float*)w, bias, s, k);
    a.after = after;
    if (is_pointwise(k, groups) && (!shares_outputs(a, groups) || s.n >= omp_get_max_threads()))
        return pointwise_tiled(x, w, bias, y, s.n * s.h * s.w, s.c, s.out_c, after);
    in_bands(a, groups, y);
}

// 1x1, from where the inputs lie: behind the last pixel, a last tile that is not full sees what is there.
void pointwise_half(const Half* x, const Half* w, const float* bias, Half* y, int pixels, int c, int out_c,
                    AfterOf<Half> after) {
    constexpr int MANY = 8 * SIDE;
    int threads = omp_get_max_threads(), outs = out_c / SIDE;
    bool apart = out_c > pixels;
    int block = apart ? pixels : std::min(MANY, ceil_div(ceil_div(pixels, threads), SIDE) * SIDE);
    int some = apart ? ceil_div(outs, std::min(outs, 4 * threads)) * SIDE : out_c;
    Taken taken{1, 1, c, 0, 0, (long)(c * sizeof(Half))};
#pragma omp parallel for schedule(static) collapse(2)
    for (int first = 0; first < pixels; first += block)
        for (int from = 0; from < out_c; from += some) {
            alignas(64) float sums[SIDE * SIDE];
            Tiles here;
            for (int o = from; o < std::min(from + some, out_c); o += SIDE)
                for (int p = first, last = std::min(first + block, pixels); p < last; p += SIDE) {
                    const Half* inputs = x + (long)p * c;
                    square<Half>(inputs, inputs + (p + TILE < last ? TILE * c : 0), 0, w + (long)o * c, taken, sums);
                    AfterOf<Half> then = after;
                    long at = (long)p * out_c + o;
                    if (then.other) then.other += at;
                    finish(sums, y + at, bias ? bias + o : nullptr, out_c, std::min(SIDE, last - p), then);
                }
        }
}

// The same in bfloat16, of which one product is enough.
void tiled_half(const Half* x, const Half* w, const float* bias, Half* y, Shape s, Window k, int groups,
                AfterOf<Half> after) {
    if (is_pointwise(k, groups) && s.c % DEPTH == 0)
        return pointwise_half(x, w, bias, y, s.n * s.h * s.w, s.c, s.out_c, after);
    LayerOf<Half> a(x, (const float*)w, bias, s, k);
    a.after = after;
    in_bands(a, groups, y);
}
}  // extern "C"
