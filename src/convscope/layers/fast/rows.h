// Rows of outputs of a sliding window: what they sum, or keep the largest of, and what they give to the gradients.

#pragma once

#include "kernels.h"

#include <type_traits>

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
template <class T, int L, int PER, template <int> class Act, bool OVERLAP> struct Row {
    using V = Vec<L>;
    static constexpr int R = 8;  // outputs at a time, in registers
    const LayerOf<T>& a;
    const T* x;
    const float* w;  // of the first row of taps, as `x` is
    int rows;
    long x_row, w_row, w_channel;

    Row(const LayerOf<T>& a, int n, int row) : a(a) {
        int top = row * a.k.sh - a.k.ph;
        Taps down(top, a.s.h, a.k.kh, a.k.dh);
        x_row = (long)a.k.dh * a.s.w * a.x_apart, w_row = (long)a.k.kw * PER * L, rows = down.last - down.first;
        x = a.x + ((long)n * a.s.h + top + down.first * a.k.dh) * a.s.w * a.x_apart;
        w = a.w + down.first * w_row, w_channel = (long)a.k.kh * a.k.kw * PER;
    }

    // Each lane gets the input channel of its group that lies `i` behind its own; behind the last comes the first.
    static V turned(V v, int i) {
        if (i == 0) return v;
        typename Vector<L>::Mask lane;
        for (int l = 0; l < L; l++) lane[l] = l / PER * PER + (l + i) % PER;
        return __builtin_shuffle(v, lane);
    }

    // Runs of R, the last of which may do outputs again; those that meet a border look where they read.
    void all(T* y) const {
        int count = std::min(R, a.s.out_w), most = a.s.out_w - count;
        for (int c = 0; c < a.s.out_w; c += R) {
            int column = std::min(c, most);
            T* to = y + column * a.y_apart;
            bool inside = column >= a.in.first && column + R <= a.in.last;
            inside ? run<false>(column, R, to) : run<true>(column, count, to);
        }
    }

    V start(int channel) const { return a.bias ? load<L>(a.bias + channel) : V{} + a.initial; }

    // Of a row of inputs, the one in a column; outside, what changes nothing.
    template <bool EDGE> V input(const T* row, int column) const {
        bool outside = EDGE && (unsigned)column >= (unsigned)a.s.w;
        return outside ? V{} + a.initial : load<L>(row + column * a.x_apart);
    }

    template <bool EDGE> void run(int column, int count, T* y) const {
        int left = column * a.k.sw - a.k.pw;
        for (int channel = 0; channel < a.s.c; channel += L) {
            const T* from = x + channel;
            const float* weights = w + channel * w_channel;
            V sum[R], first = start(channel);
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) sum[r] = first;
            for (int r = 0; r < R; r++) __builtin_prefetch(from + rows * x_row + (left + r) * a.x_apart);
            for (int i = 0; i < rows; i++, from += x_row, weights += w_row)
                OVERLAP ? overlapping<EDGE>(sum, from, left, weights) : apart<EDGE>(sum, from, left, weights);
#pragma GCC unroll 16
            for (int r = 0; r < R; r++)
                if (!EDGE || r < count) store<L>(y + channel + r * a.y_apart, a.after.template apply<L>(sum[r], 0));
        }
    }

    // Any window: a weight is read once and serves R outputs.
    template <bool EDGE> void apart(V* sum, const T* from, int left, const float* w) const {
        for (int k = 0; k < a.k.kw; k++, left += a.k.dw, w += PER * L) {
#pragma GCC unroll 8
            for (int g = 0; g < PER; g++) {
#pragma GCC unroll 16
                for (int r = 0; r < R; r++)
                    Act<L>::add(sum[r], turned(input<EDGE>(from, left + r * a.k.sw), g), w + g * L);
            }
        }
    }

    // An input is read, and spread, once: `use` gets, for each tap, the R that meet it and the tap's place.
    template <bool EDGE, class Use> void spread(const T* from, int left, const Use& use) const {
        V v[R + 2], own[R + 2];
#pragma GCC unroll 16
        for (int j = 0; j < R + 2; j++) v[j] = input<EDGE>(from, left + j);
#pragma GCC unroll 8
        for (int g = 0; g < PER; g++) {
#pragma GCC unroll 16
            for (int j = 0; j < R + 2; j++) own[j] = turned(v[j], g);
#pragma GCC unroll 4
            for (int k = 0; k < 3; k++) use(own + k, (k * PER + g) * L);
        }
    }

    // Sums take turns, so that none waits.
    template <bool EDGE> void overlapping(V* sum, const T* from, int left, const float* w) const {
        spread<EDGE>(from, left, [&](const V* own, int tap) {
            V weight = load<L>(w + tap);
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) sum[r] += own[r] * weight;
        });
    }

    // What a row gives to the gradient of the weights: `sums` lie as the weights do.
    void weights(const float* grad, float* sums) const {
        for (int c = 0; c < a.s.out_w; c += R) {
            int count = std::min(R, a.s.out_w - c);
            bool inside = count == R && c >= a.in.first && c + R <= a.in.last;
            inside ? meet<false>(c, R, grad + c * a.y_apart, sums) : meet<true>(c, count, grad + c * a.y_apart, sums);
        }
    }

    template <bool EDGE> void meet(int column, int count, const float* grad, float* sums) const {
        int left = column * a.k.sw - a.k.pw;
        for (int channel = 0; channel < a.s.c; channel += L) {
            const float* from = x + channel;
            float* to = sums + (w - a.w) + channel * w_channel;
            V given[R];
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) {
                given[r] = EDGE && r >= count ? V{} : load<L>(grad + channel + r * a.y_apart);
                __builtin_prefetch(from + rows * x_row + (left + r) * a.x_apart);
            }
            for (int i = 0; i < rows; i++, from += x_row, to += w_row)
                OVERLAP ? meet_overlapping<EDGE>(given, from, left, to) : meet_apart<EDGE>(given, from, left, to);
        }
    }

    template <bool EDGE> void meet_apart(const V* given, const float* from, int left, float* to) const {
        for (int k = 0; k < a.k.kw; k++, left += a.k.dw)
#pragma GCC unroll 8
            for (int g = 0; g < PER; g++, to += L) {
                V sum = load<L>(to);
#pragma GCC unroll 16
                for (int r = 0; r < R; r++) sum += given[r] * turned(input<EDGE>(from, left + r * a.k.sw), g);
                store<L>(to, sum);
            }
    }

    template <bool EDGE> void meet_overlapping(const V* given, const float* from, int left, float* to) const {
        spread<EDGE>(from, left, [&](const V* own, int tap) {
            V sum = load<L>(to + tap);
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) sum += given[r] * own[r];
            store<L>(to + tap, sum);
        });
    }
};

