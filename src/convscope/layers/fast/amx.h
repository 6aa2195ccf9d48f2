// Tiles of bfloat16, or of bytes, that the processor multiplies as matrices (AMX), where it does and the system lets it.

#pragma once

#include <algorithm>

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__) && defined(__AVX512BF16__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#define TILES 1
#endif

namespace {

constexpr int TILE = 16, DEPTH = 32;  // rows of a tile, bfloat16 in a row

#ifdef TILES
// Whether the system lets this process use tiles.
inline bool has_tiles() {
    static const bool granted = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
    return granted;
}

// Tiles as they are used here; at the end they are what they were, since other libraries remember how they left them.
struct Tiles {
    struct alignas(64) Config {
        unsigned char palette = 1, rest[15] = {};
        unsigned short bytes[16] = {};
        unsigned char rows[16] = {};
        Config() { std::fill_n(bytes, 8, 2 * DEPTH), std::fill_n(rows, 8, TILE); }
    };
    alignas(64) char before[64];
    Tiles() {
        static const Config ours;
        _tile_storeconfig(before);
        _tile_loadconfig(&ours);
    }
    ~Tiles() { _tile_loadconfig(before); }
};
#endif

}  // namespace
