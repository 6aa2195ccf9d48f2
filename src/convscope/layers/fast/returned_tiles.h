// The way back of `returned.cpp` where the processor multiplies tiles of bfloat16.

#pragma once

#include "amx.h"
#include "returned.h"

namespace {

#ifdef TILES
// The gradients of input and weights in tiles, of bfloat16, for up to TILE classes. A row of the gradient lies as columns
// of TILE classes, one of zeros before the first; and again by tap of a column, in pairs of pixels, as products over
// pixels read it.
struct InTiles {
    const Returned& a;
    const Back& to;
    static constexpr int AREA = TILE * DEPTH, SUMS = TILE * TILE;
    const int K = a.channels, C = a.classes, W = a.width, H = a.height, groups = K / LANES;
    const int wide = (W + DEPTH - 1) / DEPTH * DEPTH, pairs = wide / 2 * DEPTH;  // of one tap
    const long columns = (2 * wide + 4) * TILE, room = columns + TAPS * pairs;

    static bool serves(const Returned& a) { return a.classes <= TILE && a.width % (LANES / 2) == 0 && has_tiles(); }

    float weight(int k, int c, int t) const { return c < C ? a.weight[(k * C + c) * TAPS * TAPS + t] : 0; }

    // For each group, row's tap and two columns' taps: a tile of pairs of classes times channels.
    std::vector<Bf16> packed() const {
        std::vector<float> w;
        for (int g = 0; g < groups; g++)
            for (int t = 0; t < TAPS * TAPS; t++)
                for (int c = 0; c < TILE; c += 2)
                    for (int l = 0; l < LANES; l++)
                        for (int b = 0; b < 2; b++) w.push_back(weight(g * LANES + l, c + b, t));
        std::vector<Bf16> halves(w.size());
        for (size_t i = 0; i < w.size(); i += LANES) store(&halves[i], load(&w[i]));
        return halves;
    }

    void lay_out(const float* row, Bf16* made) const {
        for (int j = 0; j < 2 * W; j += LANES) {
            V rows[LANES];
            for (int c = 0; c < LANES; c++) rows[c] = c < C ? load(row + (long)c * 4 * H * W + j) : V{};
            transpose(rows);
            for (int i = 0; i < LANES; i++) store(made + (j + i + 1) * TILE, rows[i]);
        }
        Bf16* pair = made + columns;
        for (int kx = 0; kx < TAPS; kx++)
            for (int j = 0; j < wide; j += 2, pair += DEPTH) {
                const Bf16* left = made + (2 * j + kx) * TILE;
                store((float*)pair, (V)(((U)load(left) >> 16) | (U)load(left + 2 * TILE)));
            }
    }

    void inputs(const Bf16* const* rows, const Bf16* w, Bf16* out) const {
        alignas(64) float sums[SUMS];
        for (int j = 0; j < W; j += TILE) {
            _tile_zero(0);
            for (int t = 0; t < 2 * TAPS; t++) {
                _tile_loadd(4, rows[t / 2] + (2 * j + t % 2 * 2) * TILE, 4 * TILE);
                _tile_loadd(6, w + t * AREA, 2 * DEPTH);
                _tile_dpbf16ps(0, 4, 6);
            }
            _tile_stored(0, sums, 4 * TILE);
            for (int m = 0; m < TILE && j + m < W; m++) store(out + (long)(j + m) * K, load(sums + m * TILE));
        }
    }

    void weights(const Bf16* row, const Bf16* x, float* sums) const {
        auto take = [&](int q, int kx) { _tile_loadd(6, row + columns + kx * pairs + q * AREA, 2 * DEPTH); };
        _tile_loadd(0, sums, 4 * TILE);
        _tile_loadd(1, sums + SUMS, 4 * TILE);
        _tile_loadd(2, sums + 2 * SUMS, 4 * TILE);
        _tile_loadd(3, sums + 3 * SUMS, 4 * TILE);
        for (int q = 0; q < wide / DEPTH; q++) {
            _tile_loadd(4, x + q * DEPTH, 2 * wide);
            take(q, 0);
            _tile_dpbf16ps(0, 4, 6);
            take(q, 1);
            _tile_dpbf16ps(1, 4, 6);
            take(q, 2);
            _tile_dpbf16ps(2, 4, 6);
            take(q, 3);
            _tile_dpbf16ps(3, 4, 6);
        }
        _tile_stored(0, sums, 4 * TILE);
        _tile_stored(1, sums + SUMS, 4 * TILE);
        _tile_stored(2, sums + 2 * SUMS, 4 * TILE);
        _tile_stored(3, sums + 3 * SUMS, 4 * TILE);
    }

    void channels_apart(const Bf16* x, Bf16* made) const {
        for (int j = 0; j < wide; j += LANES) {
            V rows[LANES];
            for (int i = 0; i < LANES; i++) rows[i] = j + i < W ? load(x + (long)(j + i) * K) : V{};
            transpose(rows);
            for (int i = 0; i < LANES; i++) store(made + i * wide + j, rows[i]);
        }
    }

    void run() const {
        const std::vector<Bf16> w = packed();
        const size_t own = (size_t)groups * TAPS * TAPS * SUMS;
        std::vector<float> found(omp_get_max_threads() * own);
#pragma omp parallel
        {
            Tiles here;
            Rows<4> rows(room / 2);
            std::vector<Bf16> apart((size_t)LANES * wide);
            float* sums = &found[omp_get_thread_num() * own];
            Part part((long)a.pictures * H);
            for (long r = part.first; r < part.first + part.size; r++) {
                const long n = r / H, i = r % H;
                const Bf16* taken[TAPS];
                for (int ky = 0; ky < TAPS; ky++)
                    taken[ky] = (const Bf16*)rows.at(n, 2 * i - 1 + ky, 2 * H, [&](float* made, long row) {
                        lay_out(a.y + (n * C * 2 * H + row % (2 * H)) * 2 * W, (Bf16*)made);
                    });
                for (int g = 0; g < groups; g++) {
                    const long at = r * W * K + g * LANES;
                    inputs(taken, &w[(size_t)g * 2 * TAPS * AREA], (Bf16*)to.to_x + at);
                    channels_apart((const Bf16*)a.x + at, apart.data());
                    for (int ky = 0; ky < TAPS; ky++)
                        weights(taken[ky], apart.data(), sums + (size_t)(g * TAPS + ky) * TAPS * SUMS);
                }
            }
        }
        for (int k = 0; k < K; k++)
            for (int c = 0; c < C; c++)
                for (int t = 0; t < TAPS * TAPS; t++) {
                    float s = 0;
                    size_t at = ((size_t)(k / LANES * TAPS * TAPS + t) * TILE + k % LANES) * TILE + c;
                    for (size_t p = at; p < found.size(); p += own) s += found[p];
                    to.to_weight[(k * C + c) * TAPS * TAPS + t] = s;
                }
    }
};
#endif

}  // namespace
