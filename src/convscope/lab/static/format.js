// @ts-check
// How numbers are written: as convscope's tables write them, and matrices with one exponent.

const MINUS = "\u2212";
const RAISED = { "-": "\u207b", 0: "\u2070", 1: "\u00b9", 2: "\u00b2", 3: "\u00b3", 4: "\u2074", 5: "\u2075",
  6: "\u2076", 7: "\u2077", 8: "\u2078", 9: "\u2079" };

/** @param {string} text */
function signed(text) {
  return text.replace("-", MINUS);
}

/**
 * Four significant digits, a true minus sign, no negative zero.
 * @param {number | null} value null: not a number, or infinite
 */
export function number(value) {
  return significant(value, 4);
}

/** @param {number | null} value @param {number} digits that say something */
export function significant(value, digits) {
  if (value === null || !Number.isFinite(value)) return value === null || Number.isNaN(value) ? "NaN" : value > 0 ? "inf" : `${MINUS}inf`;
  if (value === 0) return "0";
  const [mantissa, power] = value.toExponential(digits - 1).split("e");
  const exponent = Number(power);
  if (exponent >= -4 && exponent < 4) return signed(bare(value.toFixed(Math.max(0, digits - 1 - exponent))));
  const sign = exponent < 0 ? "-" : "+";
  return signed(bare(mantissa)) + `e${sign}${String(Math.abs(exponent)).padStart(2, "0")}`;
}

/** @param {string} text without the zeros at its end */
function bare(text) {
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** @param {number} value a count with thousands set apart */
export function count(value) {
  return signed(String(value).replace(/\B(?=(\d{3})+(?!\d))/g, ","));
}

/** @param {number} value a large count in short: 1.81 G */
export function short(value) {
  for (const [unit, size] of /** @type {[string, number][]} */ ([["G", 1e9], ["M", 1e6], ["k", 1e4]])) {
    if (value >= size) return `${Number((value / (unit === "k" ? 1e3 : size)).toPrecision(3))} ${unit}`;
  }
  return count(value);
}

/** @param {number[]} sizes */
export function shape(sizes) {
  return sizes.join("\u00d7");
}

/**
 * The power of ten that a matrix shares, 0 where none is needed.
 * @param {number[]} values
 */
export function exponentOf(values) {
  const top = Math.max(0, ...values.filter(Number.isFinite).map(Math.abs));
  const exponent = top > 0 ? Math.floor(Math.log10(top)) : 0;
  return exponent >= -1 && exponent <= 2 ? 0 : exponent;
}

/** @param {number | null} value @param {number} exponent @param {number} [digits] */
export function fixed(value, exponent, digits = 3) {
  if (value === null || !Number.isFinite(value)) return number(value);
  const text = (value / 10 ** exponent).toFixed(digits);
  return signed(Number(text) === 0 ? text.replace("-", "") : text);
}

/** @param {number} exponent such as "\u00d710\u207b\u00b2" */
export function power(exponent) {
  const digits = [...String(exponent)].map((c) => /** @type {Record<string, string>} */ (RAISED)[c]).join("");
  return exponent === 0 ? "" : `\u00d710${digits}`;
}

/** @param {string} op an operator's name without what says how it is computed */
export function plain(op) {
  return op.replace(/^_+|_+$/g, "").replace(/_with_indices$/, "").replace(/^native_/, "").replaceAll("_", " ");
}

/** @param {string} formula as the package writes it, with true signs */
export function written(formula) {
  return formula.replaceAll(" - ", ` ${MINUS} `).replaceAll(" x ", " \u00d7 ");
}
