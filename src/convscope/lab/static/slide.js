// @ts-check
// Convolution and its transpose, frame by frame, on square planes. No drawing here.

/**
 * @typedef {{size: number, inputs: number, outputs: number, kernel: number, stride: number, padding: number,
 *   dilation: number, groups: number, outpad: number, transposed: boolean}} Settings
 * @typedef {number[][]} Plane
 * @typedef {{row: number, column: number, value: number, weight: number, tap: [number, number], channel: number,
 *   inside: boolean}} Tap
 */

/** @param {Settings} s cells from the first to the last that the window touches */
export function span(s) {
  return s.dilation * (s.kernel - 1) + 1;
}

/** @param {Settings} s cells of the output along an axis; below 1 if there is none */
export function outSize(s) {
  if (s.transposed) return (s.size - 1) * s.stride - 2 * s.padding + span(s) + s.outpad;
  return Math.floor((s.size + 2 * s.padding - span(s)) / s.stride) + 1;
}

/**
 * Why these settings cannot be, as a key of the words and its numbers; null if they can.
 * @param {Settings} s @returns {[string, Record<string, number>] | null}
 */
export function refusal(s) {
  if (s.inputs % s.groups || s.outputs % s.groups) return ["no-groups", { g: s.groups, i: s.inputs, o: s.outputs }];
  if (!s.transposed) return s.size + 2 * s.padding < span(s) ? ["no-window",
    { span: span(s), n: s.size + 2 * s.padding }] : null;
  if (s.outpad >= Math.max(s.stride, s.dilation)) return ["no-outpad",
    { op: s.outpad, most: Math.max(s.stride, s.dilation) - 1 }];
  return outSize(s) < 1 ? ["no-output", { p: s.padding, m: outSize(s) }] : null;
}

/** @param {Settings} s @param {number} channel of the output @returns {number[]} the input channels that it reads */
export function group(s, channel) {
  const size = s.inputs / s.groups;
  const first = Math.floor(channel / (s.outputs / s.groups)) * size;
  return Array.from({ length: size }, (_, i) => first + i);
}

/**
 * The kernel between an input and an output channel: as PyTorch lays weights out, [out][in of the group] or,
 *   transposed,
 * [in][out of the group].
 * @param {Settings} s @param {Plane[][]} weights @param {number} input @param {number} output @returns {Plane}
 */
export function kernelOf(s, weights, input, output) {
  return s.transposed ? weights[input][output % (s.outputs / s.groups)] : weights[output][input % (s.inputs / s.groups)];
}

/**
 * What the window over one output cell reads.
 * @param {Settings} s @param {Plane[]} x @param {Plane[][]} weights @param {number} output channel @param {number} row
 *   @param {number} column
 * @returns {Tap[]}
 */
export function taps(s, x, weights, output, row, column) {
  const found = [];
  for (const channel of group(s, output)) {
    const kernel = kernelOf(s, weights, channel, output);
    for (let i = 0; i < s.kernel; i++) {
      for (let j = 0; j < s.kernel; j++) {
        const r = row * s.stride - s.padding + i * s.dilation;
        const c = column * s.stride - s.padding + j * s.dilation;
        const inside = r >= 0 && c >= 0 && r < s.size && c < s.size;
        found.push({ row: r, column: c, value: inside ? x[channel][r][c] : 0, weight: kernel[i][j],
          tap: /** @type {[number, number]} */ ([i, j]), channel, inside });
      }
    }
  }
  return found;
}

/**
 * The convolution up to and with frame `last`: one output cell a frame, in rows.
 * @param {Settings} s @param {Plane[]} x @param {Plane[][]} weights @param {number} output @param {number} last
 * @returns {(number | null)[][]} null: not reached yet
 */
export function convolved(s, x, weights, output, last) {
  const size = outSize(s);
  return plane(size, (r, c) => (r * size + c > last ? null : taps(s, x, weights, output, r,
    c).reduce((sum, t) => sum + t.value * t.weight, 0)));
}

/**
 * The transpose as a scatter, up to and with frame `last`: each input cell lays its kernel, times its value, on the
 *   output.
 * The answer is the plane before cropping: `padding` cells at each side fall away.
 * @param {Settings} s @param {Plane[]} x @param {Plane[][]} weights @param {number} output @param {number} last
 *   @returns {Plane}
 */
