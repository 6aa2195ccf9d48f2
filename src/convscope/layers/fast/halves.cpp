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
    in_lanes(s.c, [&](auto l) { each_row(a, y, row_of<decltype(l)::value, 1, Largest, false>); });
}
}  // extern "C"
