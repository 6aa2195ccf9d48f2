// Convolutions and pooling on channels-last arrays (N, H, W, C) of float32, or of bfloat16 with sums in float32, for
// whatever vectors the processor has.
//
// Vectors are GCC's own (`vector_size`), so the same text becomes AVX-512, AVX2 or NEON. Weights come packed: the lanes
// of one vector are neighbouring output channels. Every array is dense, and its channels fill whole vectors.

#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <omp.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

typedef unsigned short Half;  // a bfloat16
typedef unsigned char Byte;   // a whole number from 0 to 255

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 14;  // ROWS x 2 vectors of sums stay in registers
#elif defined(__AVX__)
constexpr int LANES = 8, ROWS = 6;
#else
constexpr int LANES = 4, ROWS = 8;
#endif
constexpr int PANEL = 2 * LANES;
constexpr long AHEAD = 32 * PANEL;  // floats of weights that are fetched before their turn
constexpr int PART = 4096 / LANES;  // rows of a panel of weights that stay in a first-level cache: 32 KiB

// Two types: what lies in arrays may begin anywhere, but a template forgets that of its arguments, so that values have
// their own type, and locals lie as the processor likes it.
template <int L> struct Vector {
    typedef float Type __attribute__((vector_size(L * sizeof(float))));
    typedef float Anywhere __attribute__((vector_size(L * sizeof(float)), aligned(sizeof(float)), may_alias));
    typedef int Mask __attribute__((vector_size(L * sizeof(int))));
    typedef unsigned Bits __attribute__((vector_size(L * sizeof(int))));
    typedef Half Narrow __attribute__((vector_size(L * sizeof(Half)), aligned(sizeof(Half)), may_alias));
    typedef Byte Bytes __attribute__((vector_size(L), aligned(1), may_alias));
};
template <int L> using Vec = typename Vector<L>::Type;
template <int L> Vec<L> load(const float* p) { return *reinterpret_cast<const typename Vector<L>::Anywhere*>(p); }
template <int L> void store(float* p, Vec<L> v) { *reinterpret_cast<typename Vector<L>::Anywhere*>(p) = v; }

// A bfloat16 is the first half of a float32.
template <int L> Vec<L> load(const Half* p) {
#if defined(__AVX512F__)
    if constexpr (L == 16)
        return (Vec<L>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
#endif
    using B = typename Vector<L>::Bits;
    return (Vec<L>)(__builtin_convertvector(*reinterpret_cast<const typename Vector<L>::Narrow*>(p), B) << 16);
}

// To the nearest, even of two.
template <int L> void store(Half* p, Vec<L> v) {
#if defined(__AVX512BF16__)
    if constexpr (L == 16) return _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh((__m512)v));
#endif
    using B = typename Vector<L>::Bits;
    B bits = (B)v, near = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    near = v != v ? bits >> 16 | 64 : near;
    *reinterpret_cast<typename Vector<L>::Narrow*>(p) = __builtin_convertvector(near, typename Vector<L>::Narrow);
}

template <int L> Vec<L> load(const Byte* p) {
#if defined(__AVX512F__)
    if constexpr (L == 16) return (Vec<L>)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)));
#endif
    using M = typename Vector<L>::Mask;
    return __builtin_convertvector(__builtin_convertvector(*(const typename Vector<L>::Bytes*)p, M), Vec<L>);
}

// Of values within 0 to 255, to the nearest.
template <int L> void store(Byte* p, Vec<L> v) {
#if defined(__AVX512F__)
    if constexpr (L == 16) return _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32((__m512)v)));
#endif
    using B = typename Vector<L>::Bytes;
    *(B*)p = __builtin_convertvector(__builtin_convertvector(v + .5f, typename Vector<L>::Mask), B);
}

struct Shape { int n, h, w, c, out_h, out_w, out_c; };
struct Window { int kh, kw, sh, sw, ph, pw, dh, dw; };

inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Which taps of a window that starts at `at` fall inside an axis of `size` elements: [first, last).
struct Taps {
    int first, last;
    Taps(int at, int size, int taps, int gap)
        : first(at < 0 ? ceil_div(-at, gap) : 0), last(std::min(taps, at < size ? ceil_div(size - at, gap) : 0)) {}
};

