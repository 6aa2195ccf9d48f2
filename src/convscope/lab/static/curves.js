// @ts-check
// Training curves as SVG: raw and smoothed, linear or logarithmic; a value that is no number is a marked gap.
import { svg } from "./dom.js";
import { count, number } from "./format.js";
import { t } from "./words.js";

/**
 * @typedef {{name: string, colour: string, values: (number | null)[], dash?: string}} Line values may end early
 * @typedef {{title: string, log: boolean, smooth: number, colours: {ink: string, soft: string, line: string, odd:
 *   string, page: string},
 *   font: string}} Look
 */
const [WIDTH, HEIGHT] = [400, 244];
const NAMED = ["loss", "accuracy", "map", "map50", "miou", "scoring", "placing", "score"]; // quantities that have words
const ROOM = 0.04; // above and below the lines
const EDGE = { left: 52, right: 12, top: 30, bottom: 34 };

/** @param {string} kind a quantity of the log, perhaps with its task before it @returns {string} */
export function titled(kind) {
  const words = kind.split("_");
  const last = words.pop() ?? "";
  return [...words, NAMED.includes(last) ? t(`curve-${last}`) : last].join(" ");
}

/** A line's name in words: `val_loss`, or with another run's name before it. @param {string} name */
function said(name) {
  const [, run, part, kind] = /^(?:(.*) )?(train|val)_(.+)$/.exec(name) ?? [];
  return part ? `${run ? `${run}, ` : ""}${t(part)}, ${titled(kind)}` : name === "lr" ? t("lr") : name;
}

/**
 * Exponential moving average without the pull of the start; a gap does not move it.
 * @param {(number | null)[]} values @param {number} weight of what was, 0 to 1 @returns {(number | null)[]}
 */
export function smoothed(values, weight) {
  let [sum, share] = [0, 0];
  return values.map((v) => {
    if (v === null || !Number.isFinite(v)) return null;
    sum = weight * sum + (1 - weight) * v;
    share = weight * share + (1 - weight);
    return sum / share;
  });
}

/**
 * Round numbers on an axis.
 * @param {number} low @param {number} high @param {boolean} log @returns {number[]}
 */
export function ticks(low, high, log) {
  if (log) {
    const [from, to] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
    const steps = to - from <= 2 ? [1, 2, 5] : [1];
    const all = Array.from({ length: to - from + 1 }, (_, i) => steps.map((s) => s * 10 ** (from + i))).flat();
    const kept = all.filter((v) => v >= low * 0.999 && v <= high * 1.001);
    return kept.length > 1 ? kept : ticks(low, high, false); // less than the space between two round powers
  }
  const rough = (high - low || 1) / 5;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * size).find((s) => s >= rough) ?? size;
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 },
    (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/**
 * @param {number[]} epochs @param {Line[]} lines those that are shown @param {Look} look
 * @returns {SVGElement}
 */
export function chart(epochs, lines, look) {
  const { colours } = look;
  const drawable = (/** @type {number | null} */ v) => v !== null && Number.isFinite(v) && (!look.log || v > 0);
  const all = lines.flatMap((l) => l.values.filter(drawable)).map(Number);
  const [low, high] = range(all, look.log);
  const [first, last] = [epochs[0] ?? 0, Math.max((epochs.at(-1) ?? 1), (epochs[0] ?? 0) + 1)];
  const x = (/** @type {number} */ v) => EDGE.left + ((v - first) / (last - first)) * (WIDTH - EDGE.left - EDGE.right);
  const f = (/** @type {number} */ v) => (look.log ? Math.log10(v) : v);
  const y = (/** @type {number} */ v) => HEIGHT - EDGE.bottom - ((f(v) - f(low)) / (f(high) - f(low) || 1)) * (HEIGHT - EDGE.top - EDGE.bottom);
  const text = (/** @type {number} */ at, /** @type {number} */ down, /** @type {string} */ words,
    /** @type {Record<string, any>} */ more = {}) =>
    svg("text", { x: at, y: down, fill: colours.soft, "font-size": 11, ...more }, words);
  const grid = ticks(low, high, look.log).map((v) => svg("g", {},
    svg("line", { x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(v), y2: y(v), stroke: colours.line }),
    text(EDGE.left - 7, y(v) + 4, number(v), { "text-anchor": "end" })));
  const below = ticks(first, last, false).filter(Number.isInteger).map((v) => text(x(v), HEIGHT - EDGE.bottom + 17,
    count(v), { "text-anchor": "middle" }));
  return svg("svg", { xmlns: "http://www.w3.org/2000/svg", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH,
    height: HEIGHT, role: "img", "aria-label": look.title, "font-family": look.font },
    svg("rect", { width: WIDTH, height: HEIGHT, fill: colours.page }),
    text(EDGE.left, 17, look.title, { fill: colours.ink, "font-size": 13, "font-weight": 600 }), ...grid, ...below,
    text(WIDTH - EDGE.right, HEIGHT - 4, t("epoch"), { "text-anchor": "end" }),
    ...lines.flatMap((line) => drawn(epochs, line, { x, y, drawable, look })));
}

/** @param {number[]} values @param {boolean} log @returns {[number, number]} */
function range(values, log) {
  if (!values.length) return log ? [0.1, 1] : [0, 1];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (low < high && log) return [low / (high / low) ** ROOM, high * (high / low) ** ROOM];
  if (low < high) return [low - ROOM * (high - low), high + ROOM * (high - low)];
  return log ? [low / 2, high * 2] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
}

/**
 * @param {number[]} epochs @param {Line} line
 * @param {{x: (v: number) => number, y: (v: number) => number, drawable: (v: number | null) => boolean, look: Look}} at
 */
function drawn(epochs, line, { x, y, drawable, look }) {
  const path = (/** @type {(number | null)[]} */ values) => values.map((v, i) => {
    if (!drawable(v ?? null)) return "";
    const start = i === 0 || !drawable(values[i - 1]);
    return `${start ? "M" : "L"}${x(epochs[i]).toFixed(1)} ${y(Number(v)).toFixed(1)}`;
  }).join("");
  const gaps = epochs.filter((_, i) => i < line.values.length && !drawable(line.values[i]));
  const plain = { fill: "none", stroke: line.colour, "stroke-linejoin": "round", "stroke-dasharray": line.dash ?? null };
  return [
    svg("path", { ...plain, d: path(line.values), "stroke-width": 1.6, opacity: look.smooth ? 0.3 : 1,
      "data-line": line.name }, svg("title", {}, said(line.name))),
    look.smooth ? svg("path", { ...plain, d: path(smoothed(line.values, look.smooth)), "stroke-width": 2 }) : null,
    ...gaps.map((epoch) => svg("path", { class: "gap", d: `M${x(epoch) - 3} ${HEIGHT - EDGE.bottom - 7}l6 6m0-6l-6 6`,
      stroke: look.colours.odd, "stroke-width": 1.6 },
      svg("title", {}, `${said(line.name)}, ${epoch}: NaN`))),
    ...(epochs.length < 3 ? epochs.map((epoch, i) => (drawable(line.values[i] ?? null) ? svg("circle",
      { cx: x(epoch), cy: y(Number(line.values[i])), r: 3, fill: line.colour }) : null)) : []),
  ].filter((made) => made !== null);
}