// Rows of outputs [first, last).
using RowsOf = void (*)(const Layer&, int n, int first, int last, float* y);

template <int L, int PER, template <int> class Act, bool OVERLAP>
void rows(const Layer& a, int n, int first, int last, float* y) {
    for (int i = first; i < last; i++, y += a.s.out_w * a.y_apart) Row<float, L, PER, Act, OVERLAP>(a, n, i).all(y);
}

using SlopeOf = void (*)(const Layer&, int n, int row, const float* grad, float* sums);

template <int L, int PER, bool OVERLAP> void slope(const Layer& a, int n, int i, const float* grad, float* sums) {
    Row<float, L, PER, Sum, OVERLAP>(a, n, i).weights(grad, sums);
}

// The widest vector that the channels fill.
int lanes_for(int channels) {
    for (int l = LANES; l > 4; l /= 2)
        if (channels % l == 0) return l;
    return 4;
}

// Calls `body` with that width as a constant.
template <class Body> auto in_lanes(int channels, Body body) {
    if constexpr (LANES >= 16)
        if (lanes_for(channels) == 16) return body(std::integral_constant<int, 16>{});
    if constexpr (LANES >= 8)
        if (lanes_for(channels) == 8) return body(std::integral_constant<int, 8>{});
    return body(std::integral_constant<int, 4>{});
}

// And with the number of channels in a group.
template <class Body> auto in_groups(int per, int channels, Body body) {
    return in_lanes(channels, [&](auto l) {
        return per == 8   ? body(l, std::integral_constant<int, 8>{})
               : per == 4 ? body(l, std::integral_constant<int, 4>{})
               : per == 2 ? body(l, std::integral_constant<int, 2>{})
                          : body(l, std::integral_constant<int, 1>{});
    });
}

bool overlaps(const Window& k) { return k.kw == 3 && k.sw == 1 && k.dw == 1; }

SlopeOf slope_of(int per, int channels, const Window& k) {
    return in_groups(per, channels, [&](auto l, auto p) -> SlopeOf {
        constexpr int L = decltype(l)::value, PER = decltype(p)::value;
        return overlaps(k) ? slope<L, PER, true> : slope<L, PER, false>;
    });
}

}  // namespace