// Which windows along an axis lie wholly inside: [first, last).
struct Inside {
    int first, last;
    Inside(int size, int out, int taps, int step, int pad, int gap) {
        first = std::min(out, ceil_div(pad, step));
        int room = size + pad - gap * (taps - 1) - 1;
        last = room < 0 ? first : std::max(first, std::min(out, room / step + 1));
    }
};

// What a value becomes, beside bounds.
enum Activation { PLAIN, SILU, SIGMOID, HARDSWISH, HARDSIGMOID, GELU };

// Arithmetic for numbers of type T, float32 in registers: of bfloat16 the first 9 bits count.
template <class T> constexpr bool ROUGH = sizeof(T) < sizeof(float);

// The larger and the smaller of two; of a NaN in x nothing else comes.
template <int L> Vec<L> larger(Vec<L> x, Vec<L> least) {
#if defined(__AVX512F__)
    if constexpr (L == 16) return _mm512_max_ps(least, x);
#endif
    return x < least ? least : x;
}
template <int L> Vec<L> smaller(Vec<L> x, Vec<L> most) {
#if defined(__AVX512F__)
    if constexpr (L == 16) return _mm512_min_ps(most, x);
#endif
    return x > most ? most : x;
}

// e^x: 2^k e^r, the latter by its series; off by some units of the last place, in bfloat16 by 0.00008 of it.
template <class T, int L> Vec<L> exponential(Vec<L> x) {
    using V = Vec<L>;
    using M = typename Vector<L>::Mask;
    V turns = x * 1.44269504f;
#if defined(__AVX512DQ__)
    if constexpr (L == 16 && ROUGH<T>) {
        V r = _mm512_reduce_ps(turns, 9);  // less the whole number below it; of an infinite one 0
        return _mm512_scalef_ps(.99992522f + r * (.69583354f + r * (.22606715f + r * .07802453f)), turns);
    }
#endif
    x = smaller<L>(larger<L>(x, V{} - 87.f), V{} + 88.f), turns = x * 1.44269504f;
    M k = __builtin_convertvector(turns + (x < V{} ? V{} - .5f : V{} + .5f), M);
    V whole = __builtin_convertvector(k, V);
#if defined(__AVX512F__)
    if constexpr (L == 16) whole = _mm512_roundscale_ps(turns, 8);
#endif
    V r = x - whole * .693359375f + whole * 2.12194440e-4f;
    V sum = 1.f + r * (1.f + r * (.5f + r * (1.f / 6 + r * (1.f / 24 + r * (1.f / 120 + r * (1.f / 720))))));
#if defined(__AVX512F__)
    if constexpr (L == 16) return _mm512_scalef_ps(sum, whole);
#endif
    M power = (k + 127) << 23;
    return sum * (V)power;
}

// 1 / x, which is at least 1.
template <class T, int L> Vec<L> inverse(Vec<L> x) {
#if defined(__AVX512F__)
    if constexpr (L == 16) {
        Vec<L> near = _mm512_rcp14_ps(x);
        return ROUGH<T> ? near : near * (2.f - x * near);
    }
#endif
    return 1.f / x;
}

template <class T, int L> Vec<L> sigmoid(Vec<L> x) { return inverse<T, L>(1.f + exponential<T, L>(-x)); }

