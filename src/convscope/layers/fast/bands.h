// Convolutions in tiles: how the inputs of a window are laid, and which outputs are summed at a time. T is the type of the
// inputs; an `End` says what becomes of sums, and where they are written.

#pragma once

#include "mixing.h"

#include <vector>

namespace {

constexpr long HELD = 1 << 18;  // numbers of one part of a band's inputs: half of a second-level cache for two
constexpr long NEAR = 1 << 18;  // numbers of weights that stay there

inline void take_in(const float* x, long n, Half* larger, Half* smaller) { split(x, n, larger, smaller); }
template <class T> void take_in(const T* x, long n, T* to, T*) { std::copy_n(x, n, to); }

// Sums become a layer's outputs: bias, another array, an activation, bounds.
template <class T> struct Written {
    T* y;
    const float* bias;
    long apart;
    AfterOf<T> after;

    template <int N> void put(const float* sums, long at, int o, int count) const {
        AfterOf<T> then = after;
        if (then.other) then.other += at;
        finish<T, N>(sums, y + at, bias ? bias + o : nullptr, apart, count, then);
    }
};

// Squares of sums, each written while the next one is summed: other parts of the processor do that.
template <class Sum, class Write> void in_turns(int count, Sum sum, Write write) {
    alignas(64) float sums[2][SIDE * SIDE];
    for (int i = 0; i <= count; i++) {
        if (i < count) sum(i, sums[i % 2]);
        if (i > 0) write(i - 1, sums[(i - 1) % 2]);
    }
}

// An axis of the inputs that a band holds. Those of a phase, every `phases`-th one, lie side by side, so that from one
// output to the next it is one step whatever the stride is.
struct Axis {
    int phases, planes, size, step;  // how many, those that are seen, inputs of each, steps from one output to the next

    Axis(int outs, int taps, int stride, int gap, bool whole) {
        int span = gap * (taps - 1) + 1;
        phases = whole ? 1 : stride, planes = std::min(phases, span), step = stride / phases;
        size = ((outs - 1) * stride + span - 1) / phases + 1;
    }
};

// What the bands of a layer have in common: how the inputs of each lie, and where those of a window do.
struct Laid {
    Axis down, along;
    int channels, pitch;  // places of outputs from one row to the next
    long row = (long)along.size * channels, plane = down.size * row, picture = plane * down.planes * along.planes;

