// Convolutions in tiles of bfloat16 for training, there and back: odd windows with half of them as padding, stride 1 or
// 2, channels last, of multiples of TILE. Maps are laid on a grid of the output's rows and columns, those of each phase of
// the stride by themselves, with a border of zeros that neighbours share: so a tap is the same step from every place. Each
// thread does its own places or its own tiles of weights from beginning to end: what another core has just written takes
// longer to fetch than to make again.

#include "amx.h"
#include "lanes.h"

#include <utility>

namespace {

struct Conv {
    const Bf16* x;        // pictures x height x width x channels
    const float* weight;  // outputs x size x size x channels
    int pictures, height, width, channels, outputs, size, stride;
};

struct Back {
    const Bf16* grad;  // pictures x rows x columns x outputs
    Bf16* to_x;        // or none, as the next
    float* to_weight;
};

#ifdef TILES
constexpr int AREA = TILE * DEPTH, SQUARE = TILE * TILE, PLACES = 4 * TILE;  // of weights, of sums; places at a time

long whole(long n, long of) { return (n + of - 1) / of; }
__m512i halves(V low, V high) { return (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low); }

// Memory of this thread that lasts from call to call, part after part; for each of the WAYS it is used at once.
template <int WAY> struct Memory {
    Bf16* free;
    Memory(long size) {
        static thread_local std::vector<Bf16> held;
        if ((long)held.size() < size + 8 * DEPTH) held = std::vector<Bf16>(size + 8 * DEPTH);
        free = (Bf16*)(((uintptr_t)held.data() + 63) / 64 * 64);
    }
    Bf16* take(long size) { return std::exchange(free, free + whole(size, DEPTH) * DEPTH); }
};

// Which phase a tap sees, and how far from the place of the output.
struct Tap {
    int number, phase;
    long step;
};
using Taps = std::vector<Tap>;

// A map whose pixels lie on a grid, each phase, of every `stride`-th one, by itself.
struct Map {
    const Bf16* x;
    int height, width, channels, stride, phases;
};

// Four squares of sums of products of two tiles and two, or four and one (N): `first(i)` and `second(i)` tell where these
// lie at step i, and from one of their rows to the next.
template <int N, class First, class Second>
inline void products(long steps, long apart, long next, First first, Second second) {
    for (long i = 0; i < steps; i++) {
        _tile_loadd(6, second(i, 0), next);
        _tile_loadd(4, first(i, 0), apart);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, first(i, 1), apart);
        if (N == 2) {
            _tile_loadd(7, second(i, 1), next);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        } else {
            _tile_dpbf16ps(1, 5, 6);
            _tile_loadd(4, first(i, 2), apart);
            _tile_dpbf16ps(2, 4, 6);
            _tile_loadd(5, first(i, 3), apart);
            _tile_dpbf16ps(3, 5, 6);
        }
    }
}

inline void clear() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

inline void put(float* sums) {
    _tile_stored(0, sums, 4 * TILE);
    _tile_stored(1, sums + SQUARE, 4 * TILE);
    _tile_stored(2, sums + 2 * SQUARE, 4 * TILE);
    _tile_stored(3, sums + 3 * SQUARE, 4 * TILE);
}

struct Run {
    const Conv& a;
    const int half = a.size / 2, taps = a.size * a.size, phases = half ? a.stride * a.stride : 1;
    const int rows = whole(a.height, a.stride), columns = whole(a.width, a.stride), border = whole(half, a.stride);
    const int high = rows + border, pitch = columns + border, ins = a.channels / TILE, outs = a.outputs / TILE;
    const long plane = (long)high * pitch, margin = (long)border * pitch + border;
    const long units = whole(a.pictures * plane - border * pitch, PLACES);
    const bool heavy = (long)taps * a.channels * a.outputs > a.pictures * plane * (a.channels + a.outputs) / 2;
    const int threads = threads_for(units * PLACES * a.outputs * taps);
    const Map x{a.x, a.height, a.width, a.channels, a.stride, phases};
    Map y(const Bf16* y) const { return {y, rows, columns, a.outputs, 1, 1}; }

    // Heavy weights are shared among threads, else places are.
    int sharing(int tiles) const { return heavy ? std::min<int>(threads, whole(tiles, 2)) : 1; }
    int groups(int tiles) const { return std::min<long>(threads / sharing(tiles), units); }

