// @ts-check
// From values to colours. Signed values: diverging, the neutral is the page's colour. Values >= 0: sequential.

export const LIGHT = {
  diverging: ["#123a7a", "#2f6fbf", "#85b3e4", "#ffffff", "#f6b36b", "#d9741a", "#7f3b06"],
  sequential: ["#0b1230", "#1b3f77", "#2a7591", "#5fac8d", "#c3d67f", "#fdf7dc"],
};
export const DARK = {
  diverging: ["#b9d5f4", "#5c98dc", "#2a5a9c", "#14181f", "#8f4c14", "#dd8430", "#fbd3a2"],
  sequential: LIGHT.sequential,
};
export const NOT_FINITE = [255, 0, 255];
const STEPS = 257;

/** @typedef {{limit: number, signed: boolean}} Scale */

/** @type {Map<string, Uint8ClampedArray>} */
const tables = new Map();

/** Whether the page is dark now. */
export function dark() {
  const theme = document.documentElement.dataset.theme;
  return theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
}

/**
 * The 257 colours of a scale, three bytes each.
 * @param {boolean} diverging @param {boolean} inDark
 */
export function table(diverging, inDark) {
  const key = `${diverging}${inDark}`;
  const known = tables.get(key);
  if (known) return known;
  const anchors = (inDark ? DARK : LIGHT)[diverging ? "diverging" : "sequential"].map(rgb);
  const made = new Uint8ClampedArray(3 * STEPS);
  for (let i = 0; i < STEPS; i++) {
    const at = (i / (STEPS - 1)) * (anchors.length - 1);
    const low = Math.min(Math.floor(at), anchors.length - 2);
    for (let c = 0; c < 3; c++) made[3 * i + c] = anchors[low][c] + (at - low) * (anchors[low + 1][c] - anchors[low][c]);
  }
  tables.set(key, made);
  return made;
}

/** @param {string} hex */
function rgb(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

/**
 * Where a value lies on its scale, 0 to 256.
 * @param {number} value @param {Scale} scale
 */
function place(value, { limit, signed }) {
  const share = value / (limit || 1);
  const at = signed ? (share + 1) / 2 : share;
  return Math.round(Math.min(1, Math.max(0, at)) * (STEPS - 1));
}

/**
 * Values into pixels, from `from` on.
 * @param {Float32Array} values @param {number} from @param {number} to @param {Uint8ClampedArray} pixels RGBA
 * @param {Scale} scale
 */
export function paint(values, from, to, pixels, scale) {
  const colours = table(scale.signed, dark());
  for (let i = from; i < to; i++) {
    const value = values[i];
    const finite = Number.isFinite(value);
    const at = finite ? 3 * place(value, scale) : 0;
    for (let c = 0; c < 3; c++) pixels[4 * i + c] = finite ? colours[at + c] : NOT_FINITE[c];
    pixels[4 * i + 3] = 255;
  }
}

/**
 * A value's colour for CSS, and the colour of text on it.
 * @param {number | null} value @param {Scale} scale @returns {{back: string, ink: string}}
 */
export function swatch(value, scale) {
  const finite = value !== null && Number.isFinite(value);
  const colours = table(scale.signed, dark());
  const at = finite ? 3 * place(/** @type {number} */ (value), scale) : 0;
  const [r, g, b] = finite ? colours.slice(at, at + 3) : NOT_FINITE;
  return { back: `rgb(${r} ${g} ${b})`, ink: inkOn([r, g, b]) };
}

/** Black or white, whichever is easier to read. @param {number[]} rgb of the ground */
export function inkOn([r, g, b]) {
  const light = luminance(r) * 0.2126 + luminance(g) * 0.7152 + luminance(b) * 0.0722;
  return light > 0.179 ? "#000000" : "#ffffff";
}

/** @param {number} byte */
function luminance(byte) {
  const s = byte / 255;
  return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
}

/** @param {ArrayLike<number | null>} values @returns {Scale} */
export function scaleOf(values) {
  let limit = 0;
  let signed = false;
  for (let i = 0; i < values.length; i++) {
    const v = values[i];
    if (v === null || !Number.isFinite(v)) continue;
    limit = Math.max(limit, Math.abs(v));
    signed ||= v < 0;
  }
  return { limit, signed };
}
