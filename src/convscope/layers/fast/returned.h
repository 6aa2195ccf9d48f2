// What both ways to return maps to twice their size are made of: `returned.cpp` in float32, `returned_tiles.h` in tiles.

#pragma once

#include "lanes.h"

namespace {

constexpr int SOME = 6, TAPS = 4, WIDE = 2 * LANES;  // classes at a time, taps along an axis, pixels at a time

struct Returned {
    const void* x;                        // pictures x height x width x channels, a multiple of LANES
    const float *weight, *bias, *coarse;  // channels x classes x 4 x 4; classes, or none; pictures x classes x rows x columns
    float* y;                             // pictures x classes x 2 height x 2 width, or its gradient
    int pictures, height, width, channels, classes, rows, columns;
};

struct Back {
    void* to_x;
    float *to_weight, *to_bias, *to_coarse;
};

// Which of `old` places is taken for one of `made`, and how much of the next.
struct Between {
    std::vector<int> at;
    std::vector<float> next;
    Between(int old, int made) : at(made), next(made) {
        for (int i = 0; i < made; i++) {
            float place = std::min(std::max((i + 0.5f) * old / made - 0.5f, 0.f), old - 1.f);
            at[i] = std::min((int)place, std::max(old - 2, 0)), next[i] = place - at[i];
        }
    }
};

// A row of pixels with their channels side by side, as LD values of each channel; a 0 stands before the first pixel.
template <int LD, class T> void spread(const T* x, int width, int channels, float* to) {
    for (int c = 0; c < channels; c += LANES)
        for (int j = 0; j < width; j += LANES) {
            V rows[LANES];
            for (int i = 0; i < LANES; i++) rows[i] = j + i < width ? load(x + (long)(j + i) * channels + c) : V{};
            transpose(rows);
            for (int i = 0; i < LANES; i++) store(to + (c + i) * LD + 1 + j, rows[i]);
        }
}

// The columns 0, 2, 4 ... and 1, 3, 5 ... of a row apart, a 0 before the first of each.
template <int LD> void part_columns(const float* row, int width, float* to) {
    constexpr I even = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30}, odd = even + 1;
    int j = 0;
    for (; j + LANES <= width; j += LANES) {
        V a = load(row + 2 * j), b = load(row + 2 * j + LANES);
        store(to + 1 + j, __builtin_shuffle(a, b, even)), store(to + LD + 1 + j, __builtin_shuffle(a, b, odd));
    }
    for (; j < width; j++) to[1 + j] = row[2 * j], to[LD + 1 + j] = row[2 * j + 1];
}

// The last few rows of a map, each made when it is first asked for; zeros where there is none.
template <int SLOTS> struct Rows {
    std::vector<float> memory;
    long size, held[SLOTS];
    Rows(long size) : memory((SLOTS + 1) * size), size(size) { std::fill_n(held, SLOTS, -1); }

    template <class Make> const float* at(long n, int i, int height, Make make) {
        if (i < 0 || i >= height) return &memory[SLOTS * size];
        int slot = i % SLOTS;
        if (held[slot] != n * height + i) make(&memory[slot * size], held[slot] = n * height + i);
        return &memory[slot * size];
    }
};

}  // namespace
