// Normalisation with what stands behind it (another array added, ReLU) for training, there and back, on channels-last
// arrays of float32 or bfloat16 whose channels are a multiple of 16. Sums are of differences from a first value, in
// float32 over short runs and in float64 over all.

#include "lanes.h"

namespace {

constexpr int RUN = 64;  // rows whose sums are float32

// Rows in runs, and in each run one vector of channels after another: `body(c, each)`, and `each(f)` calls f(place).
template <class Body> void over(long first, long rows, int channels, Body body) {
    for (long at = first; at < first + rows; at += RUN)
        for (int c = 0; c < channels; c += LANES) {
            long begin = at * channels + c, end = std::min(at + RUN, first + rows) * channels;
            body(c, [=](auto f) {
                for (long p = begin; p < end; p += channels) f(p);
            });
        }
}

// Two sums a channel, added to `total` (2 x channels); `add(place, off, a, b)` adds what is at a place.
template <class Add>
void sums(long first, long rows, int channels, const float* off, double* total, Add add) {
    over(first, rows, channels, [=](int c, auto each) {
        V a{}, b{}, from = off ? load(off + c) : V{};
        each([&](long p) { add(p, from, a, b); });
        for (int j = 0; j < LANES; j++) total[c + j] += a[j], total[channels + c + j] += b[j];
    });
}

struct Norm {
    const void *x, *other;           // rows x channels
    const float *gamma, *beta;
    float *running_mean, *running_var, *mean, *rstd;
    void* y;
    long rows;
    int channels, relu;
    float eps, momentum;
};

template <class T, bool RELU> void forward(const Norm& a) {
    const int C = a.channels, threads = threads_for(a.rows * C);
    const T *x = (const T*)a.x, *other = (const T*)a.other;
    T* y = (T*)a.y;
    std::vector<double> total((size_t)threads * 2 * C);
    std::vector<float> scale(C), shift(C), base(C);
    for (int c = 0; c < C; c += LANES) store(&base[c], load(x + c));
#pragma omp parallel num_threads(threads)
    {
        Part part(a.rows);
        sums(part.first, part.size, C, base.data(), &total[(size_t)omp_get_thread_num() * 2 * C],
             [=](long p, V off, V& s, V& q) {
                 V v = load(x + p) - off;
                 s += v, q += v * v;
             });
#pragma omp barrier
#pragma omp single
        for (int c = 0; c < C; c++) {
            double s = 0, q = 0;
            for (int t = 0; t < threads; t++) s += total[(size_t)t * 2 * C + c], q += total[((size_t)t * 2 + 1) * C + c];
            double off = s / a.rows, var = std::max(q / a.rows - off * off, 0.), mean = base[c] + off;
            a.mean[c] = mean, a.rstd[c] = 1 / std::sqrt(var + a.eps);
            scale[c] = a.gamma[c] * a.rstd[c], shift[c] = a.beta[c] - a.mean[c] * scale[c];
            if (!a.running_mean) continue;
            a.running_mean[c] += a.momentum * (mean - a.running_mean[c]);
            a.running_var[c] += a.momentum * (var * a.rows / (a.rows - 1) - a.running_var[c]);
        }
        const float *by_x = scale.data(), *more = shift.data();
        over(part.first, part.size, C, [=](int c, auto each) {
            V one = load(by_x + c), two = load(more + c);
            each([=](long p) {
                V v = load(x + p) * one + two;
                if (other) v += load(other + p);
                store(y + p, RELU ? positive(v) : v);
            });
        });
    }
}

struct Back {
    const void *grad, *y, *x;        // rows x channels
    const float *gamma, *mean, *rstd;
    void *to_x, *to_other;
    float *to_gamma, *to_beta;
    long rows;
    int channels, relu;
};

template <class T, bool RELU> void backward(const Back& a) {
    const int C = a.channels, threads = threads_for(a.rows * C);
    const T *grad = (const T*)a.grad, *y = (const T*)a.y, *x = (const T*)a.x;
    T *to_x = (T*)a.to_x, *to_other = (T*)a.to_other;
    const float* mean = a.mean;
    std::vector<double> total((size_t)threads * 2 * C);
    std::vector<float> scale(C), of_x(C), rest(C);
    auto given = [=](long p) {
        V g = load(grad + p);
        return RELU ? where_positive(load(y + p), g) : g;
    };
#pragma omp parallel num_threads(threads)
    {
        Part part(a.rows);
        sums(part.first, part.size, C, mean, &total[(size_t)omp_get_thread_num() * 2 * C], [=](long p, V off, V& s, V& q) {
            V g = given(p);
            s += g, q += g * (load(x + p) - off);
        });
#pragma omp barrier
#pragma omp single
        for (int c = 0; c < C; c++) {
            double s = 0, q = 0;
            for (int t = 0; t < threads; t++) s += total[(size_t)t * 2 * C + c], q += total[((size_t)t * 2 + 1) * C + c];
            a.to_beta[c] = s, a.to_gamma[c] = q * a.rstd[c];
            scale[c] = a.gamma[c] * a.rstd[c];  // the gradient is scale * (g - mean(g) - x^ * mean(g * x^))
            of_x[c] = -scale[c] * a.rstd[c] * a.to_gamma[c] / a.rows;
            rest[c] = -scale[c] * (s / a.rows) - of_x[c] * mean[c];
        }
        const float *by_grad = scale.data(), *by_x = of_x.data(), *more = rest.data();
        over(part.first, part.size, C, [=](int c, auto each) {
            V one = load(by_grad + c), two = load(by_x + c), three = load(more + c);
            each([=](long p) {
                V g = given(p);
                if (to_other) store(to_other + p, g);
                store(to_x + p, one * g + two * load(x + p) + three);
            });
        });
    }
}

// Group normalisation of rectangles of a plane, each by itself, and ReLU; what lies between them is 0.
struct Fields {
    const int* at;  // row, column, rows, columns of each
    int count, pictures, height, width, channels, groups;
    float eps;
};

template <class Body> void each_row(const Fields& f, int n, int k, Body body) {
    const int* r = f.at + 4 * k;
    for (int i = 0; i < r[2]; i++) body(((long)n * f.height + r[0] + i) * f.width + r[1], r[3]);
}

template <class T>
void fields_forward(const Fields& f, const T* x, const float* gamma, const float* beta, T* y, float* mean, float* rstd) {
    int C = f.channels, per = C / f.groups;
    long plane = (long)f.height * f.width * C;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < f.pictures; n++) {
        std::vector<double> total(2 * C);
        std::vector<float> scale(C), shift(C);
        std::fill_n((uint8_t*)(y + n * plane), plane * sizeof(T), 0);
        for (int k = 0; k < f.count; k++) {
            std::fill(total.begin(), total.end(), 0.);
            each_row(f, n, k, [&](long first, int rows) {
                sums(first, rows, C, nullptr, total.data(), [=](long p, V, V& s, V& q) {
                    V v = load(x + p);
                    s += v, q += v * v;
                });
            });
            double size = (double)f.at[4 * k + 2] * f.at[4 * k + 3] * per;
            for (int g = 0; g < f.groups; g++) {
                double s = 0, q = 0;
                for (int c = g * per; c < (g + 1) * per; c++) s += total[c], q += total[C + c];
                double m = s / size, r = 1 / std::sqrt(std::max(q / size - m * m, 0.) + f.eps);
                long at = ((long)n * f.count + k) * f.groups + g;
                mean[at] = m, rstd[at] = r;
                for (int c = g * per; c < (g + 1) * per; c++) scale[c] = gamma[c] * r, shift[c] = beta[c] - m * scale[c];
            }
            const float *by_x = scale.data(), *more = shift.data();
            each_row(f, n, k, [=](long first, int rows) {
                over(first, rows, C, [=](int c, auto each) {
                    V one = load(by_x + c), two = load(more + c);
                    each([=](long p) { store(y + p, positive(load(x + p) * one + two)); });
                });
            });
        }
    }
}

