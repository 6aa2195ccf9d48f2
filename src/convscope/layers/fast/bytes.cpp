// Layers that read or write bytes: whole numbers from 0 to 255, each worth the scale of its array. Their products with
// weights of signed bytes are summed exactly; what lies in no bytes is bfloat16.

#include "bands.h"

namespace {

enum Types { X_BYTES = 1, Y_BYTES = 2, OTHER_BYTES = 4 };  // of a layer's arrays

#ifdef TILES
// Two rows of SIDE bytes: four vectors of values, to the nearest of 0 to 255.
template <class Value> void store_two(Byte* first, Byte* second, Value value) {
    auto two = [&](int i) {
        return _mm512_packs_epi32(_mm512_cvtps_epi32((__m512)value(i)), _mm512_cvtps_epi32((__m512)value(i + 1)));
    };
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i bytes = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(two(0), two(2)));
    _mm256_storeu_si256((__m256i*)first, _mm512_castsi512_si256(bytes));
    _mm256_storeu_si256((__m256i*)second, _mm512_extracti64x4_epi64(bytes, 1));
}
#else
template <class Value> void store_two(Byte*, Byte*, Value) {}  // there are no sums to store
#endif

// Sums of inputs of type T become outputs: each times the factor of its channel, plus a bias, plus `share` of another
// array, within bounds; all in units of the outputs.
template <class T> struct Rounded {
    void* y;
    const float *factors, *bias;
    const void* other;
    float share, low, high;
    long apart;
    int types;

    template <int N> void put(const float* sums, long at, int o, int count) const {
        auto to = [&](auto* y) {
            if (!other) return rows<N>(sums, y, y, at, o, count, std::false_type{});
            types & OTHER_BYTES ? rows<N>(sums, y, (const Byte*)other, at, o, count, std::true_type{})
                                : rows<N>(sums, y, (const Half*)other, at, o, count, std::true_type{});
        };
        types & Y_BYTES ? to((Byte*)y) : to((Half*)y);
    }

    template <int N, class Y, class O, class Added>
    void rows(const float* sums, Y* y, const O* other, long at, int o, int count, Added) const {
        constexpr int VECTORS = N * TILE / LANES;
        using V = Vec<LANES>;
        const V least = V{} + low, most = V{} + high, part = V{} + share;
        V factor[VECTORS], more[VECTORS];
#pragma GCC unroll 8
        for (int i = 0; i < VECTORS; i++)
            factor[i] = load<LANES>(factors + o + i * LANES), more[i] = load<LANES>(bias + o + i * LANES);
        auto value = [&](int r, long at, int i) {
            V v = load<LANES>(sums + r * SIDE + i * LANES);
            if constexpr (std::is_same_v<T, Byte>) v = __builtin_convertvector((typename Vector<LANES>::Mask)v, V);
            v = v * factor[i] + more[i];
            if constexpr (Added::value) v += load<LANES>(other + at + i * LANES) * part;
            return v;
        };
        const long step = apart;
        int r = 0;
        if constexpr (std::is_same_v<Y, Byte> && N * TILE == SIDE)
            for (; r + 1 < count; r += 2, at += 2 * step)
                store_two(y + at, y + at + step, [&](int i) { return value(r + i / 2, at + i / 2 * step, i % 2); });
        for (; r < count; r++, at += step) {
            V v[VECTORS];
#pragma GCC unroll 8
            for (int i = 0; i < VECTORS; i++) v[i] = smaller<LANES>(larger<LANES>(value(r, at, i), least), most);
            if constexpr (std::is_same_v<Y, Half>)
                store_all<VECTORS>(y + at, v);
            else
                for (int i = 0; i < VECTORS; i++) store<LANES>(y + at + i * LANES, v[i]);
        }
    }
};

// The largest of each window of an output row.
template <int L> void largest(const Byte* x, Byte* y, const Shape& s, const Window& k, int n, int i) {
    typedef typename Vector<L>::Bytes Some;
    int top = i * k.sh - k.ph;
    Taps down(top, s.h, k.kh, k.dh);
    for (int j = 0; j < s.out_w; j++, y += s.out_c) {
        int left = j * k.sw - k.pw;
        Taps along(left, s.w, k.kw, k.dw);
        for (int c = 0; c < s.c; c += L) {
            typename Vector<L>::Bytes best{};
            for (int t = down.first; t < down.last; t++)
                for (int u = along.first; u < along.last; u++) {
                    auto seen = *(const Some*)(x + (((long)n * s.h + top + t * k.dh) * s.w + left + u * k.dw) * s.c + c);
                    best = seen > best ? seen : best;
                }
            *(Some*)(y + c) = best;
        }
    }
}

template <class T> void in_tiles(const T* x, const T* w, const Rounded<T>& end, const Shape& s, const Window& k, int groups) {
    if (is_pointwise(k, groups) && s.c % depth<T> + s.out_c % SIDE == 0)
        return in_place(x, w, s.n * s.h * s.w, s.c, s.out_c, end);
    in_bands(LayerOf<T>(x, (const float*)w, nullptr, s, k), groups, end);
}

}  // namespace

extern "C" {

// numbers: a factor for each output, what is added to each, and the factor of what `after` adds.
void tiled_bytes(const void* x, const void* w, const float* numbers, void* y, Shape s, Window k, int groups,
                 AfterOf<void> after, int types) {
    const float* bias = numbers + s.out_c;
    auto end = [&](auto number) {
        return Rounded<decltype(number)>{y, numbers, bias, after.other, bias[s.out_c], after.low, after.high, s.out_c, types};
    };
    types & X_BYTES ? in_tiles((const Byte*)x, (const Byte*)w, end(Byte{}), s, k, groups)
                    : in_tiles((const Half*)x, (const Half*)w, end(Half{}), s, k, groups);
}

void max_pool_bytes(const Byte* x, Byte* y, Shape s, Window k) {
#pragma omp parallel for schedule(static)
    for (int i = 0; i < s.n * s.out_h; i++) {
        Byte* to = y + (long)i * s.out_w * s.out_c;
        auto row = s.c % 64 == 0 ? largest<64> : s.c % 32 == 0 ? largest<32> : largest<16>;
        row(x, to, s, k, i / s.out_h, i % s.out_h);
    }
}

// To the nearest of 0 to 255, in units of 1 / factor.
void to_bytes(const Half* x, Byte* y, long count, float factor) {
#pragma omp parallel for schedule(static)
    for (long i = 0; i < count / LANES; i++) {
        Vec<LANES> v = load<LANES>(x + i * LANES) * factor;
        store<LANES>(y + i * LANES, smaller<LANES>(larger<LANES>(v, Vec<LANES>{}), Vec<LANES>{} + 255.f));
    }
}
}  // extern "C"
