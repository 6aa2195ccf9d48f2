// A step of AdamW in one pass, over weights and moments in one array each and gradients that lie where they were made.

#include "lanes.h"

namespace {

struct Gradient {
    const float* values;  // of `size` weights from `start` on; none: 0
    long start, size;
};

struct Step {
    float *weights, *first, *second;  // and the moments of the gradient
    float kept, rate, part_first, by_second, part_second, root, eps;  // of weights, of the first moment, of gradients ...
};

constexpr int BLOCK = 1024;  // values whose squares are summed in float32

double squares(const float* g, long size) {
    double sum = 0;
    for (long i = 0; i < size; i += BLOCK) {
        V s{};
        long end = std::min(i + BLOCK, size), j = i;
        for (; j + LANES <= end; j += LANES) s += load(g + j) * load(g + j);
        for (; j < end; j++) s[0] += g[j] * g[j];
        for (int l = 0; l < LANES; l++) sum += s[l];
    }
    return sum;
}

// `run(gradient, first, last)` for what falls to each thread of the places of all gradients.
template <class F> void in_parts(const Gradient* grads, int count, F run) {
    long all = count ? grads[count - 1].start + grads[count - 1].size : 0;
#pragma omp parallel num_threads(threads_for(all))
    {
        Part part((all + LANES - 1) / LANES);
        long first = part.first * LANES, last = first + part.size * LANES;
        for (int i = 0; i < count; i++) {
            long from = std::max(first, grads[i].start), to = std::min(last, grads[i].start + grads[i].size);
            if (from < to) run(grads[i], from, to);
        }
    }
}

}  // namespace

extern "C" {

double gradient_squares(const Gradient* grads, int count) {
    double sum = 0;
    in_parts(grads, count, [&](const Gradient& g, long from, long to) {
        double own = g.values ? squares(g.values + from - g.start, to - from) : 0;
#pragma omp atomic
        sum += own;
    });
    return sum;
}

// `by`: what the gradients are taken times. Source: Loshchilov & Hutter 2019, Decoupled weight decay.
void adamw_step(const Gradient* grads, int count, Step s, float by) {
    in_parts(grads, count, [=](const Gradient& g, long from, long to) {
        const float* grad = g.values ? g.values + from - g.start : nullptr;
        float *__restrict p = s.weights + from, *__restrict m = s.first + from, *__restrict v = s.second + from;
        for (long i = 0; i < to - from; i++) {
            float d = grad ? grad[i] * by : 0.f;
            m[i] += s.part_first * (d - m[i]), v[i] = s.by_second * v[i] + s.part_second * d * d;
            p[i] = p[i] * s.kept - s.rate * m[i] / (std::sqrt(v[i]) / s.root + s.eps);
        }
    });
}

}