template <class T>
void fields_backward(const Fields& f, const T* grad, const T* y, const T* x, const float* gamma, const float* mean,
                     const float* rstd, T* to_x, float* to_gamma, float* to_beta) {
    int C = f.channels, per = C / f.groups;
    long plane = (long)f.height * f.width * C;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < f.pictures; n++) {
        std::vector<double> total(2 * C);
        std::vector<float> scale(C), of_x(C), rest(C);
        float *own_gamma = to_gamma + (long)n * C, *own_beta = to_beta + (long)n * C;
        std::fill_n((uint8_t*)(to_x + n * plane), plane * sizeof(T), 0);
        std::fill_n(own_gamma, C, 0.f), std::fill_n(own_beta, C, 0.f);
        for (int k = 0; k < f.count; k++) {
            std::fill(total.begin(), total.end(), 0.);
            each_row(f, n, k, [&](long first, int rows) {
                sums(first, rows, C, nullptr, total.data(), [=](long p, V, V& s, V& q) {
                    V g = where_positive(load(y + p), load(grad + p));
                    s += g, q += g * load(x + p);
                });
            });
            double size = (double)f.at[4 * k + 2] * f.at[4 * k + 3] * per;
            for (int g = 0; g < f.groups; g++) {
                long at = ((long)n * f.count + k) * f.groups + g;
                double s = 0, q = 0, m = mean[at], r = rstd[at];
                for (int c = g * per; c < (g + 1) * per; c++) {
                    double of_c = (total[C + c] - m * total[c]) * r;  // the sum of g * x^
                    own_beta[c] += total[c], own_gamma[c] += of_c;
                    s += gamma[c] * total[c], q += gamma[c] * of_c;
                }
                double by_x = -r * r * q / size;
                for (int c = g * per; c < (g + 1) * per; c++)
                    scale[c] = gamma[c] * r, of_x[c] = by_x, rest[c] = -r * s / size - by_x * m;
            }
            const float *by_grad = scale.data(), *from_x = of_x.data(), *more = rest.data();
            each_row(f, n, k, [=](long first, int rows) {
                over(first, rows, C, [=](int c, auto each) {
                    V one = load(by_grad + c), two = load(from_x + c), three = load(more + c);
                    each([=](long p) {
                        V g = where_positive(load(y + p), load(grad + p));
                        store(to_x + p, one * g + two * load(x + p) + three);
                    });
                });
            });
        }
    }
}

}  // namespace