    long tap(const Window& k, int t, int u) const {
        t *= k.dh, u *= k.dw;
        return (t % down.phases * along.planes + u % along.phases) * plane + t / down.phases * row +
               (long)(u / along.phases) * channels;
    }
};

// Output rows [first, last) of some pictures, their outputs [from, to), and the inputs that they see, each part of them with
// a border of zeros. Tiles are filled row by row, each with gaps up to `pitch` places, that are done for nothing: just the
// border, or, if that is less, to whole tiles.
template <class T, class End> struct Band {
    static constexpr int PARTS = std::is_same_v<T, float> ? 2 : 1, DEPTH = depth<T>;
    using In = Tiled<T>;
    const LayerOf<T>& a;
    const Laid& laid;
    const Taken& taken;
    const End& end;
    int groups, n, pictures, first, last, from, to;

    // What a part needs: behind the last row, a last tile that is not full sees what is there.
    long memory() const { return ceil_div(pictures * laid.picture, DEPTH) * DEPTH + (long)SIDE * std::max(a.s.c, DEPTH); }

    void take(In* larger, In* smaller) const {
        const Axis &down = laid.down, &along = laid.along;
        for (int m = n; m < n + pictures; m++)
            for (int p = 0; p < down.planes * along.planes; p++)
                for (int i = 0; i < down.size; i++, larger += laid.row, smaller += laid.row)
                    take_row(m, first * a.k.sh - a.k.ph + i * down.phases + p / along.planes, p % along.planes, larger, smaller);
        std::fill_n(larger, DEPTH, 0);  // a row of taps may end there, on weights of zero
    }

    // Of a row of inputs, those of a phase.
    void take_row(int n, int i, int phase, In* larger, In* smaller) const {
        int size = laid.along.size, step = laid.along.phases, left = a.k.pw - phase;
        int begin = std::min(ceil_div(std::max(left, 0), step), size);
        int end = std::clamp(ceil_div(std::max(a.s.w + left, 0), step), begin, size);
        if (i < 0 || i >= a.s.h) begin = end = size;
        long c = a.s.c;
        for (In* part : {larger, PARTS > 1 ? smaller : larger})
            std::fill_n(part, begin * c, 0), std::fill_n(part + end * c, (size - end) * c, 0);
        const T* x = a.x + (((long)n * a.s.h + i) * a.s.w + begin * step - left) * c;
        if (step == 1) return take_in(x, (end - begin) * c, larger + begin * c, smaller + begin * c);
        for (; begin < end; begin++, x += step * c) take_in(x, c, larger + begin * c, smaller + begin * c);
    }

    void run(const In* larger) const {
        // Pictures without a border above and below: their rows go on and on.
        bool joined = last - first == a.s.out_h && laid.down.size == a.s.out_h && laid.down.step * laid.down.planes == 1 &&
                      laid.along.planes == 1 && laid.along.size == laid.pitch;
        int in = a.s.c / groups, out = a.s.out_c / groups, rows = joined ? pictures * a.s.out_h : last - first;
        int blocks = ceil_div((rows - 1) * laid.pitch + a.s.out_w, TILE);
        int all = joined ? blocks : pictures * blocks, squares = ceil_div(all, 2);
        auto block = [&](int b) {
            int place = b % blocks * TILE;
            return larger + b / blocks * laid.picture + place / laid.pitch * laid.down.step * laid.row +
                   (long)(place % laid.pitch) * laid.along.step * a.s.c;
        };
        Tiles here;
        auto sum = [&](int i, float* sums) {
            int o = from + i / squares * SIDE, b = i % squares * 2;
            long inputs = o / out * in;
            (a.s.out_c < SIDE ? square<T, 1> : square<T>)(block(b) + inputs, block(std::min(b + 1, all - 1)) + inputs, memory(),
                                                          (const In*)a.w + PARTS * o * taken.count * taken.C, taken, sums);
        };
        auto put = [&](int i, const float* sums) {
            int o = from + i / squares * SIDE, b = i % squares * 2;
            for (int j = b; j < std::min(b + 2, all); j++)
                write(sums + (j - b) * TILE * SIDE, n + j / blocks, j % blocks * TILE, o, rows);
        };
        in_turns(ceil_div(to - from, SIDE) * squares, sum, put);
    }

    // Of TILE places, those that are outputs.
    void write(const float* sums, int n, int place, int o, int rows) const {
        for (int r = 0, i = place / laid.pitch, column = place % laid.pitch; r < TILE && i < rows; i++) {
            int count = std::min(TILE - r, a.s.out_w - column);
            long at = (((long)n * a.s.out_h + first + i) * a.s.out_w + column) * a.s.out_c + o;
            a.s.out_c < SIDE ? end.template put<1>(sums + r * SIDE, at, o, count)
                             : end.template put<2>(sums + r * SIDE, at, o, count);
            r += laid.pitch - column, column = 0;
        }
    }
};

// Whether threads share the outputs, else the rows: what all of them read is better the smaller of weights and inputs.
template <class T> bool shares_outputs(const LayerOf<T>& a, int groups) {
    return (long)a.k.kh * a.k.kw * a.s.c / groups * a.s.out_c > (long)a.s.h * a.s.w * a.s.c;
}

template <class T, class End> void in_bands(const LayerOf<T>& a, int groups, const End& end) {
    constexpr int DEPTH = depth<T>;
    using Here = Band<T, End>;
    const Shape& s = a.s;
    const Window& k = a.k;
    int in = s.c / groups, full = ceil_div(s.out_w, TILE) * TILE;
    bool whole = in % DEPTH;  // whole rows of taps
    Axis along(s.out_w, k.kw, k.sw, k.dw, whole);
    bool close = along.size < full && !(whole && k.sh * k.sw > 1);
    if (!close) along = Axis(full, k.kw, k.sw, k.dw, whole);
    auto lie = [&](int rows) { return Laid{Axis(rows, k.kh, k.sh, k.dh, whole), along, s.c, close ? along.size : full}; };

    int threads = omp_get_max_threads(), outs = ceil_div(s.out_c, SIDE);
    bool apart = shares_outputs(a, groups);
    int bands = apart ? 1 : std::min(s.out_h, ceil_div(threads, s.n));
    long weights = (long)k.kh * k.kw * in * s.out_c;  // each band reads them once more,
    int around = k.dh * (k.kh - 1);                   // and these rows of inputs
    auto fits = [&](int rows) {
        long room = Here::PARTS > 1 ? HELD : std::clamp(weights / 2, HELD, 4 * HELD);
        return lie(rows).picture <= (rows <= around ? 2 * room : room);
    };
    while (bands < s.out_h && !fits(ceil_div(s.out_h, bands))) bands++;
    int high = ceil_div(s.out_h, bands);
    Laid laid = lie(high);
    int fit = bands > 1 ? 1 : std::clamp<long>(2 * HELD / laid.picture, 1, ceil_div(s.n, threads));
    int pictures = ceil_div(s.n, ceil_div(ceil_div(s.n, fit), threads) * threads);
    int some = apart ? ceil_div(outs, std::min(outs, ceil_div(threads, s.n))) * SIDE : s.out_c;

    std::vector<long> taps;
    for (int t = 0; t < k.kh; t++)
        for (int u = 0; u < (whole ? 1 : k.kw); u++) taps.push_back(laid.tap(k, t, u));
    Taken taken{taps.data(), (int)taps.size(), whole ? ceil_div(k.kw * in, DEPTH) * DEPTH : in,
                (long)(laid.along.step * s.c * sizeof(Tiled<T>))};
#pragma omp parallel for schedule(static) collapse(3)
    for (int n = 0; n < s.n; n += pictures)
        for (int first = 0; first < s.out_h; first += high)
            for (int o = 0; o < s.out_c; o += some) {
                int last = std::min(first + high, s.out_h), to = std::min(o + some, s.out_c);
                Here band{a, laid, taken, end, groups, n, std::min(pictures, s.n - n), first, last, o, to};
                auto larger = (Tiled<T>*)scratch(band.memory());
                band.take(larger, larger + band.memory());
                band.run(larger);
            }
}

bool is_pointwise(const Window& k, int groups) { return groups * k.kh * k.kw * k.sh * k.sw == 1 && !k.ph && !k.pw; }

// 1x1, from where the inputs lie: behind the last pixel, a last tile that is not full sees what is there.
template <class T, class End> void in_place(const T* x, const T* w, int pixels, int c, int out_c, const End& end) {
    int threads = omp_get_max_threads(), outs = out_c / SIDE;
    bool apart = out_c > pixels;
    int block = apart ? pixels : ceil_div(ceil_div(pixels, threads), SIDE) * SIDE;
    int some = apart ? ceil_div(outs, std::min(outs, 4 * threads)) * SIDE : std::clamp<long>(NEAR / c / SIDE, 1, outs) * SIDE;
    const long none = 0;
    Taken taken{&none, 1, c, (long)(c * sizeof(T))};
#pragma omp parallel for schedule(static) collapse(2)
    for (int first = 0; first < pixels; first += block)
        for (int from = 0; from < out_c; from += some) {
            int last = std::min(first + block, pixels), count = (std::min(from + some, out_c) - from) / SIDE;
            Tiles here;
            auto sum = [&](int i, float* sums) {
                int p = first + i / count * SIDE, o = from + i % count * SIDE;
                const T* inputs = x + (long)p * c;
                square<T>(inputs, inputs + (p + TILE < last ? TILE * c : 0), 0, w + (long)o * c, taken, sums);
            };
            auto write = [&](int i, const float* sums) {
                int p = first + i / count * SIDE, o = from + i % count * SIDE;
                end.template put<2>(sums, (long)p * out_c + o, o, std::min(SIDE, last - p));
            };
            in_turns(ceil_div(last - first, SIDE) * count, sum, write);
        }
}

}  // namespace
