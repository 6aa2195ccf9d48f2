// @ts-check
// One value of an operator as its terms, from the recipe that a page without a server holds.
import { number } from "./format.js";
import { broadcast, flat, place, unflat } from "./store.js";
import { fromRow, fromWindow } from "./windows.js";

/**
 * @typedef {import("./store.js").Store} Store
 * @typedef {import("./windows.js").Term} Term
 */
const within = (/** @type {number} */ x, /** @type {number} */ low, /** @type {number} */ high) => Math.min(high, Math.max(low, x));
/** @type {Record<string, (x: number, numbers: Record<string, number>) => number>} */
const FUNCTIONS = {
  relu: (x) => (x > 0 || Number.isNaN(x) ? x : 0),
  leaky_relu: (x, n) => (x > 0 ? x : x * n.negative_slope),
  hardtanh: (x, n) => within(x, n.min_val, n.max_val),
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  tanh: Math.tanh,
  silu: (x) => x / (1 + Math.exp(-x)),
  hardsigmoid: (x) => within(x + 3, 0, 6) / 6,
  hardswish: (x) => (x * within(x + 3, 0, 6)) / 6,
};

/** @type {Record<string, (store: Store, recipe: any, unit: number[], shape: number[], channel: number) => any>} */
const KINDS = {
  window: (store, recipe, unit, shape, channel) => fromWindow(store, recipe, unit, channel, shape[1]),
  row: (store, recipe, unit) => fromRow(store, recipe, unit),
  function: fromFunction,
  sum: fromTerms,
  product: fromTerms,
  norm: fromNorm,
  copy: (store, recipe, unit, shape) => {
    const source = store.tensor(recipe.source);
    return copied(source, unflat(source.shape, flat(shape, unit)), "copy");
  },
  cat: fromParts,
};

/**
 * @param {Store} store @param {any} recipe @param {number[]} unit @param {number[]} shape of the output
 * @param {number} says what the model computed @param {number} channel that is wanted first
 */
export function taken(store, recipe, unit, shape, says, channel) {
  const told = KINDS[recipe.kind](store, recipe, unit, shape, channel);
  return { ...told, says, difference: says - told.total };
}

/** @param {string} combine @param {Term[]} named @param {number} total @param {string} [formula] */
function facts(combine, named, total, formula = "") {
  return { combine, formula, total, bias: null, named, more_named: 0 };
}

/** @param {import("./store.js").Tensor} source @param {number[]} index @param {string} label */
function copied(source, index, label) {
  const value = source.values[flat(source.shape, index)];
  return facts("copy", [{ label, from: place(source, index), value, weight: 1, part: value }], value);
}

/** @param {Store} store @param {any} recipe @param {number[]} unit */
function fromFunction(store, recipe, unit) {
  const source = store.tensor(recipe.source);
  const value = source.values[flat(source.shape, unit)];
  const part = FUNCTIONS[recipe.name.replace(/_$/, "")](value, recipe.numbers);
  return facts("function", [{ label: "x", from: place(source, unit), value, weight: null, part }], part,
    `${recipe.name}(${number(value)})`);
}

/** A sum or a product of two. @param {Store} store @param {any} recipe @param {number[]} unit */
function fromTerms(store, recipe, unit) {
  const named = recipe.terms.map((/** @type {any} */ term) => {
    if (term.source === null) return { label: term.label, from: "", value: term.number, weight: term.weight };
    const source = store.tensor(term.source);
    const index = broadcast(source.shape, unit);
    return { label: term.label, from: place(source, index), value: source.values[flat(source.shape, index)],
      weight: term.weight };
  });
  const [a, b] = named;
  if (recipe.kind === "sum") {
    for (const term of named) term.part = term.value * term.weight;
    return facts("sum", named, a.part + b.part);
  }
  Object.assign(a, { weight: b.value, part: a.value * b.value });
  Object.assign(b, { weight: a.value, part: a.value * b.value });
  return facts("product", named, a.part);
}

/** @param {Store} store @param {any} recipe @param {number[]} unit */
function fromNorm(store, recipe, unit) {
  const source = store.tensor(recipe.source);
  const read = (/** @type {number | null} */ id, /** @type {number} */ otherwise) => {
    if (id === null) return { value: otherwise, from: "" };
    const tensor = store.tensor(id);
    return { value: tensor.values[unit[1]], from: place(tensor, [unit[1]]) };
  };
  const [mean, variance, scale, shift] = [read(recipe.mean, 0), read(recipe.variance, 1), read(recipe.scale, 1),
    read(recipe.shift, 0)];
  const x = source.values[flat(source.shape, unit)];
  const weight = scale.value / Math.sqrt(variance.value + recipe.eps);
  const named = [{ label: "x", from: place(source, unit), value: x, weight, part: x * weight },
    { label: "mean", ...mean, weight: -weight, part: -mean.value * weight },
    { label: "variance", ...variance, weight: null, part: 0 }, { label: "scale", ...scale, weight: null, part: 0 },
    { label: "shift", ...shift, weight: 1, part: shift.value }];
  const formula = `(${number(x)} - ${number(mean.value)}) / sqrt(${number(variance.value)} + ${number(recipe.eps)}) `
    + `x ${number(scale.value)} + ${number(shift.value)}`;
  return facts("sum", named, named.reduce((sum, term) => sum + term.part, 0), formula);
}

/** Which of the joined tensors it came from. @param {Store} store @param {any} recipe @param {number[]} unit */
function fromParts(store, recipe, unit) {
  const index = [...unit];
  let which = 0;
  while (index[recipe.dim] >= store.about[recipe.sources[which]].shape[recipe.dim]) {
    index[recipe.dim] -= store.about[recipe.sources[which]].shape[recipe.dim];
    which++;
  }
  return copied(store.tensor(recipe.sources[which]), index, `input ${which} of ${recipe.sources.length}`);
}
