// Dense convolutions of any window, and a whole network in one call: its layers one after the other, in memory that is
// laid out beforehand.

#include "between.h"

#include <cstring>
#include <type_traits>

extern "C" {
void grouped(const float*, const float*, const float*, float*, Shape, Window, int, After);
void pointwise(const float*, const float*, const float*, float*, int, int, int, After);
void tiled(const float*, const void*, const float*, float*, Shape, Window, int, After);
void thin(const float*, const float*, const float*, float*, Shape, Window, int, bool, After);
void winograd(const float*, const float*, const float*, float*, Shape, Window, int, After);
void max_pool_of(const float*, int, float*, Shape, Window);
void grouped_half(const Half*, const float*, const float*, Half*, Shape, Window, int, AfterOf<Half>);
void tiled_half(const Half*, const Half*, const float*, Half*, Shape, Window, int, AfterOf<Half>);
void max_pool_half(const Half*, Half*, Shape, Window);
void tiled_bytes(const void*, const void*, const float*, void*, Shape, Window, int, AfterOf<void>, int);
void max_pool_bytes(const Byte*, Byte*, Shape, Window);
void to_bytes(const Half*, Byte*, long, float);
}

namespace {

constexpr long BAND = 1 << 17;  // floats of the input that threads share at a time

// The input with its border of zeros.
const float* bordered(const float* x, float* room, const Shape& s, const Window& k) {
    if (!k.ph && !k.pw) return x;
    int high = s.h + 2 * k.ph, wide = s.w + 2 * k.pw;
    long row = (long)wide * s.c, side = (long)k.pw * s.c, inside = (long)s.w * s.c;
#pragma omp parallel for schedule(static)
    for (int item = 0; item < s.n * high; item++) {
        int n = item / high, i = item % high - k.ph;
        float* to = room + item * row;
        if (i < 0 || i >= s.h) {
            std::fill_n(to, row, 0.f);
            continue;
        }
        std::fill_n(to, side, 0.f);
        std::memcpy(to + side, x + ((long)n * s.h + i) * inside, inside * sizeof(float));
        std::fill_n(to + side + inside, side, 0.f);
    }
    return room;
}

// The same, where what lies behind it may be read.
const float* held(const float* x, float* room, const Shape& s, const Window& k) {
    if (k.ph || k.pw) return bordered(x, room, s, k);
    return std::copy_n(x, (long)s.n * s.h * s.w * s.c, room), room;
}

enum Kind {
    GROUPED, POINTWISE, WINOGRAD, DENSE, LARGEST, MEAN, SCALED, SUM, TILED, NORMALISED, ENLARGED, NARROWED, WIDENED, CUT,
    THIN, THIN_LARGEST, REPEATED, UNFOLDED, GROUP_NORMALISED, PADDED, TO_BYTES
};

}  // namespace

// A layer of a network: where its arrays lie (see `Network::at`), which of them are bytes, and what the kernel of its kind
// takes.
struct Step {
    int kind, per, bytes;
    long x, y, other, room;
    const float *w, *bias;
    Shape s;
    Window k;
    After after;
    int threads;
};

extern "C" {

// w: panels x kh x kw x C x PANEL, of which the last panel may be half full. room: memory for the input with its border.
void dense(const float* x, const float* w, const float* bias, float* y, float* room, Shape s, Window k, After after) {
    x = bordered(x, room, s, k);
    int wide = s.w + 2 * k.pw, high = s.h + 2 * k.ph, panels = ceil_div(s.out_c, PANEL), rows = s.n * s.out_h;
    long line = (long)wide * s.c;
    Stretches reads{k.kh * k.kw, k.kw, (long)k.dw * s.c, k.dh * line};
    int length = s.c;
    if (k.dw == 1) reads = {k.kh, 1, 0, k.dh * line}, length *= k.kw;
    int bands = std::max<long>(ceil_div(4 * omp_get_max_threads(), panels), rows * k.sh * line / BAND);
    int band = ceil_div(rows, std::min(bands, rows));
#pragma omp parallel for schedule(dynamic, 1)
    for (int item = 0; item < ceil_div(rows, band) * panels; item++) {
        int o = item % panels * PANEL, first = item / panels * band, last = std::min(first + band, rows);
        const float* weights = w + (long)o * k.kh * k.kw * s.c;
        Product whole{x, weights, bias ? bias + o : nullptr, y + o, (long)k.sw * s.c, s.out_c, length, after, reads};
        whole.in_parts((last - first) * s.out_w, [&](const Product& part) {
            for (int row = first; row < last; row++) {
                Product p = part;
                long at = (long)row * s.out_w * s.out_c;
                p.a += ((long)(row / s.out_h) * high + row % s.out_h * k.sh) * line, p.y += at;
                if (after.other) p.after.other += at + o;
                s.out_c - o >= PANEL ? p.all(s.out_w) : p.all<1>(s.out_w);
            }
        });
    }
}
}

