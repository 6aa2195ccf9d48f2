// Windows that are done in another order than row by row, and which way a window goes.

#pragma once

#include "rows.h"

namespace {

// DOWN rows of outputs of a kernel 3x3 that goes one by one, of groups of few channels: an input is read, and spread, once
// for all of a patch that see it, and reaches the first-level cache less often.
template <int L, int PER, int DOWN> struct Patches {
    using V = Vec<L>;
    static constexpr int ALONG = 4;
    const Layer& a;
    const float* x;  // of the picture
    int above;       // the first row of inputs
    long line = (long)a.s.w * a.x_apart;

    Patches(const Layer& a, int n, int first) : a(a), x(a.x + (long)n * a.s.h * a.s.w * a.x_apart), above(first - a.k.ph) {}

    // The last patch may do outputs again; those that meet a border look where they read.
    void all(float* y) const {
        for (int c = 0; c < a.s.out_w; c += ALONG) {
            int column = std::min(c, a.s.out_w - ALONG);
            bool inside = column >= a.in.first && column + ALONG <= a.in.last;
            inside ? patch<false>(column, y) : patch<true>(column, y);
        }
    }

    template <bool EDGE> void patch(int column, float* y) const {
        int left = column - a.k.pw;
        bool plain = a.after.nothing();
        for (int channel = 0; channel < a.s.c; channel += L) {
            const float *from = x + channel + left * a.x_apart, *w = a.w + (long)channel * 9 * PER;
            V sum[DOWN][ALONG], first = a.bias ? load<L>(a.bias + channel) : V{};
#pragma GCC unroll 16
            for (int i = 0; i < DOWN; i++)
#pragma GCC unroll 16
                for (int c = 0; c < ALONG; c++) sum[i][c] = first;
#pragma GCC unroll 16
            for (int i = 0; i < DOWN + 2; i++)
                if ((unsigned)(above + i) < (unsigned)a.s.h) add<EDGE>(sum, i, from + (above + i) * line, left, w);
#pragma GCC unroll 16
            for (int i = 0; i < DOWN; i++)
#pragma GCC unroll 16
                for (int c = 0; c < ALONG; c++)
                    store<L>(y + ((long)i * a.s.out_w + column + c) * a.y_apart + channel,
                             plain ? sum[i][c] : a.after.apply<L>(sum[i][c], 0));
        }
    }

    // What row `i` of the inputs gives to the rows of outputs that see it.
    template <bool EDGE>
    __attribute__((always_inline)) void add(V (*sum)[ALONG], int i, const float* row, int left, const float* w) const {
        V v[ALONG + 2], own[ALONG + 2];
#pragma GCC unroll 16
        for (int j = 0; j < ALONG + 2; j++) {
            bool outside = EDGE && (unsigned)(left + j) >= (unsigned)a.s.w;
            v[j] = outside ? V{} : load<L>(row + j * a.x_apart);
        }
#pragma GCC unroll 8
        for (int g = 0; g < PER; g++) {
#pragma GCC unroll 16
            for (int j = 0; j < ALONG + 2; j++) own[j] = Row<float, L, PER, Sum, true>::turned(v[j], g);
#pragma GCC unroll 16
            for (int tap = 0; tap < 9; tap++) {
                int to = i - tap / 3;
                if (to < 0 || to >= DOWN) continue;
                V weight = load<L>(w + (tap * PER + g) * L);
#pragma GCC unroll 16
                for (int c = 0; c < ALONG; c++) sum[to][c] += own[c + tap % 3] * weight;
            }
        }
    }
};

template <int L, int PER> void in_patches(const Layer& a, int n, int first, int last, float* y) {
    long line = a.s.out_w * a.y_apart;
    for (; LANES >= 16 && first + 4 <= last; first += 4, y += 4 * line) Patches<L, PER, 4>(a, n, first).all(y);
    for (; first + 2 <= last; first += 2, y += 2 * line) Patches<L, PER, 2>(a, n, first).all(y);
    rows<L, PER, Sum, true>(a, n, first, last, y);
}

RowsOf sums_of(int per, int channels, const Window& k, int out_w) {
    bool patches = overlaps(k) && k.kh == 3 && k.sh == 1 && k.dh == 1 && out_w >= 4;
    return in_groups(per, channels, [&](auto l, auto p) -> RowsOf {
        constexpr int L = decltype(l)::value, PER = decltype(p)::value;
        if (patches) return in_patches<L, PER>;
        return overlaps(k) ? rows<L, PER, Sum, true> : rows<L, PER, Sum, false>;
    });
}

// The largest of each window 2x2, in the order in which all lies in memory.
template <int L> void largest_of_four(const Layer& a, int n, int first, int last, float* y) {
    for (int i = first; i < last; i++, y += a.s.out_w * a.y_apart) {
        Row<float, L, 1, Largest, false> row(a, n, i);
        if (row.rows < 2 || a.in.first > 0 || a.in.last < a.s.out_w) {
            row.all(y);
            continue;
        }
        const float* x = row.x;
        long next = a.k.dw * a.x_apart;
        for (int j = 0; j < a.s.out_w; j++, x += a.k.sw * a.x_apart)
            for (int c = 0; c < a.s.c; c += L) {
                Vec<L> best = Vec<L>{} + a.initial;
                for (const float* p : {x, x + next, x + row.x_row, x + row.x_row + next})
                    Largest<L>::add(best, load<L>(p + c), nullptr);
                store<L>(y + j * a.y_apart + c, best);
            }
    }
}

RowsOf largest_of(int channels, const Window& k) {
    return in_lanes(channels, [&](auto l) -> RowsOf {
        constexpr int L = decltype(l)::value;
        return k.kh == 2 && k.kw == 2 ? largest_of_four<L> : rows<L, 1, Largest, false>;
    });
}

}  // namespace
