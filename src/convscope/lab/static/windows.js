// @ts-check
// One value of an operator that reads a patch, or a row: every element, its weight, and what they add up to.
import { flat, place } from "./store.js";

const SIDE = 12; // of the largest kernel that is shown as a matrix
const CHANNELS = 4;
const TERMS = 16;

/**
 * @typedef {import("./store.js").Store} Store
 * @typedef {import("./store.js").Tensor} Tensor
 * @typedef {{label: string, from: string, value: number, weight: number | null, part: number}} Term
 * @typedef {{x: number, weight: number, inside: boolean, index: number[]}} Element one of the patch
 */

/** @param {Store} store @param {number | null} id of the bias @param {number} at @returns {Term[]} */
function biasOf(store, id, at) {
  if (id === null) return [];
  const bias = store.tensor(id);
  return [{ label: "bias", from: place(bias, [at]), value: bias.values[at], weight: 1, part: bias.values[at] }];
}

/**
 * @param {Store} store @param {any} recipe @param {number[]} unit @param {number} channel that is wanted first
 * @param {number} size channels of the output
 */
export function fromWindow(store, recipe, unit, channel, size) {
  const source = store.tensor(recipe.source);
  const [, out, r, c] = unit;
  const convolves = "weight" in recipe;
  const inGroup = convolves ? source.shape[1] / recipe.groups : 1;
  const perGroup = convolves ? size / recipe.groups : 1;
  const first = convolves ? Math.floor(out / perGroup) * inGroup : out;
  const weight = convolves ? store.tensor(recipe.weight) : null;
  const [rows, columns] = [recipe.rows[r], recipe.columns[c]];
  const weigh = (/** @type {number} */ i, /** @type {number} */ ky, /** @type {number} */ kx) => {
    if (!weight) return recipe.row_weights[r][ky] * recipe.column_weights[c][kx];
    const at = recipe.transposed ? [first + i, out % perGroup, ky, kx] : [out, i, ky, kx];
    return weight.values[flat(weight.shape, at)];
  };
  const patch = Array.from({ length: inGroup }, (_, i) => rows.map((/** @type {number} */ row,
    /** @type {number} */ ky) => columns.map((/** @type {number} */ column, /** @type {number} */ kx) => {
    const inside = row >= 0 && column >= 0 && row < source.shape[2] && column < source.shape[3];
    const index = [0, first + i, row, column];
    return { x: inside ? source.values[flat(source.shape, index)] : 0, weight: weigh(i, ky, kx), inside, index };
  })));
  return told(source, patch, recipe.combine, convolves ? biasOf(store, recipe.bias, out) : [], channel);
}

/** @param {Store} store @param {any} recipe @param {number[]} unit */
export function fromRow(store, recipe, unit) {
  const [source, weight] = [store.tensor(recipe.source), store.tensor(recipe.weight)];
  const [row, column] = unit;
  const line = Array.from({ length: source.shape[1] }, (_, i) => ({ x: source.values[row * source.shape[1] + i],
    weight: weight.values[i * weight.shape[1] + column], inside: true, index: [row, i] }));
  return told(source, [[line]], "sum", biasOf(store, recipe.bias, column), -1, true);
}

/**
 * @param {Tensor} source @param {Element[][][]} patch channels, rows, columns @param {string} combine @param {Term[]} named
 * @param {number} channel @param {boolean} [row] whether it is one, and so no matrix
 */
function told(source, patch, combine, named, channel, row = false) {
  const bias = named.reduce((sum, term) => sum + term.part, 0);
  const all = patch.flat(2);
  const sums = patch.map((plane) => plane.flat().reduce((sum, e) => sum + e.x * e.weight, 0));
  const winner = all.filter((e) => e.inside).reduce((best, e) => (best.x >= e.x || Number.isNaN(best.x) ? best : e));
  const total = combine === "max" ? winner.x : sums.reduce((a, b) => a + b, 0) + bias;
  const facts = { combine, formula: "", total, bias, named, more_named: 0, channels: patch.length,
    elements: all.length, from_input: source.input };
  if (!row && Math.max(patch[0].length, patch[0][0].length) <= SIDE) {
    return { ...facts, matrices: matrices(patch, sums, winner, channel), channel_sums: sums };
  }
  const part = (/** @type {Element} */ e) => (combine === "max" ? (e === winner ? e.x : 0) : e.x * e.weight);
  const parts = all.map(part);
  const order = parts.map((_, i) => i).sort((a, b) => Math.abs(parts[b]) - Math.abs(parts[a]) || a - b).slice(0, TERMS);
  const largest = order.map((i) => termOf(source, patch, i, parts[i], row));
  const rest = parts.reduce((a, b) => a + b, 0) - largest.reduce((sum, term) => sum + term.part, 0);
  return { ...facts, largest, rest, others: all.length - largest.length };
}

/** @param {Tensor} source @param {Element[][][]} patch @param {number} i @param {number} part @param {boolean} row */
function termOf(source, patch, i, part, row) {
  const e = patch.flat(2)[i];
  const [tall, wide] = [patch[0].length, patch[0][0].length];
  const at = row ? [i] : [Math.floor(i / wide) % tall, i % wide];
  const label = `channel ${Math.floor(i / (tall * wide))}, tap ${at.join(",")}`;
  return { label: e.inside ? label : `${label} (padding)`, from: e.inside ? place(source, e.index) : "", value: e.x,
    weight: e.weight, part };
}

/** @param {Element[][][]} patch @param {number[]} sums @param {Element} winner @param {number} channel */
function matrices(patch, sums, winner, channel) {
  const size = (/** @type {number} */ i) => (Number.isFinite(sums[i]) ? Math.abs(sums[i]) : Infinity);
  const order = sums.map((_, i) => i).sort((a, b) => size(b) - size(a) || a - b).slice(0, CHANNELS);
  if (channel >= 0 && channel < patch.length) order.unshift(...[channel], ...order.splice(0).filter((i) => i !== channel));
  return order.map((i) => {
    const of = (/** @type {(e: Element) => any} */ what) => patch[i].map((line) => line.map(what));
    const at = patch[i].flatMap((line, r) => line.map((e, c) => (e === winner ? [r, c] : null))).find(Boolean);
    return { channel: i, patch: of((e) => e.x), kernel: of((e) => e.weight), products: of((e) => e.x * e.weight),
      inside: of((e) => e.inside), at: patch[i][0][0].index, winner: at ?? null };
  });
}
