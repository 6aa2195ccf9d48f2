// @ts-check
// The picture as the network takes it, and on it the receptive field: solid where it lies on the picture, dashed in
// full.
import { el, fill, sized } from "./dom.js";
import { count } from "./format.js";
import { Overlay } from "./overlay.js";
import { thumbnail } from "./thumbnail.js";
import { t } from "./words.js";

/** @typedef {import("./overlay.js").Box} Box rows and columns, both ends included */
const MARGIN = 0.09; // of the side, for what lies in padding
const WHOLE = 3; // from so many screen pixels a pixel on, all have the same number

export class PictureView {
  /**
   * @param {HTMLElement} host @param {any} session what there is to ask
   * @param {() => void} field asks for the unit's pixels anew @param {() => void} why asks what the answer rests on
   */
  constructor(host, session, field, why) {
    this.canvas = el("canvas", { role: "img" });
    this.says = el("p", { class: "says" });
    this.host = host;
    /** @type {OffscreenCanvas | null} */
    this.image = null;
    this.height = this.width = 1;
    /** @type {Box | null} */
    this.box = null;
    /** @type {Box | null} */
    this.link = null;
    this.which = el("div", { class: "which" });
    this.overlay = new Overlay(this.which, session, { field, why, draw: () => this.draw() });
    fill(host, this.canvas, this.says, this.which);
    this.frame();
    new ResizeObserver(() => this.draw()).observe(host);
  }

  frame() {
    this.overlay.frame();
    this.renew();
  }

  /** What is shown, in words and drawn. */
  renew() {
    const { box, overlay } = this;
    const words = overlay.mode === "why" ? overlay.words()
      : [box ? sentence(box, this.height, this.width) : "", ...overlay.words()];
    this.says.textContent = words.filter(Boolean).join(". ");
    this.says.title = overlay.covers() ? overlay.how() : "";
    this.draw();
  }

  /** @param {number[]} shape channels, height, width @param {Float32Array} values in 0..1 @param {string} name */
  show(shape, values, name) {
    [, this.height, this.width] = shape;
    this.name = name;
    this.image = thumbnail(values, shape);
    this.overlay.why = null;
    this.renew();
  }

  /** @param {Box | null} box */
  field(box) {
    this.box = box;
    this.overlay.reached(null);
    this.renew();
  }

  /** @param {import("./api.js").Packed} reach the pixels that the unit depends on, and how much each counts */
  reached(reach) {
    this.overlay.reached(reach);
    this.renew();
  }

  /** @param {import("./api.js").Packed} why which pixels bear on an answer */
  explained(why) {
    this.overlay.explained(why);
    this.renew();
  }

  /** @param {Box | null} box the place that a hovered value looks at */
  linked(box) {
    this.link = box;
    this.draw();
  }

  layout() {
    const side = Math.max(80, this.host.clientWidth);
    const room = side * (1 - 2 * MARGIN);
    const fit = room / Math.max(this.width, this.height);
    const zoom = fit >= WHOLE ? Math.floor(fit) : fit;
    return { side, zoom, x: (side - this.width * zoom) / 2, y: side * MARGIN,
      tall: this.height * zoom + 2 * side * MARGIN };
  }

