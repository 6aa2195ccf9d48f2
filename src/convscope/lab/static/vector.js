// @ts-check
// What is shown as SVG: every cell a square of its colour, with the exact number as its title.
import { scaleOf, swatch } from "./colour.js";
import { svg } from "./dom.js";
import { exponentOf, fixed, number, power } from "./format.js";
import { t } from "./words.js";

export const MOST_CELLS = 20000;
const GAP = 12;
const LABEL = 16;
const CELL = 46; // px of a cell with a number in it
const LOW = 26;

/** A drawing on the page's ground. @param {number} width @param {number} height @param {...any} children @returns {SVGElement} */
export function page(width, height, ...children) {
  const { backgroundColor, color } = getComputedStyle(document.body);
  return svg("svg", { xmlns: "http://www.w3.org/2000/svg", viewBox: `0 0 ${width} ${height}`, width, height,
    "font-family": "sans-serif", "font-size": 11, fill: color },
  svg("rect", { width, height, fill: backgroundColor }), ...children);
}

/** @param {string} text @param {number} x @param {number} y @param {Record<string, any>} [more] */
function words(text, x, y, more = {}) {
  return svg("text", { x, y, ...more }, text);
}

/** @param {SVGElement} drawn @returns {Blob} */
export function fileOf(drawn) {
  return new Blob([new XMLSerializer().serializeToString(drawn)], { type: "image/svg+xml" });
}

/** @param {any} head of maps @returns {number} */
export function cells(head) {
  return head.index.length * head.rows * head.columns;
}

/** @param {import("./maps.js").Maps} maps as many across as on the page @returns {SVGElement} */
export function mapsDrawn(maps) {
  const { rows, columns, index } = maps.head;
  const zoom = Math.max(2, maps.used);
  const across = Math.min(maps.across ?? 1, index.length);
  const [wide, tall] = [Math.max(36, columns * zoom) + GAP, rows * zoom + LABEL + GAP];
  const drawn = index.map((/** @type {number} */ map, /** @type {number} */ slot) => {
    const [left, top] = [GAP + (slot % across) * wide, GAP + LABEL + Math.floor(slot / across) * tall];
    const scale = maps.scale(slot);
    const squares = Array.from({ length: rows * columns }, (_, i) => {
      const value = maps.values[slot * rows * columns + i];
      return svg("rect", { x: left + (i % columns) * zoom, y: top + Math.floor(i / columns) * zoom, width: zoom,
        height: zoom, fill: swatch(value, scale).back }, svg("title", {}, String(value)));
    });
    return svg("g", { "data-map": map, "shape-rendering": "crispEdges" }, words(String(map), left, top - 4), ...squares);
  });
  return page(GAP + across * wide, GAP + Math.ceil(index.length / across) * tall, ...drawn);
}

/**
 * @param {any} facts of one unit @param {number} channel whose matrices are shown
 * @returns {SVGElement | null} null where there are none
 */
export function arithmeticDrawn(facts, channel) {
  const { told } = facts;
  if (!told?.matrices) return null;
  const shown = told.matrices.find((/** @type {any} */ m) => m.channel === channel) ?? told.matrices[0];
  const parts = told.combine === "sum" ? ["patch", "kernel", "products"] : ["patch"];
  const [rows, columns] = [shown.patch.length, shown.patch[0].length];
  const step = columns * (CELL + 1) + 26;
  const top = 64;
  const sums = told.channel_sums.map((/** @type {number | null} */ v, /** @type {number} */ c) => [t("channel", { c }), v]);
  const lines = told.combine === "sum" ? [...sums, [t("term-bias"), told.bias ?? 0], [t("total"), told.total]]
    : [[t("total"), told.total]];
  const low = top + rows * (LOW + 1) + 26;
  return page(Math.max(360, GAP + parts.length * step), low + 16 * lines.length + GAP,
    words(`${facts.layer} [${facts.unit.join(", ")}] ${facts.op}`, GAP, 20, { "font-weight": 600, "font-size": 13 }),
    words(`= ${number(told.total)}, ${t("model-says", { value: number(told.says), difference: number(told.difference) })}`,
      GAP, 38),
    ...parts.map((name, i) => matrix(name, shown[name], shown.inside, [GAP + i * step, top])),
    ...(parts.length > 1 ? ["\u00d7", "="] : []).map((sign, i) => words(sign, GAP + (i + 1) * step - 18,
      top + (rows * LOW) / 2, { "font-size": 15 })),
    words(t("channel-of", { c: shown.channel, n: told.channels }), GAP, low - 8),
    ...lines.flatMap(([label, value], i) => [words(label, GAP, low + 12 + 16 * i), words(number(value), 240,
      low + 12 + 16 * i, { "text-anchor": "end", class: "sum", "data-value": String(value) })]));
}

/** @param {string} name @param {(number | null)[][]} values @param {boolean[][]} inside @param {number[]} at */
function matrix(name, values, inside, [left, top]) {
  const flat = values.flat().map((v) => v ?? NaN);
  const scale = { ...scaleOf(flat), signed: true };
  const exponent = exponentOf(flat);
  const shown = values.flatMap((row, r) => row.map((v, c) => {
    const [x, y] = [left + c * (CELL + 1), top + r * (LOW + 1)];
    const { back, ink } = swatch(v, scale);
    return svg("g", {}, svg("title", {}, inside[r][c] ? String(v ?? NaN) : t("padding")),
      svg("rect", { x, y, width: CELL, height: LOW, fill: back, "stroke-dasharray": inside[r][c] ? null : "3 2",
        stroke: inside[r][c] ? null : ink }),
      words(fixed(v, exponent, 2), x + CELL - 5, y + 17, { fill: ink, "text-anchor": "end" }));
  }));
  return svg("g", { "data-matrix": name }, words(`${t(name)} ${power(exponent)}`, left, top - 6), ...shown);
}
