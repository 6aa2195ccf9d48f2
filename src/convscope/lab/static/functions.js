// @ts-check
// Functions of one value, as PyTorch's operators of these names work them out.

const within = (/** @type {number} */ x, /** @type {number} */ low, /** @type {number} */ high) => Math.min(high, Math.max(low, x));
const softplus = (/** @type {number} */ x) => (x > 20 ? x : Math.log1p(Math.exp(x)));

/** @type {Record<string, (x: number, settings: Record<string, any>) => number>} */
export const FUNCTIONS = {
  relu: (x) => (x > 0 || Number.isNaN(x) ? x : 0),
  leaky_relu: (x, s) => (x > 0 ? x : x * s.negative_slope),
  elu: (x, s) => s.scale * (x > 0 ? x : s.alpha * Math.expm1(x * s.input_scale)),
  hardtanh: (x, s) => within(x, s.min_val, s.max_val),
  clamp: (x, s) => within(x, s.min ?? -Infinity, s.max ?? Infinity),
  clamp_min: (x, s) => Math.max(x, s.min),
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  tanh: Math.tanh,
  silu: (x) => x / (1 + Math.exp(-x)),
  hardsigmoid: (x) => within(x + 3, 0, 6) / 6,
  hardswish: (x) => (x * within(x + 3, 0, 6)) / 6,
  gelu: (x, s) => (s.approximate === "tanh"
    ? 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))) : 0.5 * x * erfc(-x / Math.SQRT2)),
  mish: (x) => x * Math.tanh(softplus(x)),
  softplus: (x, s) => (x * s.beta > s.threshold ? x : Math.log1p(Math.exp(x * s.beta)) / s.beta),
  exp: Math.exp,
  log: Math.log,
  sqrt: Math.sqrt,
  rsqrt: (x) => 1 / Math.sqrt(x),
  neg: (x) => -x,
  abs: Math.abs,
};

/**
 * The complementary error function: its power series, or far from 0 its continued fraction.
 * Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.6 and 7.1.14.
 * @param {number} x @returns {number}
 */
export function erfc(x) {
  if (x < 0) return 2 - erfc(-x);
  const scale = Math.exp(-x * x) / Math.sqrt(Math.PI);
  if (x < 2.5) {
    let [term, sum] = [2 * x, 2 * x];
    for (let n = 1; n < 60; n++) sum += term *= (2 * x * x) / (2 * n + 1);
    return 1 - scale * sum;
  }
  let below = x;
  for (let n = 60; n > 0; n--) below = x + n / 2 / below;
  return scale / below;
}
