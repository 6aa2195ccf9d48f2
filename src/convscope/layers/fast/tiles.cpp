// Convolutions in tiles: any window and groups, each with a multiple of SIDE inputs and of SIDE outputs; in bfloat16 also of
// fewer inputs, for which whole rows of taps fill a tile, and of TILE outputs without groups.

#include "bands.h"

extern "C" {

void pointwise_tiled(const float*, const void*, const float*, float*, int, int, int, After);

// w: for each SIDE outputs, what `square` takes.
void tiled(const float* x, const void* w, const float* bias, float* y, Shape s, Window k, int groups, After after) {
    Layer a(x, (const float*)w, bias, s, k);
    if (is_pointwise(k, groups) && (!shares_outputs(a, groups) || s.n >= omp_get_max_threads()))
        return pointwise_tiled(x, w, bias, y, s.n * s.h * s.w, s.c, s.out_c, after);
    in_bands(a, groups, Written<float>{y, bias, s.out_c, after});
}

// The same in bfloat16, of which one product is enough.
void tiled_half(const Half* x, const Half* w, const float* bias, Half* y, Shape s, Window k, int groups,
                AfterOf<Half> after) {
    Written<Half> end{y, bias, s.out_c, after};
    if (is_pointwise(k, groups) && s.c % DEPTH + s.out_c % SIDE == 0)
        return in_place(x, w, s.n * s.h * s.w, s.c, s.out_c, end);
    in_bands(LayerOf<Half>(x, (const float*)w, bias, s, k), groups, end);
}
}  // extern "C"