    Taps seen() const {
        Taps found;
        auto phase = [&](int t) { return (t - half) & (a.stride - 1); };
        auto step = [&](int t) { return (t - half - phase(t)) / a.stride; };
        for (int t = 0; t < a.size; t++)
            for (int u = 0; u < a.size; u++)
                found.push_back({t * a.size + u, phase(t) * a.stride + phase(u), (long)step(t) * pitch + step(u)});
        return found;
    }
};

// The places and tiles of one thread, and the rows of the grid that these places see. `depth`: channels of what is laid.
struct Piece : Run {
    const int group, from, to, blocks, next;  // tiles; blocks of weights of a tap, bfloat16 of those of a tile
    const long first, last;                   // places
    const long row = (first - margin + (border + 1) * pitch) / pitch - border - 1, count = (last + margin) / pitch - row + 1;
    const long room = (count * pitch / TILE + 2) * TILE;           // places of a phase, and some zeros
    const long line = whole(room, DEPTH) / 2 * 2 * DEPTH + DEPTH;  // an odd number of lines of cache
    const long origin = first - row * pitch;                       // of the first place

    Piece(const Run& run, int tiles, int depth, int at)
        : Run(run), group(at / sharing(tiles)), from(share(tiles, at)), to(std::min(tiles, share(tiles, at + 1))),
          blocks(whole(depth, DEPTH)), next(taps * blocks * AREA), first(units * group / groups(tiles) * PLACES),
          last(units * (group + 1) / groups(tiles) * PLACES) {}

    // The first tile of a thread's; they go in pairs.
    int share(int tiles, int at) const {
        const int each = sharing(tiles), pairs = whole(tiles, 2), one = at - group * each;
        return pairs * one / each * 2;
    }

    void lay(const Map& m, Bf16* to) const {
        for (int p = 0; p < m.phases; p++)
            for (long r = row; r < row + count; r++) {
                const long n = r / high, i = r % high, y = i * m.stride + p / m.stride, left = p % m.stride;
                const bool there = r >= 0 && n < a.pictures && i < rows && y < m.height;
                const int seen = there ? whole(m.width - left, m.stride) : 0;
                const Bf16* from = m.x + ((n * m.height + y) * m.width + left) * m.channels;
                if (m.stride == 1) to = std::copy_n(from, (long)seen * m.channels, to);
                else
                    for (int j = 0; j < seen; j++, from += m.stride * m.channels) to = std::copy_n(from, m.channels, to);
                const long rest = r + 1 < row + count ? pitch : room - (count - 1) * pitch;
                to = std::fill_n(to, (rest - seen) * m.channels, Bf16{});
            }
    }

    // Weights for each tile of outputs, tap, and DEPTH inputs: pairs of inputs times outputs.
    void pack(Bf16* made) const {
        for (int o = from * TILE; o < to * TILE; o += TILE)
            for (int tap = 0; tap < taps; tap++)
                for (int c = 0; c < a.channels; c += DEPTH, made += AREA) {
                    V pairs[TILE];
                    for (int i = 0; i < TILE; i++) {
                        const float* w = a.weight + ((long)(o + i) * taps + tap) * a.channels + c;
                        pairs[i] = (V)halves(load(w), c + LANES < a.channels ? load(w + LANES) : V{});
                    }
                    transpose(pairs);
                    for (int i = 0; i < TILE; i++) store((float*)made + i * LANES, pairs[i]);
                }
    }

    // And the way back: for each tile of inputs, tap, and DEPTH outputs, pairs of outputs times inputs.
    void pack_back(Bf16* made) const {
        alignas(64) static const uint16_t turns[] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                     8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
        const __m512i in_turns = _mm512_load_si512(turns);
        const long apart = (long)taps * a.channels;
        for (int c = from * TILE; c < to * TILE; c += TILE)
            for (int tap = 0; tap < taps; tap++)
                for (int o = 0; o < blocks * DEPTH; o += 2, made += DEPTH) {
                    const float* w = a.weight + o * apart + tap * a.channels + c;
                    const __m512i pair = o < a.outputs ? halves(load(w), load(w + apart)) : __m512i{};
                    _mm512_storeu_si512(made, _mm512_permutexvar_epi16(in_turns, pair));
                }
    }

