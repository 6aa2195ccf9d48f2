// What stands between convolutions: sums, means, normalisations of pixels, maps made larger, from one type to the other.

#pragma once

#include "kernels.h"

#include <cmath>
#include <numeric>
#include <type_traits>
#include <vector>

namespace {

template <class Body> void each_vector(long count, Body body) {
#pragma omp parallel for schedule(static)
    for (long i = 0; i < count / LANES; i++) body(i * LANES);
}

template <class T, class U> void converted(const T* x, U* y, long count) {
    each_vector(count, [&](long i) { store<LANES>(y + i, load<LANES>(x + i)); });
    for (long i = count / LANES * LANES; i < count; i++) store<1>(y + i, load<1>(x + i));
}

// The first channels of each pixel, to the pixels from `first` on.
template <class T, class U> void cut(const T* x, U* y, const Shape& s, int first) {
    for (int n = 0; n < s.n; n++) {
        U* to = y + ((long)n * s.out_h * s.out_w + first) * s.out_c;
        for (long p = 0; p < (long)s.h * s.w; p++, x += s.c, to += s.out_c)
            for (int c = 0; c < s.out_c; c++) store<1>(to + c, load<1>(x + c));
    }
}

// A border of zeros, which may be wider on one side than on the other.
template <class T> void padded(const T* x, T* y, const Shape& s, const Window& k) {
    long line = (long)s.w * s.c, wide = (long)s.out_w * s.c, left = (long)k.pw * s.c;
#pragma omp parallel for schedule(static)
    for (int item = 0; item < s.n * s.out_h; item++) {
        int i = item % s.out_h - k.ph;
        T* to = y + item * wide;
        bool outside = i < 0 || i >= s.h;
        std::fill_n(to, outside ? wide : left, T{});
        if (outside) continue;
        std::copy_n(x + ((long)item / s.out_h * s.h + i) * line, line, to + left);
        std::fill_n(to + left + line, wide - left - line, T{});
    }
}

template <class T> void added(const T* x, T* y, long count, const AfterOf<T>& after) {
    each_vector(count, [&](long i) { store<LANES>(y + i, after.template apply<LANES>(load<LANES>(x + i), i)); });
}

// `factors`: one for each channel of each picture.
template <class T> void scaled(const T* x, const T* factors, T* y, long pixels, const Shape& s) {
    each_vector(s.n * pixels * s.c, [&](long i) {
        long channel = i / (pixels * s.c) * s.c + i % s.c;
        store<LANES>(y + i, load<LANES>(x + i) * load<LANES>(factors + channel));
    });
}

// Of each channel. Threads share the pixels, and their sums are added in the end.
template <class T> void mean(const T* x, T* y, long pixels, const Shape& s, const AfterOf<T>& after) {
    int shares = std::max(1, std::min(omp_get_max_threads(), (int)(pixels * s.c >> 13))), parts = ceil_div(shares, s.n);
    long size = (long)s.n * s.c;
    float* sums = scratch(parts * size);
#pragma omp parallel for schedule(static) collapse(2) num_threads(shares)
    for (int n = 0; n < s.n; n++)
        for (int part = 0; part < parts; part++) {
            float* own = sums + part * size + (long)n * s.c;
            std::fill_n(own, s.c, 0.f);
            for (long p = pixels * part / parts, last = pixels * (part + 1) / parts; p < last; p++) {
                const T* from = x + (n * pixels + p) * s.c;
                for (int c = 0; c < s.c; c += LANES) store<LANES>(own + c, load<LANES>(own + c) + load<LANES>(from + c));
            }
        }
    for (long i = 0; i < size; i += LANES) {
        Vec<LANES> sum = load<LANES>(sums + i);
        for (int part = 1; part < parts; part++) sum += load<LANES>(sums + part * size + i);
        store<LANES>(y + i, after.template apply<LANES>(sum * (1.f / pixels), i));
    }
}

template <int L> float total(Vec<L> v) {
    float sum = 0;
    for (int l = 0; l < L; l++) sum += v[l];
    return sum;
}

// Each pixel less its mean, over its standard deviation; of its channels the first `count` are there, the others are zero.
// w: a factor for each channel, then what is added to the variance; bias: what is added in the end.
template <class T>
void normalised(const T* x, const float* w, const float* bias, T* y, long pixels, int channels, int count) {
    float epsilon = w[channels];
#pragma omp parallel for schedule(static)
    for (long p = 0; p < pixels; p++) {
        const T* from = x + p * channels;
        Vec<LANES> sum{}, squares{};
        for (int c = 0; c < channels; c += LANES) sum += load<LANES>(from + c);
        float mean = total<LANES>(sum) / count;
        for (int c = 0; c < channels; c += LANES) {
            Vec<LANES> off = load<LANES>(from + c) - mean;
            squares += off * off;
        }
        float all = total<LANES>(squares) - (channels - count) * mean * mean;
        float scale = 1 / std::sqrt(std::max(all, 0.f) / count + epsilon);
        for (int c = 0; c < channels; c += LANES)
            store<LANES>(y + p * channels + c,
                         (load<LANES>(from + c) - mean) * scale * load<LANES>(w + c) + load<LANES>(bias + c));
    }
}

// Each group of `per` channels of a picture less its mean, over its standard deviation; w and bias as above. A part is of
// whole vectors and of whole groups.
template <class T>
void group_normalised(const T* x, const float* w, const float* bias, T* y, long pixels, const Shape& s, int per,
                      const AfterOf<T>& after) {
    int both = std::lcm(per, LANES), part = s.c % both ? s.c : both;
#pragma omp parallel for schedule(static) collapse(2)
    for (int n = 0; n < s.n; n++)
        for (int first = 0; first < s.c; first += part) {
            const T* from = x + n * pixels * s.c + first;
            T* to = y + n * pixels * s.c + first;
            float *scales = scratch(2 * part), *means = scales + part;
            auto totals = [&](float* into, auto&& value) {  // of each channel, then the mean of its group
                for (int c = 0; c < part; c += LANES) {
                    Vec<LANES> even{}, odd{};
                    for (long p = 0; p + 1 < pixels; p += 2)
                        even += value(p * s.c + c, c), odd += value((p + 1) * s.c + c, c);
                    if (pixels % 2) even += value((pixels - 1) * s.c + c, c);
                    store<LANES>(into + c, even + odd);
                }
                for (int c = 0; c < part; c += per) {
                    float *begin = into + c, *end = into + std::min(c + per, part);
                    std::fill(begin, end, std::accumulate(begin, end, 0.f) / ((end - begin) * pixels));
                }
            };
            totals(means, [&](long at, int) { return load<LANES>(from + at); });
            totals(scales, [&](long at, int c) {
                Vec<LANES> off = load<LANES>(from + at) - load<LANES>(means + c);
                return off * off;
            });
            for (int c = 0; c < part; c++) scales[c] = w[first + c] / std::sqrt(scales[c] + w[s.c]);
            for (int c = 0; c < part; c += LANES) {
                Vec<LANES> scale = load<LANES>(scales + c), mean = load<LANES>(means + c), shift = load<LANES>(bias + first + c);
                for (long at = c; at < pixels * s.c; at += s.c)
                    store<LANES>(to + at, after.template apply<LANES>((load<LANES>(from + at) - mean) * scale + shift, at));
            }
        }
}

// Where an output lies between two inputs of an axis, as PyTorch has it: `first`, the next one, and how far from the first.
struct Between {
    int first, next;
    float far;
    Between(int at, int size, int out, bool corners) {
        float place = corners ? (out > 1 ? at * ((size - 1.f) / (out - 1)) : 0.f) : std::max((at + .5f) * size / out - .5f, 0.f);
        first = std::min((int)place, size - 1), next = std::min(first + 1, size - 1), far = place - first;
    }
};

// Each output is the nearest input.
template <class T> void repeated(const T* x, T* y, const Shape& s) {
    float down = (float)s.h / s.out_h, along = (float)s.w / s.out_w;
#pragma omp parallel for schedule(static)
    for (int item = 0; item < s.n * s.out_h; item++) {
        const T* line = x + ((long)item / s.out_h * s.h + std::min((int)(item % s.out_h * down), s.h - 1)) * s.w * s.c;
        T* to = y + (long)item * s.out_w * s.c;
        for (int j = 0; j < s.out_w; j++, to += s.c)
            std::copy_n(line + (long)std::min((int)(j * along), s.w - 1) * s.c, s.c, to);
    }
}

// A row between two rows of a map that is made larger.
template <class T> const float* between_rows(const T* x, int w, int c, const Between& down) {
    const T *upper = x + (long)down.first * w * c, *lower = x + (long)down.next * w * c;
    float* line = scratch((long)w * c + LANES);  // a vector may end behind the last pixel
    for (long i = 0; i < (long)w * c; i += 4) {
        Vec<4> a = load<4>(upper + i);
        store<4>(line + i, a + (load<4>(lower + i) - a) * down.far);
    }
    return line;
}

// A map that is made larger and added; without values there is none.
template <class T> struct Coarse { const T* x; int h, w, c; bool corners; };

// Of each input's channels, `times` x `times` outputs of s.out_c channels or some more. What a vector writes behind a pixel
// is overwritten by the next one, but for the last of a row.
template <class T, class U> void unfolded(const T* x, U* y, const Coarse<T>& coarse, const Shape& s, int times) {
    int apart = s.c / (times * times);
    std::vector<Between> places;
    for (int j = 0; coarse.x && j < s.out_w; j++) places.emplace_back(j, coarse.w, s.out_w, coarse.corners);
#pragma omp parallel for schedule(static)
    for (int item = 0; item < s.n * s.out_h; item++) {
        int n = item / s.out_h, i = item % s.out_h;
        const T* upper = coarse.x + (coarse.x ? (long)n * coarse.h * coarse.w * coarse.c : 0);
        const float* line = nullptr;
        if (coarse.x) line = between_rows(upper, coarse.w, coarse.c, Between(i, coarse.h, s.out_h, coarse.corners));
        const T* row = x + ((long)n * s.h + i / times) * s.w * s.c + (long)(i % times) * times * apart;
        auto pixel = [&](int j, int c, auto lanes) {
            constexpr int L = decltype(lanes)::value;
            Vec<L> value = load<L>(row + (long)(j / times) * s.c + j % times * apart + c);
            if (line) {
                const Between& at = places[j];
                Vec<L> left = load<L>(line + at.first * coarse.c + c), right = load<L>(line + at.next * coarse.c + c);
                value += left + (right - left) * at.far;
            }
            store<L>(y + ((long)item * s.out_w + j) * s.out_c + c, value);
        };
        for (int j = 0; j < s.out_w - 1; j++)
            for (int c = 0; c < s.out_c; c += LANES) pixel(j, c, std::integral_constant<int, LANES>{});
        for (int c = 0; c < s.out_c; c += 4) pixel(s.out_w - 1, c, std::integral_constant<int, 4>{});
    }
}

// A map made larger, bilinearly. Of s.c channels those s.out_c are written that fill vectors of four.
template <class T, class U> void enlarged(const T* x, U* y, const Shape& s, bool corners) {
#pragma omp parallel for schedule(static)
    for (int item = 0; item < s.n * s.out_h; item++) {
        Between down(item % s.out_h, s.h, s.out_h, corners);
        const float* line = between_rows(x + (long)item / s.out_h * s.h * s.w * s.c, s.w, s.c, down);
        U* to = y + (long)item * s.out_w * s.out_c;
        for (int j = 0; j < s.out_w; j++, to += s.out_c) {
            Between along(j, s.w, s.out_w, corners);
            const float *left = line + (long)along.first * s.c, *right = line + (long)along.next * s.c;
            for (int c = 0; c < s.out_c; c += 4) {
                Vec<4> a = load<4>(left + c);
                store<4>(to + c, a + (load<4>(right + c) - a) * along.far);
            }
        }
    }
}

}  // namespace
