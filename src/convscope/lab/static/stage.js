// @ts-check
// Planes of numbered cells on a canvas.
import { scaleOf, swatch } from "./colour.js";

/**
 * @typedef {{pen: CanvasRenderingContext2D, style: CSSStyleDeclaration}} Brush
 * @typedef {import("./colour.js").Scale} Scale
 * @typedef {{title?: string, scale?: Scale, faint?: (row: number, column: number) => boolean, faded?: boolean,
 *   marked?: (row: number, column: number) => boolean, decimals?: boolean}} Look
 */

export const TITLE = 20;

/**
 * A plane with its title above it; returns its width and height.
 * @param {Brush} brush @param {(number | null)[][]} values null: empty @param {number} x @param {number} y @param
 *   {number} cell
 * @param {Look} [look] faint: dashed, such as padding
 */
export function drawPlane({ pen, style }, values, x, y, cell, look = {}) {
  const scale = look.scale ?? scaleOf(values.flat());
  const colour = (/** @type {string} */ name) => style.getPropertyValue(name);
  pen.globalAlpha = look.faded ? 0.35 : 1;
  pen.textAlign = "left";
  pen.textBaseline = "alphabetic";
  pen.font = `12px ${style.fontFamily}`;
  pen.fillStyle = colour("--soft");
  if (look.title) pen.fillText(look.title, x, y + 12);
  const top = y + TITLE;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.font = `${Math.min(16, Math.max(8, cell * 0.42))}px ${style.fontFamily}`;
  values.forEach((row, r) => row.forEach((v, c) => {
    const [left, up] = [x + c * cell, top + r * cell];
    const faint = look.faint?.(r, c) ?? false;
    const { back, ink } = v === null || faint ? { back: "", ink: colour("--soft") } : swatch(v, scale);
    if (back) {
      pen.fillStyle = back;
      pen.fillRect(left + 0.5, up + 0.5, cell - 1, cell - 1);
    }
    pen.strokeStyle = colour("--line");
    pen.lineWidth = 1;
    pen.setLineDash(faint ? [2, 2] : []);
    pen.strokeRect(left + 0.5, up + 0.5, cell - 1, cell - 1);
    if (v !== null && cell >= 17) {
      pen.fillStyle = ink;
      pen.fillText(String(v).replace("-", "\u2212"), left + cell / 2, up + cell / 2 + 1, cell - 3);
    }
  }));
  pen.setLineDash([]);
  pen.strokeStyle = colour("--accent");
  pen.lineWidth = 2;
  values.forEach((row, r) => row.forEach((_, c) => {
    if (look.marked?.(r, c)) pen.strokeRect(x + c * cell + 1.5, top + r * cell + 1.5, cell - 3, cell - 3);
  }));
  pen.globalAlpha = 1;
}

/**
 * A frame around a window of a plane.
 * @param {Brush} brush @param {number} x of the plane @param {number} y @param {number} cell
 * @param {[number, number, number, number]} box row, column, rows, columns
 */
export function drawWindow({ pen, style }, x, y, cell, [row, column, rows, columns]) {
  const place = [x + column * cell, y + TITLE + row * cell, columns * cell, rows * cell];
  pen.strokeStyle = style.getPropertyValue("--accent");
  pen.lineWidth = 3;
  pen.strokeRect(place[0], place[1], place[2], place[3]);
}

/** @param {Brush} brush @param {string} text @param {number} x @param {number} y */
export function drawSign({ pen, style }, text, x, y) {
  pen.font = `18px ${style.fontFamily}`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillStyle = style.getPropertyValue("--soft");
  pen.fillText(text, x, y);
}