export function scattered(s, x, weights, output, last) {
  const made = plane((s.size - 1) * s.stride + span(s) + s.outpad, () => 0);
  for (const channel of group(s, output)) {
    const kernel = kernelOf(s, weights, channel, output);
    for (let at = 0; at <= Math.min(last, s.size ** 2 - 1); at++) {
      const [r, c] = [Math.floor(at / s.size), at % s.size];
      for (let i = 0; i < s.kernel; i++) {
        for (let j = 0; j < s.kernel; j++) made[r * s.stride + i * s.dilation][c * s.stride + j * s.dilation] += x[channel][r][c] * kernel[i][j];
      }
    }
  }
  return made;
}

/** @param {Settings} s @param {Plane} whole a scattered plane @returns {Plane} without what falls away */
export function cropped(s, whole) {
  const size = outSize(s);
  return plane(size, (r, c) => whole[r + s.padding][c + s.padding]);
}

/**
 * The input with stride - 1 zeros between its cells, and the border that an ordinary convolution needs to give the
 *   transpose.
 * A border below 0 cuts cells off.
 * @param {Settings} s @param {Plane} x @returns {{cells: Plane, real: boolean[][], border: number}}
 */
export function stretched(s, x) {
  const border = span(s) - 1 - s.padding;
  const inner = (s.size - 1) * s.stride + 1;
  const size = inner + 2 * border + s.outpad;
  const at = (/** @type {number} */ i) => ((i - border) % s.stride === 0 && i >= border && i - border < inner ? (i - border) / s.stride : -1);
  return {
    border,
    cells: plane(size, (r, c) => (at(r) < 0 || at(c) < 0 ? 0 : x[at(r)][at(c)])),
    real: Array.from({ length: size }, (_, r) => Array.from({ length: size }, (_, c) => at(r) >= 0 && at(c) >= 0)),
  };
}

/**
 * The transpose as a convolution of the stretched input with the kernel turned by 180 degrees, up to and with frame
 *   `last`.
 * @param {Settings} s @param {Plane[]} x @param {Plane[][]} weights @param {number} output @param {number} last
 * @returns {(number | null)[][]}
 */
export function inserted(s, x, weights, output, last) {
  const size = outSize(s);
  const read = group(s,
    output).map((channel) => ({ cells: stretched(s, x[channel]).cells,
      kernel: turned(kernelOf(s, weights, channel, output)) }));
  return plane(size, (r, c) => {
    if (r * size + c > last) return null;
    let sum = 0;
    for (const { cells, kernel } of read) {
      for (let i = 0; i < s.kernel; i++) {
        for (let j = 0; j < s.kernel; j++) sum += cells[r + i * s.dilation][c + j * s.dilation] * kernel[i][j];
      }
    }
    return sum;
  });
}

/** @param {Plane} kernel @returns {Plane} turned by 180 degrees */
export function turned(kernel) {
  return kernel.map((row) => [...row].reverse()).reverse();
}

/**
 * Each window of the convolution as a column: rows are channel and tap, columns the output cells.
 * @param {Settings} s @param {Plane[]} x @param {Plane[][]} weights @param {number} output
 * @returns {{matrix: number[][], inside: boolean[][], kernel: number[]}}
 */
export function columns(s, x, weights, output) {
  const size = outSize(s);
  const all = Array.from({ length: size * size }, (_, i) => taps(s, x, weights, output, Math.floor(i / size),
    i % size));
  return {
    matrix: all[0].map((_, r) => all.map((list) => list[r].value)),
    inside: all[0].map((_, r) => all.map((list) => list[r].inside)),
    kernel: all[0].map((t) => t.weight),
  };
}

/** @template T @param {number} size @param {(row: number, column: number) => T} cell @returns {T[][]} */
function plane(size, cell) {
  return Array.from({ length: Math.max(0, size) }, (_, r) => Array.from({ length: Math.max(0, size) },
    (_, c) => cell(r, c)));
}

/**
 * Small whole numbers that look random and are the same for the same seed.
 * @param {Settings} s @param {number} seed @returns {{x: Plane[], weights: Plane[][]}}
 */
export function numbers(s, seed) {
  let state = (seed * 2654435761 + 97) >>> 0;
  const next = (/** @type {number} */ low, /** @type {number} */ high) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return low + Math.floor((state / 2 ** 32) * (high - low + 1));
  };
  const [outer, inner] = s.transposed ? [s.inputs, s.outputs / s.groups] : [s.outputs, s.inputs / s.groups];
  return {
    x: Array.from({ length: s.inputs }, () => plane(s.size, () => next(0, 9))),
    weights: Array.from({ length: outer }, () => Array.from({ length: inner },
      () => plane(s.kernel, () => next(-2, 2)))),
  };
}
