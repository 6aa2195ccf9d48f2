// Sixteen values side by side, float32 or bfloat16 in memory and float32 in between, and what falls to each thread.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <omp.h>
#include <vector>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

constexpr int LANES = 16;            // values side by side
constexpr long SMALL = 1 << 13;      // values that one thread goes through sooner than two

typedef float V __attribute__((vector_size(64)));
typedef float Anywhere __attribute__((vector_size(64), aligned(4), may_alias));  // in arrays
typedef uint32_t U __attribute__((vector_size(64)));
typedef uint16_t H __attribute__((vector_size(32), aligned(2), may_alias));
typedef int I __attribute__((vector_size(64)));

struct Bf16 { uint16_t bits; };

inline V load(const float* p) { return *reinterpret_cast<const Anywhere*>(p); }
#if defined(__AVX512F__)  // which GCC would do in halves
inline V load(const Bf16* p) {
    return (V)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
}
#else
inline V load(const Bf16* p) { return (V)(__builtin_convertvector(*reinterpret_cast<const H*>(p), U) << 16); }
#endif
inline void store(float* p, V v) { *reinterpret_cast<Anywhere*>(p) = v; }
#if defined(__AVX512BF16__)
inline void store(Bf16* p, V v) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh((__m512)v)); }
#else
inline void store(Bf16* p, V v) {  // to the nearest, ties to even; NaN stays NaN
    U bits = (U)v, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16, nan = U{} + 0x7fc0;
    *reinterpret_cast<H*>(p) = __builtin_convertvector((U)(v == v ? (I)rounded : (I)nan), H);
}
#endif
inline V positive(V v) { return v < V{} ? V{} : v; }  // NaN passes
inline V where_positive(V out, V grad) { return out <= V{} ? V{} : grad; }

template <int STEP> inline void exchange(V* rows) {  // of blocks of 2 x 2 STEP values the two off the diagonal
    const I count = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, right = (count & STEP) != 0;
    const I above = right ? count + (LANES - STEP) : count, below = right ? count + LANES : count + STEP;
    for (int i = 0; i < LANES; i++)
        if (!(i & STEP)) {
            V a = rows[i], b = rows[i + STEP];
            rows[i] = __builtin_shuffle(a, b, above), rows[i + STEP] = __builtin_shuffle(a, b, below);
        }
}

inline void transpose(V* rows) { exchange<1>(rows), exchange<2>(rows), exchange<4>(rows), exchange<8>(rows); }  // LANES of them

// A part of `count` for each thread.
struct Part {
    long first, size;
    Part(long count) {
        long threads = omp_get_num_threads(), at = omp_get_thread_num();
        first = count * at / threads, size = count * (at + 1) / threads - first;
    }
};

int threads_for(long values) { return values < SMALL ? 1 : omp_get_max_threads(); }

}  // namespace
