// 1x1: products of pixels and panels of weights, in float32; or, where the processor multiplies matrices of bfloat16 in
// tiles (AMX), by three of those. A float32 is the sum of two bfloat16 but for its last 8 bits, and what the two smaller
// parts give is left out: the sums err by some millionths of the largest. An infinite input gives NaN.

#pragma once

#include "amx.h"
#include "kernels.h"

#include <type_traits>

namespace {

constexpr int SIDE = 2 * TILE;  // pixels and outputs at a time

// What a window takes: C values at each of its taps, and where these lie; and the bytes from one pixel to the next.
struct Taken { const long* taps; int count, C; long apart; };

// What tiles hold for numbers of type T, and how many of them a row does.
template <class T> using Tiled = std::conditional_t<std::is_same_v<T, float>, Half, T>;
template <class T> constexpr int depth = 2 * DEPTH / sizeof(Tiled<T>);

#ifdef TILES
// The larger and the smaller part of n floats, a multiple of DEPTH.
inline void split(const float* x, long n, Half* larger, Half* smaller) {
    auto widened = [](__m256i halves) { return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16); };
    for (long i = 0; i < n; i += DEPTH) {
        __m512 a = _mm512_loadu_ps(x + i), b = _mm512_loadu_ps(x + i + TILE);
        __m512i large = (__m512i)_mm512_cvtne2ps_pbh(b, a);
        a -= widened(_mm512_castsi512_si256(large)), b -= widened(_mm512_extracti64x4_epi64(large, 1));
        _mm512_store_si512(larger + i, large);
        _mm512_store_si512(smaller + i, (__m512i)_mm512_cvtne2ps_pbh(b, a));
    }
}

// Two rows of TILE pixels times SIDE outputs, or the first N x TILE of them. w: for each tap and as many inputs as a row of
// a tile holds, two tiles of weights. Of float32 they are two of the larger parts of weights and two of the smaller ones,
// and the smaller parts of inputs lie `smaller` behind. Of bytes weights are signed, and sums are whole numbers.
template <class T, int N = 2>
inline void square(const Tiled<T>* first, const Tiled<T>* second, long smaller, const Tiled<T>* w, const Taken& k, void* sums) {
    constexpr long AREA = TILE * depth<T>;
    auto inputs = [&](long at) {
        _tile_loadd(4, first + at, k.apart);
        _tile_loadd(5, second + at, k.apart);
    };
    auto weights = [](const Tiled<T>* from) {
        _tile_loadd(6, from, 64);
        if (N > 1) _tile_loadd(7, from + AREA, 64);
    };
    auto add = [] {
        if constexpr (std::is_same_v<T, Byte>) {
            _tile_dpbusd(0, 4, 6);
            if (N > 1) _tile_dpbusd(1, 4, 7);
            _tile_dpbusd(2, 5, 6);
            if (N > 1) _tile_dpbusd(3, 5, 7);
        } else {
            _tile_dpbf16ps(0, 4, 6);
            if (N > 1) _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            if (N > 1) _tile_dpbf16ps(3, 5, 7);
        }
    };
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    constexpr bool PARTS = std::is_same_v<T, float>;
    for (int tap = 0; tap < k.count; tap++)
        for (long at = k.taps[tap], end = at + k.C; at < end; at += depth<T>) {
            inputs(at);
            if (PARTS) weights(w + 2 * AREA), add();
            weights(w), add();
            if (PARTS) inputs(at + smaller), add();
            w += (PARTS ? 4 : 2) * AREA;
        }
    constexpr long row = SIDE * sizeof(float);
    auto to = (char*)sums;
    _tile_stored(0, to, row);
    if (N > 1) _tile_stored(1, to + row / 2, row);
    _tile_stored(2, to + TILE * row, row);
    if (N > 1) _tile_stored(3, to + TILE * row + row / 2, row);
}
#else
inline bool has_tiles() { return false; }
struct Tiles {};
inline void split(const float*, long, Half*, Half*) {}
template <class T, int N = 2>
inline void square(const Tiled<T>*, const Tiled<T>*, long, const Tiled<T>*, const Taken&, void*) {}
#endif

