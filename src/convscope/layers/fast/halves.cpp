// Sliding windows in bfloat16, with weights and sums in float32.

#include "planes.h"
#include "rows.h"

namespace {

template <class RunOfRow> void each_row(const LayerOf<Half>& a, Half* y, RunOfRow run) {
#pragma omp parallel for schedule(static)
    for (int i = 0; i < a.s.n * a.s.out_h; i++) run(a, i / a.s.out_h, i % a.s.out_h, y + (long)i * a.s.out_w * a.s.out_c);
}

template <int L, int PER, template <int> class Act, bool OVERLAP>
void row_of(const LayerOf<Half>& a, int n, int i, Half* y) {
    Row<Half, L, PER, Act, OVERLAP>(a, n, i).all(y);
}

// L bfloat16 as whole numbers in the order of their values; what is no number is above all.
template <int L> struct Ordered {
    typedef unsigned short Type __attribute__((vector_size(L * sizeof(Half))));
    typedef unsigned short Anywhere __attribute__((vector_size(L * sizeof(Half)), aligned(sizeof(Half)), may_alias));
    typedef short Signs __attribute__((vector_size(L * sizeof(Half))));
    static Type load(const Half* p) {
        Type bits = *(const Anywhere*)p;
        return (bits ^ ((Type)((Signs)bits >> 15) | 0x8000)) - 0x7f;
    }
    static void store(Half* p, Type order) {
        order += 0x7f;
        *(Anywhere*)p = order ^ (~(Type)((Signs)order >> 15) | 0x8000);
    }
};

// The largest of each window of an output row.
template <int L> void largest(const LayerOf<Half>& a, int n, int i, Half* y) {
    using Order = Ordered<L>;
    int top = i * a.k.sh - a.k.ph;
    Taps down(top, a.s.h, a.k.kh, a.k.dh);
    for (int j = 0; j < a.s.out_w; j++, y += a.s.out_c) {
        int left = j * a.k.sw - a.k.pw;
        Taps along(left, a.s.w, a.k.kw, a.k.dw);
        for (int c = 0; c < a.s.c; c += L) {
            typename Order::Type best{};
            for (int t = down.first; t < down.last; t++)
                for (int u = along.first; u < along.last; u++) {
                    auto seen = Order::load(a.x + (((long)n * a.s.h + top + t * a.k.dh) * a.s.w + left + u * a.k.dw) * a.s.c + c);
                    best = seen > best ? seen : best;
                }
            Order::store(y + c, best);
        }
    }
}

}  // namespace

extern "C" {

void grouped_half(const Half* x, const float* w, const float* bias, Half* y, Shape s, Window k, int per,
                  AfterOf<Half> after) {
    LayerOf<Half> a(x, w, bias, s, k);
    a.after = after;
    if (per == 1) return in_lanes(s.c, [&](auto l) { depthwise<Half, decltype(l)::value>(a, y); });
    in_groups(per, s.c, [&](auto l, auto p) {
        constexpr int L = decltype(l)::value, PER = decltype(p)::value;
        each_row(a, y, overlaps(k) ? row_of<L, PER, Sum, true> : row_of<L, PER, Sum, false>);
    });
}

void max_pool_half(const Half* x, Half* y, Shape s, Window k) {
    LayerOf<Half> a(x, nullptr, nullptr, s, k, -__builtin_inff());
    s.c % 32 ? each_row(a, y, largest<16>) : each_row(a, y, largest<32>);
}
}  // extern "C"
