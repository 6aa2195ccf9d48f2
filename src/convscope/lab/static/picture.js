// @ts-check
// The picture as the network takes it, and on it the receptive field: solid where it lies on the picture, dashed in
// full.
import { paint } from "./colour.js";
import { el, fill, segments, sized } from "./dom.js";
import { count, significant } from "./format.js";
import { remember, shown } from "./state.js";
import { t } from "./words.js";

/** @typedef {[[number, number], [number, number]]} Box rows and columns, both ends included */
const MARGIN = 0.09; // of the side, for what lies in padding
const HOLE = [20, 110, 84, 200]; // RGBA over a pixel that does not count: a hue, since pictures may be grey

export class PictureView {
  /**
   * @param {HTMLElement} host @param {boolean} can whether there is a network to ask for the effective field
   * @param {() => void} changed whether it is wanted
   */
  constructor(host, can, changed) {
    this.changed = changed;
    this.can = can;
    this.effective = can && shown().get("field") === "effective";
    this.canvas = el("canvas", { role: "img" });
    this.says = el("p", { class: "says" });
    this.host = host;
    /** @type {HTMLCanvasElement | OffscreenCanvas | null} */
    this.image = null;
    this.height = this.width = 1;
    /** @type {Box | null} */
    this.box = null;
    /** @type {Box | null} */
    this.link = null;
    this.which = el("div", { class: "which" });
    /** @type {{head: any, values: Float32Array} | null} */
    this.reach = null;
    fill(host, this.canvas, this.says, this.which);
    this.frame();
    new ResizeObserver(() => this.draw()).observe(host);
  }

  frame() {
    const value = this.effective ? "effective" : "box";
    if (this.can) fill(this.which, segments(t("which-field"), [["box", t("field-box")], ["effective", t("field-effective")]], value,
      (v) => {
        this.effective = v === "effective";
        remember({ field: this.effective ? v : null });
        this.changed();
      }));
    this.tell();
    this.draw();
  }

  /** What is shown, in words. */
  tell() {
    const { box, reach } = this;
    const words = [box ? sentence(box, this.height, this.width) : ""];
    if (reach?.head.holes) words.push(t("holes", { n: count(reach.head.depends_on), h: count(reach.head.holes) }));
    if (reach?.head.unseen) words.push(t("holes-unseen"));
    const told = reach?.head.effective;
    if (told) {
      const [h, w, share] = [...told.spread, 100 * told.share].map((v) => significant(v, 3));
      words.push(t("effective-says", { h, w, share, n: count(told.theoretical) }));
    }
    this.says.textContent = words.filter(Boolean).join(". ");
    this.says.title = told ? t("effective-how") : "";
  }

  /** @param {number[]} shape channels, height, width @param {Float32Array} values in 0..1 @param {string} name */
  show(shape, values, name) {
    const [channels, height, width] = shape;
    this.height = height;
    this.width = width;
    this.name = name;
    const image = new ImageData(width, height);
    const plane = height * width;
    for (let i = 0; i < plane; i++) {
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = 255 * values[(channels < 3 ? 0 : c) * plane + i];
      image.data[4 * i + 3] = channels % 2 ? 255 : 255 * values[(channels - 1) * plane + i];
    }
    const canvas = new OffscreenCanvas(width, height);
    /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d")).putImageData(image, 0, 0);
    this.image = canvas;
    this.draw();
  }

  /** @param {Box | null} box */
  field(box) {
    this.box = box;
    this.reach = null;
    this.tell();
    this.draw();
  }

  /** @param {{head: any, values: Float32Array}} reach the pixels that the unit depends on, and how much each counts */
  reached(reach) {
    const { head } = reach;
    this.reach = head.holes || head.unseen || head.effective ? reach : null;
    this.tell();
    this.draw();
  }

  /** What lies over the picture: pale holes, or in its place the effective field. @returns {OffscreenCanvas | null} */
  over() {
    if (!this.reach) return null;
    const { height, width } = this;
    const { head, values } = this.reach;
    const image = new ImageData(width, height);
    const plane = height * width;
    if (head.effective) paint(values.subarray(plane), 0, plane, image.data, { limit: 1, signed: false });
    else if (this.box) {
      const seen = clip(this.box, height, width) ?? [[0, -1], [0, -1]];
      for (let r = seen[0][0]; r <= seen[0][1]; r++) {
        for (let c = seen[1][0]; c <= seen[1][1]; c++) {
          if (!values[r * width + c]) image.data.set(HOLE, 4 * (r * width + c));
        }
      }
    }
    const canvas = new OffscreenCanvas(width, height);
    /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d")).putImageData(image, 0, 0);
    return canvas;
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
    const zoom = fit >= 1 ? Math.floor(fit) : fit;
    return { side, zoom, x: (side - this.width * zoom) / 2, y: side * MARGIN,
      tall: this.height * zoom + 2 * side * MARGIN };
  }

  draw() {
    if (!this.image || !this.host.clientWidth) return;
    const { side, zoom, x, y, tall } = this.layout();
    const pen = sized(this.canvas, side, tall);
    const style = getComputedStyle(this.host);
    pen.imageSmoothingEnabled = zoom < 1;
    pen.drawImage(this.image, x, y, this.width * zoom, this.height * zoom);
    const over = this.over();
    if (over) pen.drawImage(over, x, y, this.width * zoom, this.height * zoom);
    pen.strokeStyle = style.getPropertyValue("--line");
    pen.strokeRect(x - 0.5, y - 0.5, this.width * zoom + 1, this.height * zoom + 1);
    this.canvas.setAttribute("aria-label", `${this.name ?? ""}. ${this.says.textContent ?? ""}`);
    if (this.box) {
      const clipped = clip(this.box, this.height, this.width);
      if (clipped) outline(pen, clipped, { x, y, zoom }, style.getPropertyValue("--accent"), [], 2.5);
      outline(pen, this.box, { x, y, zoom }, style.getPropertyValue("--accent"), [4, 3], 1.25);
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