    // All places times all tiles, of what is laid from x on. Squares are written while the next ones are summed.
    void multiply(const Bf16* x, int channels, const Taps& some, const Bf16* w, const Map& m, int phase, Bf16* made) const {
        for (int tile = from; tile < to; tile += 2, w += 2 * next)
            tile + 1 < to ? multiply<2>(x, channels, some, w, m, phase, made + tile * TILE)
                          : multiply<1>(x, channels, some, w, m, phase, made + tile * TILE);
    }

    template <int N>
    void multiply(const Bf16* x, int channels, const Taps& some, const Bf16* w, const Map& m, int phase, Bf16* made) const {
        alignas(64) float sums[2][4 * SQUARE];
        int turn = 0;
        for (long q = first; q < last + PLACES / N; q += PLACES / N, turn = 1 - turn) {
            if (q < last) {
                clear();
                for (const Tap& tap : some) {
                    const Bf16* places = x + (tap.phase * room + origin + q - first + tap.step) * channels;
                    const Bf16* weights = w + (long)tap.number * blocks * AREA;
                    products<N>(
                        blocks, 2 * channels, 2 * DEPTH, [=](int b, int m) { return places + m * TILE * channels + b * DEPTH; },
                        [=](int b, int m) { return weights + m * next + b * AREA; });
                }
                put(sums[turn]);
            }
            if (q > first) write<N>(sums[1 - turn], q - PLACES / N, m, phase, made);
        }
    }

    // The squares of PLACES / N places and N tiles, where they are pixels of a map.
    template <int N> void write(const float* sums, long place, const Map& m, int phase, Bf16* made) const {
        const int left = phase % m.stride, seen = std::min<int>(columns, whole(m.width - left, m.stride));
        long n = place / plane, i = place % plane / pitch, j = place % pitch;
        for (int at = 0, next; at < PLACES / N; at = next, j = 0, i++) {
            if (i == high) i = 0, n++;
            next = std::min<long>(PLACES / N, at + pitch - j);
            const long y = i * m.stride + phase / m.stride, end = std::min<long>(next, at + seen - j);
            if (n >= a.pictures || y >= m.height) continue;
            Bf16* pixel = made + ((n * m.height + y) * m.width + j * m.stride + left) * m.channels;
            for (int p = at; p < end; p++, pixel += m.stride * m.channels)
                for (int k = 0; k < N; k++)
                    store(pixel + k * TILE, load(sums + (p / TILE * N + k) * SQUARE + p % TILE * TILE));
        }
    }

    // The inputs of this piece with the places of each channel side by side, a `line` each.
    void transpose_all(const Bf16* x, Bf16* made) const {
        for (int phase = 0; phase < phases; phase++, x += room * a.channels)
            for (long q = 0; q < room; q += LANES)
                for (int c = from * TILE; c < to * TILE; c += TILE) {
                    V block[LANES];
                    for (int i = 0; i < LANES; i++) block[i] = load(x + (q + i) * a.channels + c);
                    transpose(block);
                    for (int i = 0; i < LANES; i++) store(made + ((phase * (to - from) - from) * TILE + c + i) * line + q, block[i]);
                }
    }

    void pair_all(const Bf16* grad, Bf16* made) const {
        for (long q = first; q < last; q += 2, grad += 2 * a.outputs)
            for (int c = 0; c < a.outputs; c += LANES, made += DEPTH)
                store((float*)made, (V)(((U)load(grad + c) >> 16) | (U)load(grad + a.outputs + c)));
    }

    // Calls `found(o, s, sums)` with the gradient of every tile of outputs and of taps times tiles of inputs.
    template <int N, class F> void gradients(const Bf16* x, const Taps& all, const Bf16* pairs, int o, F found) const {
        const int own = to - from, squares = taps * own;
        alignas(64) float sums[4 * SQUARE];
        for (int s = 0; s < squares; s += 4 / N) {
            const Bf16* inputs[4];
            for (int m = 0; m < 4; m++) {
                const int t = std::min(s + m, squares - 1);
                const Tap& tap = all[t / own];
                inputs[m] = x + (tap.phase * own + t % own) * TILE * line + origin + tap.step;
            }
            clear();
            products<N>(
                (last - first) / DEPTH, 2 * line, 4 * a.outputs, [=](long i, int m) { return inputs[m] + i * DEPTH; },
                [=](long i, int m) { return pairs + i * DEPTH * a.outputs + (o + m) * DEPTH; });
            put(sums);
            for (int m = 0; m < 4 && s + m / N < squares; m++) found(o + m % N, s + m / N, sums + m * SQUARE);
        }
    }
};
#endif

}  // namespace

