// Sliding windows: few channels in a group, depthwise with 1x1 behind it, pooling.

#include "mixing.h"
#include "patches.h"

namespace {

// Each thread takes neighbouring rows of outputs, a whole number of patches.
template <class Body> void in_bands(const Shape& s, Body body) {
#pragma omp parallel
    {
        long rows = (long)s.n * s.out_h, threads = omp_get_num_threads(), mine = omp_get_thread_num();
        auto begin = [&](long thread) { return thread == threads ? rows : rows * thread / threads / 4 * 4; };
        for (long row = begin(mine), end = begin(mine + 1); row < end;) {
            int n = row / s.out_h, first = row % s.out_h, last = std::min<long>(s.out_h, first + end - row);
            body(n, first, last);
            row += last - first;
        }
    }
}

// Output rows in place: for kernels that are small beside the caches.
void in_place(const Layer& a, RowsOf rows, float* y) {
    in_bands(a.s, [&](int n, int first, int last) {
        rows(a, n, first, last, y + ((long)n * a.s.out_h + first) * a.s.out_w * a.y_apart);
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
template <int L> struct Block {
    const Layer& a;
    float *padded, *sums;
    int wide, channel;
    long step = a.k.sw * L, gap = a.k.dw * L;

    void copy(int n) const {
        std::fill_n(padded, (size_t)a.s.h * wide * L, 0.f);
        for (int i = 0; i < a.s.h; i++)
            for (int j = 0; j < a.s.w; j++)
                store<L>(padded + ((long)i * wide + j + a.k.pw) * L,
                         load<L>(a.x + (((long)n * a.s.h + i) * a.s.w + j) * a.s.c + channel));
    }

    // Sums of the row `i` in runs of R; a run passes over the taps that meet nothing but zeros.
    template <int R> void row(int i) const {
        int top = i * a.k.sh - a.k.ph;
        Taps down(top, a.s.h, a.k.kh, a.k.dh);
        for (int j = 0; j < a.s.out_w; j += R) {
            int left = j * a.k.sw - a.k.pw, right = left + (R - 1) * a.k.sw;
            int first = Taps(right, a.s.w, a.k.kw, a.k.dw).first, last = Taps(left, a.s.w, a.k.kw, a.k.dw).last;
            for (int t = down.first; t < down.last && first < last; t++)
                add_taps<L, R>(sums + j * L, padded + (long)(top + t * a.k.dh) * wide * L + j * step + first * gap, step,
                               gap, a.w + ((long)channel * a.k.kh + t * L) * a.k.kw + first * L, last - first);
        }
    }
};

template <int L> void blocks_of(const Layer& a, float* y) {
    constexpr int LONG = ROWS, SHORT = ROWS / 2 + 1;
    const Shape& s = a.s;
    int vectors = s.c / L, by_long = ceil_div(s.out_w, LONG) * LONG, by_short = ceil_div(s.out_w, SHORT) * SHORT;
    int columns = std::min(by_long, by_short);  // those behind out_w are not kept
    int wide = std::max(s.w + 2 * a.k.pw, (columns - 1) * a.k.sw + (a.k.kw - 1) * a.k.dw + 1);
#pragma omp parallel for schedule(static)
    for (int item = 0; item < s.n * vectors; item++) {
        int n = item / vectors, channel = item % vectors * L;
        float* padded = scratch(((size_t)s.h * wide + columns) * L);
        Block<L> block{a, padded, padded + (long)s.h * wide * L, wide, channel};
        block.copy(n);
        for (int i = 0; i < s.out_h; i++) {
            for (int j = 0; j < columns; j++)
                store<L>(block.sums + j * L, a.bias ? load<L>(a.bias + channel) : Vec<L>{});
            by_short < by_long ? block.template row<SHORT>(i) : block.template row<LONG>(i);
            for (int j = 0; j < s.out_w; j++)
                store<L>(y + (((long)n * s.out_h + i) * s.out_w + j) * s.c + channel, a.after.apply<L>(load<L>(block.sums + j * L), 0));
        }
    }
}

// Input rows [first, last) of one picture.
struct Band { int n, first, last; };

// The gradients that reach a band: every window that meets it is gone through, also for places outside.
template <int L> void spread_largest(const float* x, const float* grad, float* to, const Shape& s, const Window& k, Band b) {
    using V = Vec<L>;
    using M = typename Vector<L>::Mask;
    std::fill_n(to + ((long)b.n * s.h + b.first) * s.w * s.c, (size_t)(b.last - b.first) * s.w * s.c, 0.f);
    int before = b.first + k.ph - k.dh * (k.kh - 1);
    int rows = std::min(s.out_h, (b.last - 1 + k.ph) / k.sh + 1);
    for (int i = before > 0 ? ceil_div(before, k.sh) : 0; i < rows; i++) {
        int top = i * k.sh - k.ph;
        Taps down(top, s.h, k.kh, k.dh);
        for (int j = 0; j < s.out_w; j++) {
            int left = j * k.sw - k.pw;
            Taps along(left, s.w, k.kw, k.dw);
            auto place = [&](int t, int u) {
                return (((long)b.n * s.h + top + t * k.dh) * s.w + left + u * k.dw) * s.c;
            };
            const float* given = grad + (((long)b.n * s.out_h + i) * s.out_w + j) * s.c;
            for (int c = 0; c < s.c; c += L) {
                V best = V{} - __builtin_inff();
                M at = M{} + down.first * k.kw + along.first;
                for (int t = down.first; t < down.last; t++)
                    for (int u = along.first; u < along.last; u++) {
                        V value = load<L>(x + place(t, u) + c);
                        M larger = (value > best) | (value != value);
                        best = larger ? value : best, at = larger ? M{} + (t * k.kw + u) : at;
                    }
                V g = load<L>(given + c);
                for (int t = down.first; t < down.last; t++) {
                    int row = top + t * k.dh;
                    if (row < b.first || row >= b.last) continue;
                    for (int u = along.first; u < along.last; u++) {
                        float* p = to + place(t, u) + c;
                        store<L>(p, load<L>(p) + (at == M{} + (t * k.kw + u) ? g : V{}));
                    }
                }
            }
        }
    }
}

}  // namespace

extern "C" {

void max_pool_of(const float* x, int x_apart, float* y, Shape s, Window k);

int panel() { return PANEL; }
bool tiles() { return has_tiles(); }
int lanes(int channels) { return lanes_for(channels); }

// Each output channel sees `per` input channels (1, 2, 4 or 8), as many as its group has outputs.
// w: blocks x kh x kw x per x lanes. Nothing is added; bounds are kept.
void grouped(const float* x, const float* w, const float* bias, float* y, Shape s, Window k, int per, After after) {
    Layer a(x, w, bias, s, k);
    a.after = after;
    if (per == 1 && k.kw > 7) return in_lanes(s.c, [&](auto l) { blocks_of<decltype(l)::value>(a, y); });
    in_place(a, sums_of(per, s.c, k, s.out_w), y);
}

// The gradient of the weights, apart for each of `threads`: each `size` floats that lie as the weights do.
void grouped_weights(const float* x, const float* grad, float* sums, Shape s, Window k, int per, int threads, long size) {
    Layer a(x, sums, nullptr, s, k);
    SlopeOf slope = slope_of(per, s.c, k);
#pragma omp parallel num_threads(threads)
    {
        float* own = sums + omp_get_thread_num() * size;
        std::fill_n(own, size, 0.f);
#pragma omp for schedule(static)
        for (int i = 0; i < s.n * s.out_h; i++) slope(a, i / s.out_h, i % s.out_h, grad + (long)i * s.out_w * s.c, own);
    }
}

// The first s.c channels of pixels that lie x_apart floats apart.
void max_pool_of(const float* x, int x_apart, float* y, Shape s, Window k) {
    Layer a(x, nullptr, nullptr, s, k, -__builtin_inff());
    a.x_apart = x_apart, a.y_apart = s.c;
    in_place(a, largest_of(s.c, k), y);
}

// The same two, told in one place what they are told beside their arrays.
struct Call { Shape s; Window k; int per; After after; };
void call_grouped(const Call* c, const float* x, const float* w, const float* bias, float* y) {
    grouped(x, w, bias, y, c->s, c->k, c->per, c->after);
}
void call_max_pool(const Call* c, const float* x, float* y) { max_pool_of(x, c->s.c, y, c->s, c->k); }

// 1x1: a product of matrices, in blocks of pixels that stay in the first-level cache. w: panels x C x PANEL, of which the
// last may be half full.
void pointwise(const float* x, const float* w, const float* bias, float* y, int pixels, int c, int out_c, After after) {
    int panels = ceil_div(out_c, PANEL), block = 4 * ROWS;
    while (block > ROWS && ceil_div(pixels, block) * panels < 4 * omp_get_max_threads()) block /= 2;
#pragma omp parallel for schedule(static)
    for (int item = 0; item < ceil_div(pixels, block) * panels; item++) {
        int o = item % panels * PANEL, first = item / panels * block, count = std::min(block, pixels - first);
        long at = (long)first * out_c + o;
        After then = after;
        then.other = after.other ? after.other + at : nullptr;
        Product p{x + (long)first * c, w + (long)o * c, bias ? bias + o : nullptr, y + at, c, out_c, c, then};
        p.in_parts(count, [&](const Product& part) { out_c - o >= PANEL ? part.all(count) : part.all<1>(count); });
    }
}

// The same in tiles.
void pointwise_tiled(const float* x, const void* w, const float* bias, float* y, int pixels, int c, int out_c,
                     After after) {
    Mixer mixer{w, bias, c, out_c, true, after};
    int block = mixer.best();
    while (block > SIDE && ceil_div(pixels, block) < 4 * omp_get_max_threads()) block /= 2;
#pragma omp parallel for schedule(static)
    for (int first = 0; first < pixels; first += block) {
        long at = (long)first * out_c, count = std::min(block, pixels - first);
        mixer.all(x + (long)first * c, y + at, after.other ? after.other + at : nullptr, count, scratch(mixer.needs(count)));
    }
}

// Depthwise, then 1x1: rows of the depthwise output stay in cache until they are used.
void separable(const float* x, const float* w, const void* point, const float* bias, float* y, Shape s, Window k,
               bool tiles) {
    Layer a(x, w, nullptr, s, k);
    a.y_apart = s.c;
    RowsOf rows = sums_of(1, s.c, k, s.out_w);
    Mixer mixer{point, bias, s.c, s.out_c, tiles};
    int few = std::max(1, mixer.best() / s.out_w);
    long size = (long)few * s.out_w * s.c;
    in_bands(s, [&](int n, int first, int last) {
        float* between = scratch(size + mixer.needs((long)few * s.out_w));
        for (int top = first; top < last; top += few) {
            int count = std::min(few, last - top);
            rows(a, n, top, top + count, between);
            float* out = y + ((long)n * s.out_h + top) * s.out_w * s.out_c;
            mixer.all(between, out, nullptr, count * s.out_w, between + size);
        }
    });
}

// 1x1, then depthwise: rows of the 1x1's output stay in the second-level cache until the depthwise one has used them.
void flattened(const float* x, const void* across, const float* w, const float* bias, float* y, Shape s, Window k,
               bool tiles) {
    constexpr long HELD = 1 << 16;  // floats of such rows
    int inner = s.c, span = k.dh * (k.kh - 1) + 1;
    s.c = s.out_c;
    long apart = (long)s.w * s.c, few = std::max(1L, (HELD / apart - span) / k.sh + 1);  // outputs of one go
    long most = (few - 1) * k.sh + span;
    int stretch = std::min(s.out_h, ceil_div(s.n * s.out_h, omp_get_max_threads()));
    RowsOf rows = sums_of(1, s.c, k, s.out_w);
    Mixer mixer{across, nullptr, inner, s.c, tiles};
#pragma omp parallel for schedule(static) collapse(2)
    for (int n = 0; n < s.n; n++)
        for (int begin = 0; begin < s.out_h; begin += stretch) {
            int end = std::min(begin + stretch, s.out_h), low = 0, high = 0;  // input rows that are held
            float* held = scratch(most * apart + mixer.needs(most * s.w));
            for (int first = begin; first < end; first += few) {
                int last = std::min<int>(first + few, end), top = first * k.sh - k.ph, next = std::min(std::max(top, 0), s.h);
                std::copy(held + (std::min(next, high) - low) * apart, held + (high - low) * apart, held);
                low = next, high = std::max(low, high);
                int to = std::max(high, std::min((last - 1) * k.sh - k.ph + span, s.h));
                mixer.all(x + ((long)n * s.h + high) * s.w * inner, held + (high - low) * apart, nullptr,
                          (to - high) * s.w, held + most * apart);
                high = to;
                Shape part = s;
                Window window = k;
                part.h = high - low, window.ph = low - top;
                Layer a(held, w, bias, part, window);
                rows(a, 0, 0, last - first, y + ((long)n * s.out_h + first) * s.out_w * s.c);
            }
        }
}

// The gradient of max_pool's input: each output's goes to the place of its largest, the first of equals, the last NaN.
void max_pool_backward(const float* x, const float* grad, float* to, Shape s, Window k) {
    int bands = std::min(s.h, ceil_div(4 * omp_get_max_threads(), s.n)), high = ceil_div(s.h, bands);
    auto each = s.c % LANES ? spread_largest<4> : spread_largest<LANES>;
#pragma omp parallel for schedule(static) collapse(2)
    for (int n = 0; n < s.n; n++)
        for (int first = 0; first < s.h; first += high) each(x, grad, to, s, k, {n, first, std::min(first + high, s.h)});
}
}  // extern "C"