// x times the share of a normal distribution below it, by a series that errs by less than 1.5e-7 (source: Abramowitz and
// Stegun, Handbook of Mathematical Functions, 7.1.26); in bfloat16 by a fit that errs by less than 0.00003.
template <class T, int L> Vec<L> gelu(Vec<L> x) {
    if constexpr (ROUGH<T>) {
        Vec<L> square = smaller<L>(x * x, Vec<L>{} + 35.4048905f);
        return x * sigmoid<T, L>(x * (1.59501577f + square * (.0740112921f - square * 7.03033594e-4f)));
    }
    Vec<L> size = x < Vec<L>{} ? -x : x, t = inverse<T, L>(1.f + size * (.3275911f * .70710678f));
    Vec<L> sum = t * (.254829592f + t * (-.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    Vec<L> beyond = .5f * sum * exponential<T, L>(x * x * -.5f);
    return x * (x < Vec<L>{} ? beyond : 1.f - beyond);
}

template <class T, int L> Vec<L> activated(Vec<L> v, int activation) {
    if (activation == SIGMOID) return sigmoid<T, L>(v);
    if (activation == SILU) return v * sigmoid<T, L>(v);
    if (activation == GELU) return gelu<T, L>(v);
    Vec<L> part = smaller<L>(larger<L>(v * (1.f / 6) + .5f, Vec<L>{}), Vec<L>{} + 1.f);
    return activation == HARDSWISH ? v * part : part;
}

// What is done to an output before it is written: another array of its shape is added, then an activation, then bounds (NaN
// passes).
template <class T> struct AfterOf {
    const T* other;
    float low, high;
    int activation;

    bool nothing() const { return !other && !activation && low == -__builtin_inff() && high == __builtin_inff(); }

    template <int L> Vec<L> apply(Vec<L> v, long at) const {
        if (other) v += load<L>(other + at);
        if (activation) v = activated<T, L>(v, activation);
        return smaller<L>(larger<L>(v, Vec<L>{} + low), Vec<L>{} + high);
    }
};
using After = AfterOf<float>;
constexpr After NOTHING{nullptr, -__builtin_inff(), __builtin_inff(), PLAIN};

// A convolution or pooling: its arrays and their sizes. Pixels lie x_apart and y_apart floats apart.
template <class T> struct LayerOf {
    const T* x;
    const float *w, *bias;
    Shape s;
    Window k;
    long x_apart, y_apart;
    Inside in;
    float initial;
    AfterOf<T> after{nullptr, NOTHING.low, NOTHING.high, PLAIN};

    LayerOf(const T* x, const float* w, const float* bias, Shape s, Window k, float initial = 0)
        : x(x), w(w), bias(bias), s(s), k(k), x_apart(s.c), y_apart(s.out_c),
          in(s.w, s.out_w, k.kw, k.sw, k.pw, k.dw), initial(initial) {}
};
using Layer = LayerOf<float>;

using Floats = std::unique_ptr<float, decltype(&std::free)>;
inline Floats floats(size_t n) {
    size_t lines = (n * sizeof(float) + 63) / 64;
    return Floats((float*)std::aligned_alloc(64, lines * 64), std::free);
}

// Memory of this thread that lasts from call to call.
inline float* scratch(size_t n) {
    static thread_local Floats held = floats(0);
    static thread_local size_t size = 0;
    if (size < n) held = floats(n), size = n;
    return held.get();
}

// Calls `some<R>` for runs of at most MOST, nearly the same in length: in short ones sums would wait for themselves.
template <int R, class Run> void exactly(const Run& run, int first, int count) {
    if constexpr (R > 0) count == R ? run.template some<R>(first) : exactly<R - 1>(run, first, count);
}
template <int MOST = ROWS, class Run> void in_runs(const Run& run, int total) {
    for (int first = 0, runs = ceil_div(total, MOST); runs > 0; runs--) {
        int count = ceil_div(total - first, runs);
        exactly<MOST>(run, first, count);
        first += count;
    }
}

// What a row of a product reads: `count` stretches of C floats, `along` floats apart in lines of `in_line`, the lines
// `down` floats apart.
struct Stretches { int count = 1, in_line = 1; long along = 0, down = 0; };

// A product of matrices, a x w + bias: rows of `a` are `a_apart` floats apart; `w` is a panel, C x PANEL for each
// stretch, of which N vectors count.
struct Product {
    const float *a, *w, *bias;
    float* y;
    long a_apart, y_apart;
    int C;
    After after = NOTHING;
    Stretches stretches{};
    bool begins = true, ends = true;  // else it goes on from what `y` holds, and leaves it for the next part

    template <int R, int N> void some(int row) const {
        using V = Vec<LANES>;
        V left[R], right[R];
        V bias_left = bias ? load<LANES>(bias) : V{}, bias_right = bias && N > 1 ? load<LANES>(bias + LANES) : V{};
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            const float* so_far = y + (row + r) * y_apart;
            left[r] = begins ? bias_left : load<LANES>(so_far);
            right[r] = begins || N == 1 ? bias_right : load<LANES>(so_far + LANES);
        }
        const float* weights = w;
        for (int t = 0; t < stretches.count; t++) {
            const float* from = a + row * a_apart + t / stretches.in_line * stretches.down +
                                t % stretches.in_line * stretches.along;
            int i = 0;
            if constexpr (R == 1) i = alone<N>(from, weights, left[0], right[0]);
            for (weights += i * PANEL; i < C; i++, weights += PANEL) {
                V w_left = load<LANES>(weights), w_right = load<LANES>(weights + LANES);
                if constexpr (N > 1) __builtin_prefetch(weights + AHEAD), __builtin_prefetch(weights + AHEAD + LANES);
#pragma GCC unroll 16
                for (int r = 0; r < R; r++) {
                    V value = from[r * a_apart + i] - V{};  // a broadcast: x - 0 is x
                    left[r] += value * w_left;
                    if constexpr (N > 1) right[r] += value * w_right;
                }
            }
        }
        const After last = after;
        float* to = y;
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            long at = (row + r) * y_apart;
            store<LANES>(to + at, ends ? last.apply<LANES>(left[r], at) : left[r]);
            if constexpr (N > 1) store<LANES>(to + at + LANES, ends ? last.apply<LANES>(right[r], at + LANES) : right[r]);
        }
    }

    // A row that is alone is summed in parts, so that no sum waits for itself; how many inputs it has done.
    template <int N> int alone(const float* from, const float* weights, Vec<LANES>& left, Vec<LANES>& right) const {
        constexpr int PARTS = 4;
        Vec<LANES> l[PARTS]{}, r[PARTS]{};
        int i = 0;
        for (; i + PARTS <= C; i += PARTS, weights += PARTS * PANEL)
#pragma GCC unroll 4
            for (int p = 0; p < PARTS; p++) {
                Vec<LANES> value = from[i + p] - Vec<LANES>{};
                const float* own = weights + p * PANEL;
                l[p] += value * load<LANES>(own);
                if constexpr (N > 1) {
                    r[p] += value * load<LANES>(own + LANES);
                    __builtin_prefetch(own + AHEAD), __builtin_prefetch(own + AHEAD + LANES);
                }
            }
        left += (l[0] + l[1]) + (l[2] + l[3]), right += (r[0] + r[1]) + (r[2] + r[3]);
        return i;
    }

    // Calls `body` with parts whose weights stay in the first-level cache, where `rows` would read them again and again.
    template <class Body> void in_parts(int rows, Body body) const {
        if (rows <= ROWS || (long)C * stretches.count <= PART) return body(*this);
        int parts = ceil_div(C, PART), length = ceil_div(C, parts);
        for (int t = 0; t < stretches.count; t++)
            for (int i = 0; i < C; i += length) {
                Product part = *this;
                part.a += t / stretches.in_line * stretches.down + t % stretches.in_line * stretches.along + i;
                part.w += ((long)t * C + i) * PANEL, part.C = std::min(length, C - i), part.stretches = {};
                part.begins = t == 0 && i == 0, part.ends = t == stretches.count - 1 && i + length >= C;
                body(part);
            }
    }

    template <int N> struct Vectors {
        const Product& product;
        template <int R> void some(int row) const { product.some<R, N>(row); }
    };
    template <int N = 2> void all(int rows) const { in_runs(Vectors<N>{*this}, rows); }
};

// A product of a transposed matrix, added to y: rows of `a` and `b` are those that are summed over.
struct Outer {
    const float *a, *b;
    float* y;
    long a_apart, b_apart;
    int rows;

    template <int R> void some(int i) const {
        using V = Vec<LANES>;
        V left[R], right[R];
        float* to = y + i * b_apart;
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) left[r] = load<LANES>(to + r * b_apart), right[r] = load<LANES>(to + r * b_apart + LANES);
        for (int t = 0; t < rows; t++) {
            const float* from = a + t * a_apart + i;
            V b_left = load<LANES>(b + t * b_apart), b_right = load<LANES>(b + t * b_apart + LANES);
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) {
                V value = from[r] - V{};
                left[r] += value * b_left;
                right[r] += value * b_right;
            }
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            store<LANES>(to + r * b_apart, left[r]);
            store<LANES>(to + r * b_apart + LANES, right[r]);
        }
    }

    void all(int count) const { in_runs(*this, count); }
};