  draw() {
    if (!this.image || !this.host.clientWidth) return;
    const { side, zoom, x, y, tall } = this.layout();
    const { overlay } = this;
    const pen = sized(this.canvas, side, tall);
    const style = getComputedStyle(this.host);
    const over = overlay.canvas(this.height, this.width, this.box && clip(this.box, this.height, this.width));
    pen.imageSmoothingEnabled = zoom < WHOLE;
    pen.filter = overlay.covers() ? "grayscale(1)" : "none";
    pen.drawImage(this.image, x, y, this.width * zoom, this.height * zoom);
    pen.filter = "none";
    pen.globalAlpha = overlay.covers() ? overlay.mix / 100 : 1;
    pen.imageSmoothingEnabled = zoom < 1;
    if (over) pen.drawImage(over, x, y, this.width * zoom, this.height * zoom);
    pen.globalAlpha = 1;
    pen.strokeStyle = style.getPropertyValue("--line");
    pen.strokeRect(x - 0.5, y - 0.5, this.width * zoom + 1, this.height * zoom + 1);
    this.canvas.setAttribute("aria-label", `${this.name ?? ""}. ${this.says.textContent ?? ""}`);
    const accent = style.getPropertyValue("--accent");
    if (overlay.mode === "why") {
      const [x1, y1, x2, y2] = overlay.why?.head.box ?? [];
      if (x2 !== undefined) outline(pen, [[y1, y2 - 1], [x1, x2 - 1]], { x, y, zoom }, accent, [], 2);
    } else if (this.box) {
      const clipped = clip(this.box, this.height, this.width);
      if (clipped) outline(pen, clipped, { x, y, zoom }, accent, [], 2.5);
      outline(pen, this.box, { x, y, zoom }, accent, [4, 3], 1.25);
    }
    if (this.link) outline(pen, this.link, { x, y, zoom }, style.getPropertyValue("--ink"), [], 1.5);
  }
}

/**
 * @param {CanvasRenderingContext2D} pen @param {Box} box @param {{x: number, y: number, zoom: number}} at
 * @param {string} colour @param {number[]} dash @param {number} wide
 */
function outline(pen, [[top, bottom], [left, right]], { x, y, zoom }, colour, dash, wide) {
  const place = [x + left * zoom, y + top * zoom, (right - left + 1) * zoom, (bottom - top + 1) * zoom];
  pen.setLineDash(dash);
  if (!dash.length) {
    pen.strokeStyle = "rgba(255,255,255,.8)";
    pen.lineWidth = wide + 2;
    pen.strokeRect(place[0], place[1], place[2], place[3]);
  }
  pen.strokeStyle = colour;
  pen.lineWidth = wide;
  pen.strokeRect(place[0], place[1], place[2], place[3]);
  pen.setLineDash([]);
}

/** @param {Box} box @param {number} height @param {number} width @returns {Box | null} */
export function clip([[top, bottom], [left, right]], height, width) {
  /** @type {Box} */
  const inside = [[Math.max(0, top), Math.min(height - 1, bottom)], [Math.max(0, left), Math.min(width - 1, right)]];
  return inside[0][0] <= inside[0][1] && inside[1][0] <= inside[1][1] ? inside : null;
}

/** @param {Box} box */
function area([[top, bottom], [left, right]]) {
  return (bottom - top + 1) * (right - left + 1);
}

/**
 * @param {Box} box
 * @param {number} height
 * @param {number} width such as "17 x 17 px, x -3..13; 21 of 49 px in padding"
 */
export function sentence(box, height, width) {
  const [[top, bottom], [left, right]] = box;
  const minus = (/** @type {number} */ v) => String(v).replace("-", "\u2212");
  const clipped = clip(box, height, width);
  const padded = area(box) - (clipped ? area(clipped) : 0);
  const where = t("field", { w: right - left + 1, h: bottom - top + 1, x0: minus(left), x1: minus(right),
    y0: minus(top), y1: minus(bottom) });
  return padded ? `${where}; ${t("in-padding", { n: count(padded), of: count(area(box)) })}` : where;
}

/**
 * Where a unit looks, from the layer's field alone.
 * @param {import("./layers.js").Row} row @param {number} at row of the unit @param {number} column @param {number[]}
 *   input height and width
 * @returns {Box | null}
 */
export function looksAt(row, at, column, [height, width]) {
  const field = row.receptive_field;
  if (!field || (field.size && field.size.length !== 2)) return null;
  if (field.global_through.length) return [[0, height - 1], [0, width - 1]];
  const { size } = field;
  if (!size || !field.stride || !field.padding || row.output_shape.length !== 4) return null;
  const span = (/** @type {number} */ i, /** @type {number} */ unit) => {
    const from = unit * /** @type {number[]} */ (field.stride)[i] - /** @type {number[]} */ (field.padding)[i];
    return /** @type {[number, number]} */ ([Math.round(from), Math.round(from) + size[i] - 1]);
  };
  return [span(0, at), span(1, column)];
}
