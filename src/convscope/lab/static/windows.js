// @ts-check
// One value of an operator that reads a patch, or a row: every element, its weight, and what they add up to.
import { flat, place, unflat } from "./store.js";

const SIDE = 12; // of the largest kernel that is shown as a matrix
const CHANNELS = 4;
const TERMS = 16;

/**
 * @typedef {import("./store.js").Store} Store
 * @typedef {import("./store.js").Tensor} Tensor
 * @typedef {{label: string, from: string, value: number, weight: number | null, part: number}} Term
 * @typedef {{x: number, weight: number, inside: boolean, index: number[]}} Element one of the patch
 * @typedef {{source: Tensor, patch: Element[][], sizes: number[], row?: boolean}} Read elements of each channel; sizes of its
 *   axes; whether it is a row of a product of matrices
 */

/** @param {Store} store @param {number | null} id of the bias @param {number} at @returns {Term[]} */
function biasOf(store, id, at) {
  if (id === null) return [];
  const bias = store.tensor(id);
  return [{ label: "bias", from: place(bias, [at]), value: bias.values[at], weight: 1, part: bias.values[at] }];
}

/**
 * A patch of one, two or three axes.
 * @param {Store} store @param {any} recipe @param {number[]} unit @param {number} channel that is wanted first
 * @param {number} size channels of the output
 */
export function fromWindow(store, recipe, unit, channel, size) {
  const source = store.tensor(recipe.source);
  const [, out, ...at] = unit;
  const convolves = "weight" in recipe;
  const inGroup = convolves ? source.shape[1] / recipe.groups : 1;
  const perGroup = convolves ? size / recipe.groups : 1;
  const first = convolves ? Math.floor(out / perGroup) * inGroup : out;
  const weight = convolves ? store.tensor(recipe.weight) : null;
  /** @type {number[][]} */
  const taps = recipe.taps.map((/** @type {number[][]} */ axis, /** @type {number} */ d) => axis[at[d]]);
  const weigh = (/** @type {number} */ i, /** @type {number[]} */ tap) => {
    if (!weight) return tap.reduce((share, k, d) => share * recipe.shares[d][at[d]][k], 1);
    return weight.values[flat(weight.shape, recipe.transposed ? [first + i, out % perGroup, ...tap] : [out, i, ...tap])];
  };
  const sizes = taps.map((axis) => axis.length);
  const count = sizes.reduce((a, b) => a * b, 1);
  const patch = Array.from({ length: inGroup }, (_, i) => Array.from({ length: count }, (__, k) => {
    const tap = unflat(sizes, k);
    const spot = tap.map((j, d) => taps[d][j]);
    const inside = spot.every((p, d) => p >= 0 && p < source.shape[2 + d]);
    const index = [0, first + i, ...spot];
    return { x: inside ? source.values[flat(source.shape, index)] : 0, weight: weigh(i, tap), inside, index };
  }));
  return told({ source, patch, sizes }, recipe.combine, convolves ? biasOf(store, recipe.bias, out) : [], channel);
}

/** @param {Store} store @param {any} recipe @param {number[]} unit */
export function fromRow(store, recipe, unit) {
  const [source, weight] = [store.tensor(recipe.source), store.tensor(recipe.weight)];
  const [row, column] = unit;
  const line = Array.from({ length: source.shape[1] }, (_, i) => ({ x: source.values[row * source.shape[1] + i],
    weight: weight.values[i * weight.shape[1] + column], inside: true, index: [row, i] }));
  return told({ source, patch: [line], sizes: [line.length], row: true }, "sum", biasOf(store, recipe.bias, column), -1);
}

/** @param {Read} read @param {string} combine @param {Term[]} named @param {number} channel that is wanted first */
function told(read, combine, named, channel) {
  const { source, patch, sizes } = read;
  const bias = named.reduce((sum, term) => sum + term.part, 0);
  const all = patch.flat();
  const sums = patch.map((plane) => plane.reduce((sum, e) => sum + e.x * e.weight, 0));
  const winner = all.filter((e) => e.inside).reduce((best, e) => (best.x >= e.x || Number.isNaN(best.x) ? best : e));
  const total = combine === "max" ? winner.x : sums.reduce((a, b) => a + b, 0) + bias;
  const facts = { combine, formula: "", total, bias, named, more_named: 0, channels: patch.length,
    elements: all.length, from_input: source.input };
  if (sizes.length === 2 && Math.max(...sizes) <= SIDE) {
    return { ...facts, matrices: matrices(read, sums, winner, channel), channel_sums: sums };
  }
  const parts = all.map((e) => (combine === "max" ? (e === winner ? e.x : 0) : e.x * e.weight));
  const order = parts.map((_, i) => i).sort((a, b) => Math.abs(parts[b]) - Math.abs(parts[a]) || a - b).slice(0, TERMS);
  const largest = order.map((i) => termOf(read, all[i], i, parts[i]));
  const rest = parts.reduce((a, b) => a + b, 0) - largest.reduce((sum, term) => sum + term.part, 0);
  return { ...facts, largest, rest, others: all.length - largest.length };
}

/** @param {Read} read @param {Element} e @param {number} i its number @param {number} part */
function termOf({ source, sizes, row }, e, i, part) {
  const [channel, ...tap] = unflat([Infinity, ...sizes], i);
  const label = row ? `input ${i}` : `channel ${channel}, tap ${tap.join(",")}`;
  return { label: e.inside ? label : `${label} (padding)`, from: e.inside ? place(source, e.index) : "", value: e.x,
    weight: e.weight, part };
}

/** @param {Read} read @param {number[]} sums @param {Element} winner @param {number} channel */
function matrices({ patch, sizes: [, wide] }, sums, winner, channel) {
  const size = (/** @type {number} */ i) => (Number.isFinite(sums[i]) ? Math.abs(sums[i]) : Infinity);
  const order = sums.map((_, i) => i).sort((a, b) => size(b) - size(a) || a - b).slice(0, CHANNELS);
  if (channel >= 0 && channel < patch.length) order.unshift(...[channel], ...order.splice(0).filter((i) => i !== channel));
  return order.map((i) => {
    const of = (/** @type {(e: Element) => any} */ what) => Array.from({ length: patch[i].length / wide },
      (_, r) => patch[i].slice(r * wide, (r + 1) * wide).map(what));
    const at = patch[i].indexOf(winner);
    return { channel: i, patch: of((e) => e.x), kernel: of((e) => e.weight), products: of((e) => e.x * e.weight),
      inside: of((e) => e.inside), at: patch[i][0].index, winner: at < 0 ? null : [Math.floor(at / wide), at % wide] };
  });
}
