// @ts-check
// One value of an operator as its terms, from the recipe that a page without a server holds.
import { count, number } from "./format.js";
import { FUNCTIONS } from "./functions.js";
import { broadcast, flat, place, unflat } from "./store.js";
import { fromRow, fromWindow } from "./windows.js";

/**
 * @typedef {import("./store.js").Store} Store
 * @typedef {import("./windows.js").Term} Term
 */
const TERMS = 16;

/** @type {Record<string, (store: Store, recipe: any, unit: number[], shape: number[], channel: number) => any>} */
const KINDS = {
  window: (store, recipe, unit, shape, channel) => fromWindow(store, recipe, unit, channel, shape[1]),
  row: (store, recipe, unit) => fromRow(store, recipe, unit),
  function: fromFunction,
  sum: fromTerms,
  product: fromTerms,
  norm: fromNorm,
  softmax: fromSoftmax,
  strided: (store, recipe, unit) => {
    const source = store.tensor(recipe.source);
    const at = unit.reduce((sum, i, axis) => sum + i * recipe.steps[axis], recipe.start);
    return copied(source, unflat(source.shape, at), "copy");
  },
  nearest: (store, recipe, [sample, channel, ...at]) => copied(store.tensor(recipe.source),
    [sample, channel, ...at.map((i, axis) => recipe.taps[axis][i])], "copy"),
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
  return { combine, formula, total, bias: null, named: named.slice(0, TERMS), more_named: Math.max(0, named.length - TERMS) };
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
  const part = FUNCTIONS[recipe.name.replace(/_$/, "")](value, recipe.settings);
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
  const at = recipe.last ? unit.slice(-recipe.last) : [unit[1]];
  const read = (/** @type {number | null} */ id, /** @type {number} */ otherwise) => {
    if (id === null) return { value: otherwise, from: "" };
    const tensor = store.tensor(id);
    return { value: tensor.values[flat(tensor.shape, at)], from: place(tensor, at) };
  };
  const [scale, shift] = [read(recipe.scale, 1), read(recipe.shift, 0)];
  const [mean, variance] = "mean" in recipe
    ? [{ label: "mean", ...read(recipe.mean, 0) }, { label: "variance", ...read(recipe.variance, 1) }]
    : statistics(normalisedWith(source, recipe, unit));
  const x = source.values[flat(source.shape, unit)];
  const weight = scale.value / Math.sqrt(variance.value + recipe.eps);
  const named = [{ label: "x", from: place(source, unit), value: x, weight, part: x * weight },
    { ...mean, weight: -weight, part: -mean.value * weight },
    { ...variance, weight: null, part: 0 }, { label: "scale", ...scale, weight: null, part: 0 },
    { label: "shift", ...shift, weight: 1, part: shift.value }];
  const formula = `(${number(x)} - ${number(mean.value)}) / sqrt(${number(variance.value)} + ${number(recipe.eps)}) `
    + `x ${number(scale.value)} + ${number(shift.value)}`;
  return facts("sum", named, named.reduce((sum, term) => sum + term.part, 0), formula);
}

/**
 * The values whose mean and variance a value is normalised by: those of its last axes, or of its group of channels.
 * @param {import("./store.js").Tensor} source @param {any} recipe @param {number[]} unit
 */
function normalisedWith(source, recipe, unit) {
  const { shape, values } = source;
  const [channels, plane] = [shape[1] / (recipe.groups ?? 1), shape.slice(2).reduce((a, b) => a * b, 1)];
  const size = recipe.last ? shape.slice(-recipe.last).reduce((a, b) => a * b, 1) : channels * plane;
  const from = Math.floor(flat(shape, unit) / size) * size;
  return values.subarray(from, from + size);
}

/** @param {Float32Array} values */
function statistics(values) {
  const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
  const variance = values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length;
  const counted = `of ${count(values.length)} values`;
  return [{ label: `mean ${counted}`, value: mean, from: "" }, { label: `variance ${counted}`, value: variance, from: "" }];
}

/** @param {Store} store @param {any} recipe @param {number[]} unit */
function fromSoftmax(store, recipe, unit) {
  const source = store.tensor(recipe.source);
  const places = Array.from({ length: source.shape[recipe.dim] }, (_, i) => unit.with(recipe.dim, i));
  const values = places.map((index) => source.values[flat(source.shape, index)]);
  const top = Math.max(...values);
  const powers = values.map((v) => Math.exp(v - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  const own = unit[recipe.dim];
  if (recipe.name === "_log_softmax") {
    const x = values[own];
    const less = (/** @type {string} */ label, /** @type {number} */ value) => ({ label, from: "", value, weight: -1, part: -value });
    return facts("sum", [{ label: "x", from: place(source, unit), value: x, weight: 1, part: x }, less("max", top),
      less("log of the sum of exp(x - max)", Math.log(sum))], x - top - Math.log(sum));
  }
  const total = powers[own] / sum;
  const named = places.map((index, i) => ({ label: `${i === own ? "own " : ""}exp(x - max) = ${number(powers[i])}`,
    from: place(source, index), value: values[i], weight: null, part: i === own ? total : 0 }));
  return facts("function", named, total, `${number(powers[own])} / ${number(sum)}, the sum of the exp terms`);
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
