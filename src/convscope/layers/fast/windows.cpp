// Sliding windows: few channels in a group, depthwise with 1x1 behind it, pooling.

#include "kernels.h"

namespace {

// What a window does with its inputs: a sum of products, or the largest (NaN wins, as in PyTorch).
template <int L> struct Sum {
    static void add(Vec<L>& sum, Vec<L> x, const float* w) { sum += x * load<L>(w); }
};
template <int L> struct Largest {
    static void add(Vec<L>& best, Vec<L> x, const float*) { best = ((x > best) | (x != x)) ? x : best; }
};

// One output row. PER: the channels of a group. A lane needs each input channel of its group: a shuffle of the vector.
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
            store<L>(y + channel, a.after.apply<L>(sum, 0));
        }
    }

    void run(int column, float* y) const {
        for (int channel = 0; channel < a.s.c; channel += L) {
            const float* from = x + channel + (column * a.k.sw - a.k.pw) * a.x_apart;
            const float* weights = w + channel * w_channel;
            V sum[R], first = start(channel);
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) sum[r] = first;
            for (int i = 0; i < rows; i++, from += x_row, weights += w_row)
                OVERLAP ? overlapping(sum, from, weights) : apart(sum, from, weights);
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) store<L>(y + channel + r * a.y_apart, a.after.apply<L>(sum[r], 0));
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
    if constexpr (LANES >= 16)
        if (lanes_for(channels) == 16) return row<16, PER, Act, OVERLAP>;
    if constexpr (LANES >= 8)
        if (lanes_for(channels) == 8) return row<8, PER, Act, OVERLAP>;
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
                int j = 0, half = ROWS / 2;
                for (; j + ROWS <= s.out_w; j += ROWS)
                    add_taps<L, ROWS>(sums + j * L, x + j * step, step, gap, w, k.kw);
                for (; j + half <= s.out_w; j += half)
                    add_taps<L, ROWS / 2>(sums + j * L, x + j * step, step, gap, w, k.kw);
                for (; j < s.out_w; j++) add_taps<L, 1>(sums + j * L, x + j * step, step, gap, w, k.kw);
            }
            for (int j = 0; j < s.out_w; j++)
                store<L>(y + (((long)n * s.out_h + i) * s.out_w + j) * s.c + channel,
                         a.after.apply<L>(load<L>(sums + j * L), 0));
        }
    }
}

void blocks(const Layer& a, float* y) {
    if constexpr (LANES >= 16)
        if (lanes_for(a.s.c) == 16) return blocks_of<16>(a, y);
    if constexpr (LANES >= 8)
        if (lanes_for(a.s.c) == 8) return blocks_of<8>(a, y);
    blocks_of<4>(a, y);
}
}  // namespace

extern "C" {

int panel() { return PANEL; }
int lanes(int channels) { return lanes_for(channels); }

// Each output channel sees `per` input channels (1, 2 or 4), as many as its group has outputs.
// w: blocks x kh x kw x per x lanes. Nothing is added; bounds are kept.
void grouped(const float* x, const float* w, const float* bias, float* y, Shape s, Window k, int per, After after) {
    Layer a(x, w, bias, s, k);
    a.after = after;
    if (per == 1 && k.kw > 7) return blocks(a, y);
    rows(a, per == 1 ? sums_of<1>(s.c, k) : per == 2 ? sums_of<2>(s.c, k) : sums_of<4>(s.c, k), y);
}

void max_pool(const float* x, float* y, Shape s, Window k) {
    rows(Layer(x, nullptr, nullptr, s, k, -__builtin_inff()), row_of<1, Largest, false>(s.c), y);
}

// 1x1: a product of matrices, in blocks of pixels that stay in the first-level cache. w: panels x C x PANEL, of which
// the last may be half full.
void pointwise(const float* x, const float* w, const float* bias, float* y, int pixels, int c, int out_c, After after) {
    int panels = ceil_div(out_c, PANEL), block = 4 * ROWS;
    while (block > ROWS && ceil_div(pixels, block) * panels < 4 * omp_get_max_threads()) block /= 2;
#pragma omp parallel for schedule(dynamic, 1)
    for (int item = 0; item < ceil_div(pixels, block) * panels; item++) {
        int o = item % panels * PANEL, first = item / panels * block, count = std::min(block, pixels - first);
        long at = (long)first * out_c + o;
        After then{after.other ? after.other + at : nullptr, after.low, after.high};
        Product p{x + (long)first * c, w + (long)o * c, bias ? bias + o : nullptr, y + at, c, out_c, c, then};
        out_c - o >= PANEL ? p.all(count) : p.all<1>(count);
    }
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
            Product{between, point + (long)o * s.c, bias ? bias + o : nullptr, out + o, s.c, s.out_c, s.c}
                .all((last - first) * s.out_w);
    });
}
}  // extern "C"
