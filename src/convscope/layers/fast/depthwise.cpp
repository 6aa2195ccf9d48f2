// Depthwise convolutions for training, there and back, on channels-last maps of float32 or bfloat16 whose channels are a
// multiple of 16. Each thread does sixteen channels of a picture at a time: rows of these go into a ring of as many rows as
// the window has, in float32 and with the padding beside them, so that no tap asks where it is.

#include "lanes.h"

namespace {

struct Depthwise {
    const void* x;        // pictures x height x width x channels
    const float* weight;  // size x size x channels
    int pictures, height, width, channels, size, stride, padding, rows, columns;  // these of the output
};

struct Back {
    const void* grad;  // pictures x rows x columns x channels
    void* to_x;        // or none, as the next
    float* to_weight;
};

// SIZE rows of sixteen channels one below another; row i lies where row i + SIZE will.
template <int SIZE> struct Ring {
    const Depthwise& a;
    const int wide = std::max(a.width + a.padding, (a.columns - 1) * a.stride + SIZE);
    std::vector<V> all = std::vector<V>((size_t)SIZE * wide);
    Ring(const Depthwise& a) : a(a) {}
    V* row(int i) { return &all[(size_t)((i % SIZE + SIZE) % SIZE) * wide]; }
    bool inside(int i) const { return i >= 0 && i < a.height; }
    template <class T> void take(const T* x, int i) {
        V* to = row(i);
        std::fill_n(to, wide, V{});
        const T* from = x + (long)i * a.width * a.channels;
        for (int j = 0; inside(i) && j < a.width; j++, from += a.channels) to[a.padding + j] = load(from);
    }
    template <class T> void give(T* x, int i) {
        V* from = row(i);
        T* to = x + (long)i * a.width * a.channels;
        for (int j = 0; x && inside(i) && j < a.width; j++, to += a.channels) store(to, from[a.padding + j]);
        std::fill_n(from, wide, V{});
    }
};

// Calls `body(x, y, channel)` with where sixteen channels of a picture begin there and there, each thread its own.
template <class Body> void each_piece(const Depthwise& a, Body body) {
    const int blocks = a.channels / LANES;
    const Part part((long)a.pictures * blocks);
    for (long at = part.first; at < part.first + part.size; at++) {
        const int c = at % blocks * LANES;
        body(at / blocks * a.height * a.width * a.channels + c, at / blocks * a.rows * a.columns * a.channels + c, c);
    }
}

template <class T, int SIZE> void there(const Depthwise& a, T* made) {
#pragma omp parallel num_threads(threads_for((long)a.pictures * a.rows * a.columns * a.channels))
    {
        Ring<SIZE> ring(a);
        each_piece(a, [&](long x, long y, int c) {
            V w[SIZE * SIZE];
            for (int t = 0; t < SIZE * SIZE; t++) w[t] = load(a.weight + (long)t * a.channels + c);
            for (int r = 0, next = -a.padding; r < a.rows; r++) {
                const int top = r * a.stride - a.padding;
                for (next = std::max(next, top); next < top + SIZE; next++) ring.take((const T*)a.x + x, next);
                const V* from[SIZE];
                for (int t = 0; t < SIZE; t++) from[t] = ring.row(top + t);
                for (int j = 0; j < a.columns; j++, y += a.channels) {
                    V sum{};
                    for (int t = 0; t < SIZE; t++)
                        for (int u = 0; u < SIZE; u++) sum += from[t][j * a.stride + u] * w[t * SIZE + u];
                    store(made + y, sum);
                }
            }
        });
    }
}

template <class T, int SIZE> void back(const Depthwise& a, const Back& to) {
    const int threads = threads_for((long)a.pictures * a.rows * a.columns * a.channels);
    const long size = (long)SIZE * SIZE * a.channels;
    std::vector<float> found(threads * size);
#pragma omp parallel num_threads(threads)
    {
        Ring<SIZE> seen(a), owed(a);
        std::vector<V> line(a.columns);
        float* mine = &found[omp_get_thread_num() * size];
        each_piece(a, [&](long x, long y, int c) {
            T* to_x = to.to_x ? (T*)to.to_x + x : nullptr;
            V w[SIZE * SIZE], sums[SIZE * SIZE] = {};
            for (int t = 0; t < SIZE * SIZE; t++) w[t] = load(a.weight + (long)t * a.channels + c);
            int next = -a.padding, done = -a.padding;  // of the rows of x: which comes, and to which nothing more comes
            for (int r = 0; r < a.rows; r++) {
                const int top = r * a.stride - a.padding;
                for (next = std::max(next, top); next < top + SIZE; next++) seen.take((const T*)a.x + x, next);
                for (; done < top; done++) owed.give(to_x, done);
                for (V& g : line) g = load((const T*)to.grad + y), y += a.channels;
                for (int t = 0; t < SIZE; t++) {
                    const V *from = seen.row(top + t), *by = w + t * SIZE;
                    V *into = owed.row(top + t), own[SIZE] = {};
                    for (int j = 0; j < a.columns; j++, from += a.stride, into += a.stride)
                        for (int u = 0; u < SIZE; u++) own[u] += line[j] * from[u], into[u] += line[j] * by[u];
                    for (int u = 0; u < SIZE; u++) sums[t * SIZE + u] += own[u];
                }
            }
            for (const int end = std::max(a.height, done + SIZE); done < end; done++) owed.give(to_x, done);
            for (int t = 0; t < SIZE * SIZE; t++, mine += a.channels) store(mine + c, load(mine + c) + sums[t]);
            mine -= size;
        });
    }
    for (long i = 0; to.to_weight && i < size; i++) {
        float sum = 0;
        for (int t = 0; t < threads; t++) sum += found[t * size + i];
        to.to_weight[i] = sum;
    }
}

template <class T> void there(const Depthwise& a, void* y) {
    a.size == 3 ? there<T, 3>(a, (T*)y) : a.size == 5 ? there<T, 5>(a, (T*)y) : there<T, 7>(a, (T*)y);
}
template <class T> void back(const Depthwise& a, const Back& to) {
    a.size == 3 ? back<T, 3>(a, to) : a.size == 5 ? back<T, 5>(a, to) : back<T, 7>(a, to);
}

}  // namespace

extern "C" {

void depthwise(Depthwise a, void* y, bool half) { half ? there<Bf16>(a, y) : there<float>(a, y); }
void depthwise_back(Depthwise a, Back to, bool half) { half ? back<Bf16>(a, to) : back<float>(a, to); }

}
