// A window of a picture of bytes, which may reach beyond it (where there is 0), at another size: bilinear with
// antialiasing, in integers and along rows first, as PyTorch does it to the last bit; and the nearest pixel.

#include "lanes.h"

namespace {

typedef uint8_t B __attribute__((vector_size(16), aligned(1), may_alias));
typedef int Whole __attribute__((vector_size(64), aligned(4), may_alias));

struct Crop {
    const uint8_t* x;  // channels x height x width
    uint8_t* y;        // channels x out_height x out_width
    int channels, height, width, top, left, rows, columns, out_height, out_width;
};

#if defined(__AVX512F__)  // which GCC would do in parts
inline I load(const uint8_t* p) { return (I)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)); }
inline void store(uint8_t* p, I v) { _mm_storeu_si128((__m128i*)p, _mm512_cvtusepi32_epi8((__m512i)(v < 0 ? I{} : v))); }
#else
inline I load(const uint8_t* p) { return __builtin_convertvector(*reinterpret_cast<const B*>(p), I); }
inline void store(uint8_t* p, I v) {
    v = v < 0 ? I{} : v;
    *reinterpret_cast<B*>(p) = __builtin_convertvector(v > 255 ? I{} + 255 : v, B);
}
#endif
inline I load(const int* p) { return *reinterpret_cast<const Whole*>(p); }

// For each place the first place it is made of, and how much it takes of that and the next.
struct Taps {
    int most = 0, shift = 0, size;
    std::vector<int> first, weights;  // tap after tap, a multiple of LANES places each

    Taps(int old, int made) : size((made + LANES - 1) / LANES * LANES), first(size) {
        const double scale = (double)old / made, support = std::max(scale, 1.), by = std::min(1 / scale, 1.);
        const int room = 2 * (int)std::ceil(support) + 1;
        std::vector<double> all((size_t)made * room);
        double largest = 0;
        for (int i = 0; i < made; i++) {
            const double middle = scale * (i + 0.5);
            first[i] = std::max((int)(middle - support + 0.5), 0);
            const int count = std::min((int)(middle + support + 0.5), old) - first[i];
            double total = 0, *own = &all[(size_t)i * room];
            for (int j = 0; j < count; j++)
                total += own[j] = std::max(1 - std::abs((j + first[i] - middle + 0.5) * by), 0.);
            for (int j = 0; j < count; j++) largest = std::max(largest, own[j] /= total);
            most = std::max(most, count);
        }
        while (shift < 22 && (int)(0.5 + largest * (1 << (shift + 1))) < 1 << 15) shift++;
        weights.assign(most * size, 0);
        for (int i = 0; i < made; i++)
            for (int j = 0; j < most; j++) weights[j * size + i] = 0.5 + all[(size_t)i * room + j] * (1 << shift);
        for (int i = made; i < size; i++) first[i] = first[made - 1];
    }
};

// A row at another width. x: as integers, with 2 LANES behind it.
void along(const int* x, const Taps& t, uint8_t* y) {
    for (int j = 0; j < t.size; j += LANES) {
        const int from = t.first[j];
        const I a = load(x + from), b = load(x + from + LANES), at = load(&t.first[j]) - from;
        I sum = I{} + (1 << (t.shift - 1));
        for (int k = 0; k < t.most; k++) sum += __builtin_shuffle(a, b, at + k) * load(&t.weights[k * t.size + j]);
        store(y + j, sum >> t.shift);
    }
}

bool inside(const Crop& a, int row) { return row >= 0 && row < a.height; }

}  // namespace

extern "C" {

// Whether LANES places are made of no more than 2 LANES, which `along` reads; if not, nothing is done.
bool crop_bilinear(Crop a) {
    const Taps across(a.columns, a.out_width), down(a.rows, a.out_height);
    for (int j = 0; j < across.size; j += LANES)
        if (across.first[j + LANES - 1] + across.most - across.first[j] > 2 * LANES) return false;
    const int wide = across.size, begin = std::max(0, -a.left), end = std::min(a.columns, a.width - a.left);
    std::vector<uint8_t> between((size_t)a.rows * wide), line(wide);
    std::vector<int> row(a.columns + 3 * LANES);
    for (int c = 0; c < a.channels; c++) {
        for (int i = 0; i < a.rows; i++) {
            uint8_t* to = &between[(size_t)i * wide];
            if (!inside(a, a.top + i)) {
                std::fill_n(to, wide, 0);
                continue;
            }
            const uint8_t* from = a.x + ((long)c * a.height + a.top + i) * a.width + a.left;
            for (int j = begin; j < end; j++) row[j] = from[j];
            along(row.data(), across, to);
        }
        for (int i = 0; i < a.out_height; i++) {
            const uint8_t* from = &between[(size_t)down.first[i] * wide];
            const int taps = std::min(down.most, a.rows - down.first[i]);
            for (int j = 0; j < wide; j += LANES) {
                I sum = I{} + (1 << (down.shift - 1));
                for (int k = 0; k < taps; k++) sum += load(from + k * wide + j) * down.weights[k * down.size + i];
                store(&line[j], sum >> down.shift);
            }
            std::copy_n(line.data(), a.out_width, a.y + ((long)c * a.out_height + i) * a.out_width);
        }
    }
    return true;
}

void crop_nearest(Crop a) {
    const float high = (float)a.rows / a.out_height, wide = (float)a.columns / a.out_width;
    std::vector<int> at(a.out_width);
    for (int j = 0; j < a.out_width; j++) at[j] = a.left + std::min((int)((j + 0.5f) * wide), a.columns - 1);
    for (int c = 0; c < a.channels; c++)
        for (int i = 0; i < a.out_height; i++) {
            const int row = a.top + std::min((int)((i + 0.5f) * high), a.rows - 1);
            uint8_t* to = a.y + ((long)c * a.out_height + i) * a.out_width;
            const uint8_t* from = a.x + ((long)c * a.height + row) * a.width;
            for (int j = 0; j < a.out_width; j++)
                to[j] = inside(a, row) && at[j] >= 0 && at[j] < a.width ? from[at[j]] : 0;
        }
}

}
