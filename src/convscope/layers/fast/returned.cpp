// Maps returned to twice their size by a transposed convolution (kernel 4, stride 2, padding 1), and coarser ones
// added that are interpolated bilinearly; there and back. Sums are float32.

#include "returned.h"
#include "returned_tiles.h"

namespace {

template <class T, int LD> struct Run {
    const Returned& a;
    const int K = a.channels, C = a.classes, W = a.width, H = a.height, blocks = (C + SOME - 1) / SOME;
    const T* x = (const T*)a.x;
    Between down{a.rows, 2 * H}, along{a.columns, 2 * W};

    float weight(int k, int c, int ky, int kx) const { return c < C ? a.weight[((k * C + c) * TAPS + ky) * TAPS + kx] : 0; }
    const T* row_of_x(long n, int i) const { return x + (n * H + i) * W * K; }

    // Forward: for each block of classes, parity of row and column, and tap: channels x SOME.
    std::vector<float> packed() const {
        static constexpr int TAP[2][2] = {{1, 3}, {2, 0}};  // of the same place, and of the one before or behind
        std::vector<float> w(blocks * 16 * K * SOME);
        float* to = w.data();
        for (int b = 0; b < blocks; b++)
            for (int at = 0; at < 16; at++)
                for (int k = 0; k < K; k++)
                    for (int m = 0; m < SOME; m++)
                        *to++ = weight(k, b * SOME + m, TAP[at / 8][at / 2 % 2], TAP[at / 4 % 2][at % 2]);
        return w;
    }

    // SOME classes of every second column of a row.
    void sums(const float* const* rows, int px, const float* w, float* to) const {
        for (int j = 0; j < W; j += WIDE) {
            V s[SOME][2] = {};
            const float* by = w;
            for (int t = 0; t < 4; t++) {
                const float* from = rows[t / 2] + 1 + j + (t % 2 ? 2 * px - 1 : 0);
                for (int k = 0; k < K; k++, by += SOME, from += LD) {
                    V u = load(from), v = load(from + LANES);
                    for (int m = 0; m < SOME; m++) s[m][0] += u * by[m], s[m][1] += v * by[m];
                }
            }
            for (int m = 0; m < SOME; m++) store(to + m * LD + j, s[m][0]), store(to + m * LD + j + LANES, s[m][1]);
        }
    }

    // Both halves of a row's columns, what is interpolated, and the bias.
    void write(const float* even, const float* odd, const float* coarse, int row, float bias, float* y) const {
        constexpr I first = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23}, second = first + 8;
        const float *above = coarse + (long)down.at[row] * 2 * W, *below = a.rows > 1 ? above + 2 * W : above;
        float part = down.next[row], rest = 1 - part;
        int j = 0;
        for (; j + LANES <= W; j += LANES) {
            V u = load(even + j), v = load(odd + j);
            auto put = [&](int at, V sum) { store(y + at, sum + (load(above + at) * rest + (load(below + at) * part + bias))); };
            put(2 * j, __builtin_shuffle(u, v, first)), put(2 * j + LANES, __builtin_shuffle(u, v, second));
        }
        for (int at = 2 * j; at < 2 * W; at++)
            y[at] = (at % 2 ? odd : even)[at / 2] + (above[at] * rest + (below[at] * part + bias));
    }