extern "C" {

bool convolved_serves() {
#ifdef TILES
    return has_tiles();
#else
    return false;
#endif
}

#ifdef TILES
void convolved(Conv a, Bf16* y) {
    const Run run{a};
    const Taps all = run.seen();
    const int pieces = run.sharing(run.outs) * run.groups(run.outs);
#pragma omp parallel num_threads(run.threads)
    for (int at = omp_get_thread_num(); at < pieces; at += omp_get_num_threads()) {
        const Piece p(run, run.outs, a.channels, at);
        const long maps = run.phases * p.room * a.channels, weights = (long)(p.to - p.from) * p.next;
        Memory<0> memory(maps + weights);
        Bf16 *x = memory.take(maps), *w = memory.take(weights);
        p.pack(w), p.lay(run.x, x);
        Tiles here;
        p.multiply(x, a.channels, all, w, run.y(y), 0, y);
    }
}

void convolved_back(Conv a, Back to) {
    const Run run{a};
    const Taps all = run.seen();
    Taps back[4];
    for (const Tap& tap : all) back[tap.phase].push_back({tap.number, 0, -tap.step});
    const int groups = run.groups(run.ins), pieces = run.sharing(run.ins) * groups;
    const long size = (long)run.outs * run.taps * run.ins;  // squares of all weights
    Memory<1> shared(groups > 1 && to.to_weight ? 2 * groups * size * SQUARE : 0);
    float* found = (float*)shared.free;
    // Adds up what so many groups found for a square, and writes it as weights lie.
    auto finish = [&](const float* sums, int many, int o, int tap, int c) {
        V total[TILE] = {};
        for (; many > 0; many--, sums += size * SQUARE)
            for (int i = 0; i < TILE; i++) total[i] += load(sums + i * TILE);
        transpose(total);
        for (int i = 0; i < TILE; i++)
            store(to.to_weight + (((long)o * TILE + i) * run.taps + tap) * a.channels + c * TILE, total[i]);
    };
#pragma omp parallel num_threads(run.threads)
    {
        for (int at = omp_get_thread_num(); at < pieces; at += omp_get_num_threads()) {
            const Piece p(run, run.ins, a.outputs, at);
            const int mine = p.to - p.from;
            const long needs[] = {p.room * a.outputs, (long)mine * p.next, run.phases * p.room * a.channels,
                                  run.phases * mine * TILE * p.line, (p.last - p.first) * a.outputs};
            Memory<0> memory(needs[0] + needs[1] + needs[2] + needs[3] + needs[4]);
            Bf16 *grad = memory.take(needs[0]), *w = memory.take(needs[1]), *x = memory.take(needs[2]);
            Bf16 *apart = memory.take(needs[3]), *pairs = memory.take(needs[4]);
            Tiles here;
            p.lay(run.y(to.grad), grad);
            if (to.to_x) p.pack_back(w);
            for (int phase = 0; to.to_x && phase < a.stride * a.stride; phase++)
                p.multiply(grad, a.outputs, back[phase], w, run.x, phase, to.to_x);
            if (!to.to_weight) continue;
            p.lay(run.x, x), p.transpose_all(x, apart), p.pair_all(grad + p.origin * a.outputs, pairs);
            auto keep = [&](int o, int s, const float* sums) {
                const int tap = s / mine, c = p.from + s % mine;
                if (groups == 1) return finish(sums, 1, o, all[tap].number, c);
                std::copy_n(sums, SQUARE, found + (p.group * size + ((long)o * run.taps + tap) * run.ins + c) * SQUARE);
            };
            for (int o = 0; o < run.outs; o += 2)
                o + 1 < run.outs ? p.gradients<2>(apart, all, pairs, o, keep) : p.gradients<1>(apart, all, pairs, o, keep);
        }
        if (groups > 1 && to.to_weight) {
#pragma omp barrier
#pragma omp for schedule(static)
            for (long at = 0; at < size; at++)
                finish(found + at * SQUARE, groups, at / run.ins / run.taps, all[at / run.ins % run.taps].number, at % run.ins);
        }
    }
}
#endif
}
