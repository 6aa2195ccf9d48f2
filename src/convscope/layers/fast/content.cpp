// A number made of all that an array holds, by which a change of it is told, at the speed of memory.

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

typedef uint64_t Words __attribute__((vector_size(64)));

constexpr uint64_t ODD = 0x9e3779b97f4a7c15, APART = 0xd6e8feb86659fd93;
constexpr int CHAINS = 8;        // that do not wait for each other
constexpr long PIECE = 1 << 15;  // bytes that one thread goes through at a time
constexpr long FEW = 2;          // pieces that one thread goes through sooner than two

// For either of the two each value of the other gives another result: a change of one alone is always told.
template <class T> T mixed(T state, T word) {
    state ^= word;
    return (state << 23 | state >> 41) * ODD;
}

uint64_t piece(const char* from, long bytes, uint64_t begin) {
    Words chains[CHAINS], words = Words{1, 2, 3, 4, 5, 6, 7, 8} * ODD + begin;
    for (auto& chain : chains) chain = words, words += APART;  // no two alike, so that equal changes do not cancel
    for (; bytes >= (long)sizeof chains; bytes -= sizeof chains)
#pragma GCC unroll 8
        for (auto& chain : chains) memcpy(&words, from, 64), from += 64, chain = mixed(chain, words);
    for (auto& chain : chains) {
        if (bytes <= 0) break;
        words = Words{};
        memcpy(&words, from, std::min(bytes, 64L)), from += 64, bytes -= 64, chain = mixed(chain, words);
    }
    for (int half = CHAINS / 2; half; half /= 2)
        for (int c = 0; c < half; c++) chains[c] = mixed(mixed(chains[c], Words{}), chains[c + half]);
    for (int l = 0; l < 8; l++) begin = mixed(begin, (uint64_t)chains[0][l]);
    return begin;
}

}  // namespace

// The same for every number of threads.
extern "C" uint64_t content(const char* from, long bytes) {
    if (bytes <= PIECE) return piece(from, bytes, ODD);
    long pieces = (bytes + PIECE - 1) / PIECE;
    uint64_t sum = 0;
#pragma omp parallel for schedule(static) reduction(+ : sum) if (pieces > FEW)
    for (long p = 0; p < pieces; p++) sum += piece(from + p * PIECE, std::min(PIECE, bytes - p * PIECE), (p + 1) * ODD);
    return sum;
}