// N vectors.
template <int N, class T> void store_all(T* y, const Vec<LANES>* v) {
#if defined(__AVX512BF16__)
    if constexpr (ROUGH<T> && N * LANES == SIDE)
        return _mm512_storeu_si512(y, (__m512i)_mm512_cvtne2ps_pbh((__m512)v[1], (__m512)v[0]));
#endif
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) store<LANES>(y + i * LANES, v[i]);
}

template <int N, bool OTHER, bool ACTED, class T>
void finished(const float* sums, T* y, const float* bias, long apart, int count, const AfterOf<T>& given) {
    const AfterOf<T> after = given;  // which nothing that is written can change
    const Vec<LANES> low = Vec<LANES>{} + after.low, high = Vec<LANES>{} + after.high;
    Vec<LANES> more[N]{};
    for (int i = 0; bias && i < N; i++) more[i] = load<LANES>(bias + i * LANES);
    for (long at = 0; at < count * apart; at += apart, sums += SIDE) {
        Vec<LANES> v[N];
#pragma GCC unroll 8
        for (int i = 0; i < N; i++) {
            v[i] = load<LANES>(sums + i * LANES) + more[i];
            if (OTHER) v[i] += load<LANES>(after.other + at + i * LANES);
            if (ACTED) v[i] = activated<T, LANES>(v[i], after.activation);
            v[i] = smaller<LANES>(larger<LANES>(v[i], low), high);
        }
        store_all<N>(y + at, v);
    }
}

// Sums of a row of TILE pixels, of which `count` lie inside, become SIDE outputs of each, or the first N x TILE.
template <class T, int N = 2>
void finish(const float* sums, T* y, const float* bias, long apart, int count, const AfterOf<T>& after) {
    constexpr int VECTORS = N * TILE / LANES;
    auto kind = after.other ? after.activation ? finished<VECTORS, true, true, T> : finished<VECTORS, true, false, T>
                : after.activation ? finished<VECTORS, false, true, T> : finished<VECTORS, false, false, T>;
    kind(sums, y, bias, apart, count, after);
}

// Pixels of C channels to out_c outputs. w: panels x C x PANEL floats, the last panel may be half full; in tiles, for each
// SIDE outputs, what `square` takes, and C and out_c are multiples of SIDE.
struct Mixer {
    const void* w;
    const float* bias;
    int C, out_c;
    bool tiles;
    After after = NOTHING;  // what is added is given with the pixels

    // Pixels that are best done at a time, and the floats of memory that so many need.
    int best() const { return tiles ? 8 * SIDE : 4 * ROWS; }
    long needs(long pixels) const { return tiles ? (pixels + SIDE) * C : 0; }

    void all(const float* x, float* y, const float* other, int pixels, float* memory) const {
        if (tiles) return in_tiles(x, y, other, pixels, (Half*)memory);
        for (int o = 0; o < out_c; o += PANEL) {
            Product p{x, (const float*)w + (long)o * C, bias ? bias + o : nullptr, y + o, C, out_c, C, with(other, o)};
            out_c - o >= PANEL ? p.all(pixels) : p.all<1>(pixels);
        }
    }

    void in_tiles(const float* x, float* y, const float* other, int pixels, Half* larger) const {
        long smaller = (long)(pixels + SIDE) * C;  // behind the last pixel, what is there gives sums that nobody reads
        alignas(64) float sums[SIDE * SIDE];
        split(x, (long)pixels * C, larger, larger + smaller);
        const long none = 0;
        Taken taken{&none, 1, C, (long)(C * sizeof(Half))};
        Tiles here;
        for (int o = 0; o < out_c; o += SIDE)
            for (int p = 0; p < pixels; p += SIDE) {
                const Half* from = larger + (long)p * C;
                square<float>(from, from + TILE * C, smaller, (const Half*)w + 2L * o * C, taken, sums);
                for (int q = p; q < std::min(pixels, p + SIDE); q += TILE) {
                    long at = (long)q * out_c + o;
                    finish(sums + (q - p) * SIDE, y + at, bias ? bias + o : nullptr, out_c, std::min(TILE, pixels - q),
                           with(other, at));
                }
            }
    }

    After with(const float* other, long at) const {
        return {other ? other + at : nullptr, after.low, after.high, after.activation};
    }
};

}  // namespace
