// Convolutions and pooling in float32 on channels-last arrays (N, H, W, C), for whatever vectors the processor has.
//
// Vectors are GCC's own (`vector_size`), so the same text becomes AVX-512, AVX2 or NEON. Weights come packed: the lanes
// of one vector are neighbouring output channels. Every array is dense, and its channels fill whole vectors.

#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <omp.h>

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

template <int L> struct Vector {
    typedef float Type __attribute__((vector_size(L * sizeof(float)), aligned(sizeof(float)), may_alias));
    typedef int Mask __attribute__((vector_size(L * sizeof(int))));
};
template <int L> using Vec = typename Vector<L>::Type;
template <int L> Vec<L> load(const float* p) { return *reinterpret_cast<const Vec<L>*>(p); }
template <int L> void store(float* p, Vec<L> v) { *reinterpret_cast<Vec<L>*>(p) = v; }

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
enum Activation { PLAIN, SILU, SIGMOID, HARDSWISH, HARDSIGMOID };

// e^x: 2^k e^r, the latter by its series; off by some units of the last place.
template <int L> Vec<L> exponential(Vec<L> x) {
    using V = Vec<L>;
    using M = typename Vector<L>::Mask;
    V least = V{} - 87.f, most = V{} + 88.f;
    x = x < least ? least : x, x = x > most ? most : x;
    M k = __builtin_convertvector(x * 1.44269504f + (x < V{} ? V{} - .5f : V{} + .5f), M);
    V whole = __builtin_convertvector(k, V), r = x - whole * .693359375f + whole * 2.12194440e-4f;
    V sum = 1.f + r * (1.f + r * (.5f + r * (1.f / 6 + r * (1.f / 24 + r * (1.f / 120 + r * (1.f / 720))))));
    M power = (k + 127) << 23;
    return sum * (V)power;
}

template <int L> Vec<L> activated(Vec<L> v, int activation) {
    if (activation == SIGMOID) return 1.f / (1.f + exponential<L>(-v));
    if (activation == SILU) return v / (1.f + exponential<L>(-v));
    Vec<L> part = v * (1.f / 6) + .5f, one = Vec<L>{} + 1.f;
    part = part < Vec<L>{} ? Vec<L>{} : part, part = part > one ? one : part;
    return activation == HARDSWISH ? v * part : part;
}

// What is done to an output before it is written: another array of its shape is added, an activation, then bounds (NaN
// passes).
struct After {
    const float* other;
    float low, high;
    int activation;

    bool nothing() const { return !other && !activation && low == -__builtin_inff() && high == __builtin_inff(); }

    template <int L> Vec<L> apply(Vec<L> v, long at) const {
        if (other) v += load<L>(other + at);
        if (activation) v = activated<L>(v, activation);
        Vec<L> lowest = Vec<L>{} + low, highest = Vec<L>{} + high;
        v = v < lowest ? lowest : v;
        return v > highest ? highest : v;
    }
};
constexpr After NOTHING{nullptr, -__builtin_inff(), __builtin_inff(), PLAIN};

// A convolution or pooling: its arrays and their sizes. Pixels lie x_apart and y_apart floats apart.
struct Layer {
    const float *x, *w, *bias;
    Shape s;
    Window k;
    long x_apart, y_apart;
    Inside in;
    float initial;
    After after = NOTHING;

    Layer(const float* x, const float* w, const float* bias, Shape s, Window k, float initial = 0)
        : x(x), w(w), bias(bias), s(s), k(k), x_apart(s.c), y_apart(s.out_c),
          in(s.w, s.out_w, k.kw, k.sw, k.pw, k.dw), initial(initial) {}
};

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

// Calls `some<R>` for runs of at most ROWS, nearly the same in length: in short ones sums would wait for themselves.
template <int R, class Run> void exactly(const Run& run, int first, int count) {
    if constexpr (R > 0) count == R ? run.template some<R>(first) : exactly<R - 1>(run, first, count);
}
template <class Run> void in_runs(const Run& run, int total) {
    for (int first = 0, runs = ceil_div(total, ROWS); runs > 0; runs--) {
        int count = ceil_div(total - first, runs);
        exactly<ROWS>(run, first, count);
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
            for (int i = 0; i < C; i++, weights += PANEL) {
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