    void forward() const {
        std::vector<float> w = packed(), wide((size_t)a.pictures * C * a.rows * 2 * W);
#pragma omp parallel
        {
#pragma omp for schedule(static)
            for (int r = 0; r < a.pictures * C * a.rows; r++) {
                const float* from = a.coarse + (long)r * a.columns;
                for (int j = 0; j < 2 * W; j++) {
                    const float* f = from + along.at[j];
                    wide[(long)r * 2 * W + j] = a.columns > 1 ? f[0] + along.next[j] * (f[1] - f[0]) : f[0];
                }
            }
            Rows<3> rows((long)K * LD);
            std::vector<float> found(2 * SOME * LD);
            Part part((long)a.pictures * H);
            for (long r = part.first; r < part.first + part.size; r++) {
                long n = r / H, i = r % H;
                auto row = [&](int at) {
                    return rows.at(n, at, H, [&](float* to, long) { spread<LD>(row_of_x(n, at), W, K, to); });
                };
                for (int py = 0; py < 2; py++) {
                    const float* taken[] = {row(i), row(py ? i + 1 : i - 1)};
                    for (int b = 0; b < blocks; b++) {
                        for (int px = 0; px < 2; px++)
                            sums(taken, px, &w[((b * 2 + py) * 2 + px) * 4 * K * SOME], &found[px * SOME * LD]);
                        for (int m = 0; m < SOME && b * SOME + m < C; m++) {
                            long plane = n * C + b * SOME + m;
                            const float* even = &found[m * LD];
                            write(even, even + SOME * LD, &wide[plane * a.rows * 2 * W], 2 * i + py,
                                  a.bias ? a.bias[b * SOME + m] : 0, a.y + (plane * 2 * H + 2 * i + py) * 2 * W);
                        }
                    }
                }
            }
        }
    }

    // Of one plane of the gradient: what interpolation hands back, and the sum.
    double hand_back(const float* grad, float* to) const {
        const int blocks = (a.rows + LANES - 1) / LANES, far = (2 * W + LANES - 1) / LANES * LANES;
        std::vector<float> rows((size_t)(blocks * LANES + 1) * far), columns((size_t)(a.columns + 1) * LANES);
        for (int i = 0; i < 2 * H; i++) {
            float *above = &rows[(size_t)down.at[i] * far], *below = above + far, part = down.next[i];
            const float* g = grad + (long)i * 2 * W;
            for (int j = 0; j < 2 * W; j++) above[j] += g[j] * (1 - part), below[j] += g[j] * part;
        }
        double sum = 0;
        for (int r = 0; r < a.rows; r += LANES) {
            std::fill(columns.begin(), columns.end(), 0.f);
            for (int j = 0; j < 2 * W; j += LANES) {
                V v[LANES];
                for (int i = 0; i < LANES; i++) v[i] = load(&rows[(size_t)(r + i) * far + j]);
                exchange<1>(v), exchange<2>(v), exchange<4>(v), exchange<8>(v);
                for (int i = 0; i < LANES && j + i < 2 * W; i++) {
                    float* to = &columns[along.at[j + i] * LANES];
                    V next = v[i] * along.next[j + i];
                    store(to, load(to) + v[i] - next), store(to + LANES, load(to + LANES) + next);
                }
            }
            for (int i = 0; i < LANES && r + i < a.rows; i++)
                for (int q = 0; q < a.columns; q++, to++) *to = columns[q * LANES + i], sum += *to;
        }
        return sum;
    }

    // The gradient of LANES channels of a row: w has LANES of each row's tap, class and column's tap.
    void inputs(const float* const* rows, const float* w, T* to) const {
        for (int j = 0; j < W; j += LANES) {
            V s[LANES] = {};
            const float* by = w;
            for (int ky = 0; ky < TAPS; ky++)
                for (int at = 0; at < C * TAPS; at++, by += LANES) {
                    const float* from = rows[ky] + column(at) + j;
                    V v = load(by);
                    for (int m = 0; m < LANES; m++) s[m] += v * from[m];
                }
            for (int m = 0; m < LANES && j + m < W; m++) store(to + (long)(j + m) * K, s[m]);
        }
    }

    static constexpr int column(int at) {  // where a class's tap begins in a row of `part_columns`
        constexpr int FROM[TAPS] = {LD, 1, LD + 1, 2};
        return at / TAPS * 2 * LD + FROM[at % TAPS];
    }

    // What a row adds to the gradient of SOME classes' weights, of LANES channels and one row's tap.
    void weights(const float* row, const T* from, float* to) const {
        constexpr int MANY = SOME * TAPS;
        V s[MANY];
        for (int m = 0; m < MANY; m++) s[m] = load(to + m * LANES);
        for (int j = 0; j < W; j++) {
            V v = load(from + (long)j * K);
#pragma GCC unroll 24
            for (int m = 0; m < MANY; m++) s[m] += v * row[column(m) + j];
        }
        for (int m = 0; m < MANY; m++) store(to + m * LANES, s[m]);
    }