extern "C" {

void norm_forward(Norm a, bool half) {
    if (half) a.relu ? forward<Bf16, true>(a) : forward<Bf16, false>(a);
    else a.relu ? forward<float, true>(a) : forward<float, false>(a);
}

void norm_backward(Back a, bool half) {
    if (half) a.relu ? backward<Bf16, true>(a) : backward<Bf16, false>(a);
    else a.relu ? backward<float, true>(a) : backward<float, false>(a);
}

void fields_forward(Fields f, const void* x, const float* gamma, const float* beta, void* y, float* mean, float* rstd,
                    bool half) {
    half ? fields_forward(f, (const Bf16*)x, gamma, beta, (Bf16*)y, mean, rstd)
         : fields_forward(f, (const float*)x, gamma, beta, (float*)y, mean, rstd);
}

void fields_backward(Fields f, const void* grad, const void* y, const void* x, const float* gamma, const float* mean,
                     const float* rstd, void* to_x, float* to_gamma, float* to_beta, bool half) {
    half ? fields_backward(f, (const Bf16*)grad, (const Bf16*)y, (const Bf16*)x, gamma, mean, rstd, (Bf16*)to_x,
                           to_gamma, to_beta)
         : fields_backward(f, (const float*)grad, (const float*)y, (const float*)x, gamma, mean, rstd, (float*)to_x,
                           to_gamma, to_beta);
}

}