namespace {

// T: of the arrays between input and outputs, which are float32.
template <class T> struct Network {
    T* memory;
    const float* input;
    float* const* outputs;

    // From 0: in the memory. Below, in parts of 2^40: nothing, the input, the outputs, and where in them.
    template <class U = T> U* at(long place) const {
        if (place >= 0) return (U*)(memory + place);
        long which = -(place >> 40), offset = place & ((1L << 40) - 1);
        return which == 1 ? nullptr : (U*)(which == 2 ? input : outputs[which - 3]) + offset;
    }

    void run(const Step& t) const {
        const T* x = at(t.x);
        T* y = at(t.y);
        const Shape& s = t.s;
        long pixels = (long)s.h * s.w, all = s.n * pixels * s.c;
        AfterOf<T> after{at(t.other), t.after.low, t.after.high, t.after.activation};
        Shape kept = s;
        kept.c = s.out_c;
        switch (t.kind) {
        case MEAN: return mean(x, y, pixels, s, after);
        case SCALED: return scaled(x, after.other, y, pixels, s);
        case SUM: return added(x, y, all, after);
        case NORMALISED: return normalised(x, t.w, t.bias, y, s.n * pixels, s.c, t.per);
        case GROUP_NORMALISED: return group_normalised(x, t.w, t.bias, y, pixels, s, t.per, after);
        case ENLARGED: return t.y < 0 ? enlarged(x, at<float>(t.y), s, t.per) : enlarged(x, y, s, t.per);
        case NARROWED: return converted(at<float>(t.x), y, all);
        case WIDENED: return converted(x, at<float>(t.y), all);
        case PADDED: return padded(x, y, s, t.k);
        case REPEATED: return repeated(x, y, s);
        case UNFOLDED: {
            Coarse<T> coarse{after.other, t.k.kh, t.k.kw, t.k.sh, t.k.sw > 0};
            return t.y < 0 ? unfolded(x, at<float>(t.y), coarse, s, t.per) : unfolded(x, y, coarse, s, t.per);
        }
        case CUT: return cut(x, at<float>(t.y), s, t.per);
        }
        if constexpr (std::is_same_v<T, Half>) {
            switch (t.kind) {
            case GROUPED: return grouped_half(x, t.w, t.bias, y, s, t.k, t.per, after);
            case TO_BYTES: return to_bytes(x, (Byte*)y, all, t.after.high);
            case TILED:
                if (t.bytes)
                    return tiled_bytes(x, t.w, t.bias, y, s, t.k, t.per, {at(t.other), t.after.low, t.after.high, PLAIN}, t.bytes);
                return tiled_half(x, (const Half*)t.w, t.bias, y, s, t.k, t.per, after);
            case LARGEST:
                if (t.bytes) return max_pool_bytes((const Byte*)x, (Byte*)y, s, t.k);
                return max_pool_half(x, y, s, t.k);
            }
        } else {
            switch (t.kind) {
            case GROUPED: return grouped(x, t.w, t.bias, y, s, t.k, t.per, after);
            case POINTWISE: return pointwise(x, t.w, t.bias, y, s.n * pixels, s.c, s.out_c, after);
            case WINOGRAD: return winograd(x, t.w, t.bias, y, s, t.k, t.per, after);
            case TILED: return tiled(x, t.w, t.bias, y, s, t.k, t.per, after);
            case DENSE: return dense(x, t.w, t.bias, y, at(t.room), s, t.k, after);
            case LARGEST: return max_pool_of(x, t.per, y, kept, t.k);
            case THIN:
            case THIN_LARGEST: {
                const float* all = held(x, at(t.room), s, t.k);
                return thin(all, t.w, t.bias, y, s, t.k, t.per, t.kind == THIN_LARGEST, after);
            }
            }
        }
    }
};

template <class T> void run_all(const Step* steps, int count, void* memory, const float* x, float* const* outputs) {
    Network<T> it{(T*)memory, x, outputs};
    for (int i = 0, threads = omp_get_max_threads(); i < count; i++) {
        if (threads > 1) omp_set_num_threads(std::min(threads, steps[i].threads));
        it.run(steps[i]);
    }
}

}  // namespace

extern "C" {

// All layers on one batch, each with its threads; arrays between input and outputs are bfloat16 if `half`.
void network(const Step* steps, int count, bool half, void* memory, const float* x, float* const* outputs) {
    int threads = omp_get_max_threads();
    (half ? run_all<Half> : run_all<float>)(steps, count, memory, x, outputs);
    omp_set_num_threads(threads);
}

// The same for one output, told in one place what it is told beside its arrays.
struct Ready { const Step* steps; void* memory; int count; bool half; };
void one_output(const Ready* r, const float* x, float* y) { network(r->steps, r->count, r->half, r->memory, x, &y); }

// All layers on each picture, every thread with pictures of its own and memory of its own, `apart` bytes from the next.
void pictures(const Step* steps, int count, bool half, char* memory, long apart, int threads, int pictures,
              const float* x, long x_apart, float* const* outputs, const long* y_apart, int given) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int p = 0; p < pictures; p++) {
        float* to[64];
        for (int i = 0; i < given; i++) to[i] = outputs[i] + p * y_apart[i];
        (half ? run_all<Half> : run_all<float>)(steps, count, memory + omp_get_thread_num() * apart, x + p * x_apart, to);
    }
}
}