    // What interpolation and the bias are handed back.
    void hand_back(const Back& to) const {
        std::vector<double> sums(a.pictures * C);
#pragma omp parallel for schedule(static)
        for (int p = 0; p < a.pictures * C; p++)
            sums[p] = hand_back(a.y + (long)p * 4 * H * W, to.to_coarse + (long)p * a.rows * a.columns);
        for (int c = 0; c < C; c++) {
            double s = 0;
            for (int n = 0; n < a.pictures; n++) s += sums[n * C + c];
            to.to_bias[c] = s;
        }
    }

    void backward(const Back& to) const {
        const int groups = K / LANES, block = SOME * TAPS * LANES, own = groups * TAPS * blocks * block;
        std::vector<float> w((size_t)groups * TAPS * C * TAPS * LANES), found((size_t)omp_get_max_threads() * own);
        for (int g = 0, at = 0; g < groups; g++)
            for (int ky = 0; ky < TAPS; ky++)
                for (int c = 0; c < C * TAPS; c++)
                    for (int l = 0; l < LANES; l++) w[at++] = weight(g * LANES + l, c / TAPS, ky, c % TAPS);
#pragma omp parallel
        {
            Rows<4> rows((long)blocks * SOME * 2 * LD);
            float* sum = &found[(size_t)omp_get_thread_num() * own];
            Part part((long)a.pictures * H);
            for (long r = part.first; r < part.first + part.size; r++) {
                long n = r / H, i = r % H;
                const float* taken[TAPS];
                for (int ky = 0; ky < TAPS; ky++)
                    taken[ky] = rows.at(n, 2 * i - 1 + ky, 2 * H, [&](float* made, long row) {
                        for (int c = 0; c < C; c++)
                            part_columns<LD>(a.y + ((n * C + c) * 2 * H + row % (2 * H)) * 2 * W, W, made + c * 2 * LD);
                    });
                for (int g = 0; g < groups; g++) {
                    long at = (n * H + i) * W * K + g * LANES;
                    inputs(taken, &w[(size_t)g * TAPS * C * TAPS * LANES], (T*)to.to_x + at);
                    for (int ky = 0; ky < TAPS; ky++)
                        for (int b = 0; b < blocks; b++)
                            weights(taken[ky] + b * SOME * 2 * LD, x + at, sum + ((g * TAPS + ky) * blocks + b) * block);
                }
            }
        }
        for (int k = 0; k < K; k++)
            for (int c = 0; c < C; c++)
                for (int t = 0; t < TAPS * TAPS; t++) {
                    long at = (((k / LANES * TAPS + t / TAPS) * blocks + c / SOME) * SOME + c % SOME) * TAPS + t % TAPS;
                    float s = 0;
                    for (size_t p = at * LANES + k % LANES; p < found.size(); p += own) s += found[p];
                    to.to_weight[(k * C + c) * TAPS * TAPS + t] = s;
                }
    }
};

// `run` with how far rows lie apart; `returned_fits` tells whether it is far enough.
template <class F> void for_width(int width, F run) {
    if (width <= 64) run(std::integral_constant<int, 64 + LANES>());
    else if (width <= 128) run(std::integral_constant<int, 128 + LANES>());
    else run(std::integral_constant<int, 256 + LANES>());
}

}  // namespace

extern "C" {

bool returned_fits(int width, int channels, int classes) {
    return width <= 256 && channels % LANES == 0 && channels <= 64 && classes <= 64;
}

void returned(Returned a, bool half) {
    for_width(a.width, [&](auto far) {
        half ? Run<Bf16, far()>{a}.forward() : Run<float, far()>{a}.forward();
    });
}

void returned_backward(Returned a, Back to, bool half) {
    for_width(a.width, [&](auto far) {
        Run<Bf16, far()> halves{a};
        halves.hand_back(to);
#ifdef TILES
        if (half && InTiles::serves(a)) return InTiles{a, to}.run();
#endif
        half ? halves.backward(to) : Run<float, far()>{a}.backward(to);
    });
}

}
