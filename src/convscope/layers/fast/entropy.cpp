// The mean cross-entropy of pixels and its gradient in one pass: an exponential a value, a logarithm each eight pixels.

#include "lanes.h"

namespace {

constexpr int TOGETHER = 4, MOST = 64;  // vectors of pixels at a time, classes

struct Entropy {
    const float* logits;     // pictures x classes x pixels
    const int64_t* targets;  // pictures x pixels
    float *grad, *loss;      // as the logits; one
    long pictures, pixels;   // pixels: a multiple of LANES
    int classes, ignored;
};

// e^x for x <= 0, to 2e-7 of it; NaN stays NaN. Source: 2^f as its Taylor series, |f| <= 1/2.
inline V exponential(V x) {
    V low = V{} - 87.f, y = (x < low ? low : x) * 1.44269504f;
    V whole = y + 12582912.f;  // to the nearest integer, which lies in the lowest bits
    I power = (I)whole << 23;
    V f = (y - (whole - 12582912.f)) * 0.693147181f;
    V p = V{} + 1.f / 720;
    for (float c : {1.f / 120, 1.f / 24, 1.f / 6, 1.f / 2, 1.f, 1.f}) p = p * f + c;
    return (V)((I)p + power);
}

struct Sums {
    double loss = 0;
    V product = V{} + 1.f, below{};
    int held = 0;

    void add(V total, V less, I valid) {
        product *= valid ? total : V{} + 1.f, below += valid ? less : V{};
        if (++held == 8) flush();
    }
    void flush() {
        for (int j = 0; j < LANES; j++) loss += std::log(product[j]) + below[j];
        product = V{} + 1.f, below = V{}, held = 0;
    }
};

template <int G> void block(const Entropy& a, long n, long p, float scale, Sums& sums) {
    V e[MOST][G], most[G], total[G], less[G];
    I target[G], valid[G];
    const float* x = a.logits + n * a.classes * a.pixels + p;
    float* to = a.grad + (x - a.logits);
    for (int g = 0; g < G; g++) {
        for (int j = 0; j < LANES; j++) target[g][j] = a.targets[n * a.pixels + p + g * LANES + j];
        valid[g] = target[g] != a.ignored, most[g] = load(x + g * LANES), total[g] = less[g] = V{};
    }
    for (int c = 0; c < a.classes; c++)
        for (int g = 0; g < G; g++) {
            e[c][g] = load(x + c * a.pixels + g * LANES);
            most[g] = e[c][g] > most[g] ? e[c][g] : most[g];
        }
    for (int c = 0; c < a.classes; c++)
        for (int g = 0; g < G; g++) {
            V off = e[c][g] - most[g];
            less[g] = target[g] == c ? V{} - off : less[g];
            total[g] += e[c][g] = exponential(off);
        }
    for (int g = 0; g < G; g++) {
        sums.add(total[g], less[g], valid[g]);
        total[g] = valid[g] ? scale / total[g] : V{};
    }
    for (int c = 0; c < a.classes; c++)
        for (int g = 0; g < G; g++) {
            V share = e[c][g] * total[g];
            store(to + c * a.pixels + g * LANES, target[g] == c ? share - scale : share);
        }
}

}  // namespace

extern "C" {

// Whether all targets are classes, or ignored; if not, nothing is done.
bool entropy(Entropy a) {
    long all = a.pictures * a.pixels, counted = 0, wrong = 0;
    double loss = 0;
    int threads = threads_for(all);
#pragma omp parallel num_threads(threads) reduction(+ : counted, wrong, loss)
    {
        Part part(all);
        for (long i = part.first; i < part.first + part.size; i++) {
            counted += a.targets[i] != a.ignored;
            wrong += a.targets[i] != a.ignored && (uint64_t)a.targets[i] >= (uint64_t)a.classes;
        }
    }
    if (wrong || a.classes > MOST) return false;
    float scale = 1.f / std::max(counted, 1L);
#pragma omp parallel num_threads(threads) reduction(+ : loss)
    {
        Part part(all / LANES);
        Sums sums;
        long last = (part.first + part.size) * LANES;
        for (long at = part.first * LANES; at < last;) {
            long n = at / a.pixels, p = at % a.pixels, size = TOGETHER * LANES;
            if (at + size <= last && p + size <= a.pixels) block<TOGETHER>(a, n, p, scale, sums), at += size;
            else block<1>(a, n, p, scale, sums), at += LANES;
        }
        sums.flush();
        loss += sums.loss;
    }
    *a.loss = loss / std::max(counted, 1L);
    return true;
}

}
