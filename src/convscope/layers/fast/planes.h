// Depthwise windows: vectors of channels are copied out as float32 with their border of zeros, a band of rows at a time, so
// that a window never meets an edge, and each input is read once for all the windows of a row that hold it.

#pragma once

#include "kernels.h"

#include <type_traits>

namespace {

// Of a band, vectors of channels that share a line of memory, from `channel` on: `wide` columns of each row that its
// windows see, one vector after the other, `size` floats apart.
template <class T, int L> struct Planes {
    const LayerOf<T>& a;
    float* held;
    long size;
    int wide, channel, vectors;

    void take(int n, int top, int rows) const {
        int right = wide - a.k.pw - a.s.w;
        for (int i = 0; i < rows; i++) {
            float* to = held + (long)i * wide * L;
            bool outside = top + i < 0 || top + i >= a.s.h;
            for (int v = 0; v < vectors; v++) {
                std::fill_n(to + v * size, (outside ? wide : a.k.pw) * L, 0.f);
                std::fill_n(to + v * size + (wide - right) * L, (outside ? 0 : right) * L, 0.f);
            }
            if (outside) continue;
            const T* from = a.x + ((long)n * a.s.h + top + i) * a.s.w * a.s.c + channel;
            to += (long)a.k.pw * L;
            if (vectors == 2)
                for (int j = 0; j < a.s.w; j++, from += a.s.c, to += L)
                    store<L>(to, load<L>(from)), store<L>(to + size, load<L>(from + L));
            else
                for (int j = 0; j < a.s.w; j++, from += a.s.c, to += L) store<L>(to, load<L>(from));
        }
    }

    // R outputs of a row: K taps along it, or as many as the window has.
    template <int R, int K, int STEP> void run(int v, const float* row, T* y, int count) const {
        using V = Vec<L>;
        int own = channel + v * L;
        row += v * size, y += v * L;
        V sum[R], first = a.bias ? load<L>(a.bias + own) : V{};
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) sum[r] = first;
        const float* w = a.w + (long)own * a.k.kh * a.k.kw;
        for (int t = 0; t < a.k.kh; t++, row += (long)a.k.dh * wide * L, w += (long)a.k.kw * L) {
            if constexpr (K > 0) {
                V weights[K];
#pragma GCC unroll 8
                for (int k = 0; k < K; k++) weights[k] = load<L>(w + k * L);
#pragma GCC unroll 64
                for (int j = 0; j < (R - 1) * STEP + K; j++) {
                    V value = load<L>(row + j * L);
#pragma GCC unroll 8
                    for (int k = 0; k < K; k++)
                        if (j >= k && (j - k) % STEP == 0 && (j - k) / STEP < R) sum[(j - k) / STEP] += value * weights[k];
                }
            } else {
                for (int k = 0; k < a.k.kw; k++) {
                    V weight = load<L>(w + k * L);
                    const float* from = row + (long)k * a.k.dw * L;
#pragma GCC unroll 16
                    for (int r = 0; r < R; r++) sum[r] += load<L>(from + (long)r * a.k.sw * L) * weight;
                }
            }
        }
        const AfterOf<T> after = a.after;
#pragma GCC unroll 16
        for (int r = 0; r < R; r++)
            if (r < count) store<L>(y + (long)r * a.s.c, after.template apply<L>(sum[r], 0));
    }
};

template <class T, int L, int R, int K, int STEP> void planes_of(const LayerOf<T>& a, T* y) {
    constexpr long HELD = 1 << 15;  // floats of a vector's band: with what is written, a part of a second-level cache
    const Shape& s = a.s;
    int columns = ceil_div(s.out_w, R) * R, span = a.k.dh * (a.k.kh - 1) + 1;
    int wide = std::max(s.w + 2 * a.k.pw, (columns - 1) * a.k.sw + a.k.dw * (a.k.kw - 1) + 1);
    int few = std::max(1L, (HELD / ((long)wide * L) - span) / a.k.sh + 1), vectors = s.c / L;
    int shares = std::max(1, 4 * omp_get_max_threads() / (s.n * ceil_div(vectors, 2)));
    int band = std::min(few, ceil_div(s.out_h, std::min(shares, ceil_div(s.out_h, 2 * span))));
#pragma omp parallel for schedule(static) collapse(3)
    for (int n = 0; n < s.n; n++)
        for (int pair = 0; pair < vectors; pair += 2)
            for (int first = 0; first < s.out_h; first += band) {
                int last = std::min(first + band, s.out_h), rows = (last - first - 1) * a.k.sh + span;
                long size = (long)rows * wide * L;
                Planes<T, L> planes{a, scratch(2 * size), size, wide, pair * L, std::min(2, vectors - pair)};
                planes.take(n, first * a.k.sh - a.k.ph, rows);
                for (int i = first; i < last; i++)
                    for (int j = 0; j < s.out_w; j += R)
                        for (int v = 0; v < planes.vectors; v++)
                            planes.template run<R, K, STEP>(
                                v, planes.held + ((long)(i - first) * a.k.sh * wide + j * a.k.sw) * L,
                                y + (((long)n * s.out_h + i) * s.out_w + j) * s.c + pair * L, std::min(R, s.out_w - j));
            }
}

template <class T, int L, int R> void planes_in(const LayerOf<T>& a, T* y) {
    bool close = a.k.dw == 1 && a.k.sw <= 2;
    auto with = [&](auto taps) {
        a.k.sw == 1 ? planes_of<T, L, R, decltype(taps)::value, 1>(a, y) : planes_of<T, L, R, decltype(taps)::value, 2>(a, y);
    };
    if (close && a.k.kw == 3) return with(std::integral_constant<int, 3>{});
    if (close && a.k.kw == 5) return with(std::integral_constant<int, 5>{});
    if (close && a.k.kw == 7) return with(std::integral_constant<int, 7>{});
    planes_of<T, L, R, 0, 1>(a, y);
}

// Channels fill vectors of L.
template <class T, int L> void depthwise(const LayerOf<T>& a, T* y) {
    constexpr int LONG = ROWS, SHORT = ROWS / 2;
    bool is_short = ceil_div(a.s.out_w, SHORT) * SHORT < ceil_div(a.s.out_w, LONG) * LONG;
    is_short ? planes_in<T, L, SHORT>(a, y) : planes_in<T, L, LONG>(a, y);
}

}  // namespace
