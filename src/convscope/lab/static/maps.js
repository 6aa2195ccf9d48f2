// @ts-check
// A page of feature maps on one canvas, the crosshair and the chosen unit on another above it.
import { paint, scaleOf } from "./colour.js";
import { el, fill, sized } from "./dom.js";
import { t } from "./words.js";

/** @typedef {import("./colour.js").Scale} Scale */
/** @typedef {{slot: number, map: number, row: number, column: number, value: number}} Place */
const GAP = 10;
const LABEL = 16;
const NARROWEST = 36;
export const MOST_ZOOM = 32;

export class Maps {
  /** @param {HTMLElement} host @param {(place: Place | null) => void} hovered @param {(place: Place) => void} picked */
  constructor(host, hovered, picked) {
    this.host = host;
    this.hovered = hovered;
    this.picked = picked;
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.above = el("canvas", { class: "above", "aria-hidden": "true" });
    this.sheet = el("div", { class: "sheet", role: "application", tabIndex: 0 }, this.canvas, this.above);
    /** @type {any} */
    this.head = null;
    /** @type {Float32Array} */
    this.values = new Float32Array();
    this.perMap = false;
    this.zoom = 0;
    this.used = 1;
    /** @type {Place | null} */
    this.chosen = null;
    /** @type {Place | null} */
    this.over = null;
    this.sheet.addEventListener("pointermove", (e) => this.hover(this.at(e)));
    this.sheet.addEventListener("pointerleave", () => this.hover(null));
    this.sheet.addEventListener("click", (e) => {
      const place = this.at(e);
      if (place) this.picked(place);
    });
    new ResizeObserver(() => this.head && this.draw()).observe(host);
    fill(host, this.sheet);
  }

  /** @param {any} head @param {Float32Array} values */
  show(head, values) {
    this.head = head;
    this.values = values;
    this.over = null;
    this.draw();
  }

  /** The whole layer's scale, or that of the map in a slot. @param {number} slot @returns {Scale} */
  scale(slot) {
    const { limit, signed, rows, columns } = this.head;
    if (!this.perMap) return { limit, signed };
    return scaleOf(this.values.subarray(slot * rows * columns, (slot + 1) * rows * columns));
  }

  /** The largest whole zoom at which a page fits, at least 1. */
  fitting() {
    const { rows, columns, index } = this.head;
    for (let zoom = MOST_ZOOM; zoom > 1; zoom--) {
      const grid = this.grid(zoom);
      const wide = columns * zoom <= this.host.clientWidth - 2 * GAP;
      if (wide && Math.ceil(index.length / grid.across) * (rows * zoom + LABEL + GAP) + GAP <= this.host.clientHeight) return zoom;
    }
    return 1;
  }

  /** @param {number} zoom */
  grid(zoom) {
    const cell = Math.max(NARROWEST, this.head.columns * zoom);
    const across = Math.max(1, Math.floor((this.host.clientWidth - 16 - GAP) / (cell + GAP)));
    return { cell, across, down: this.head.rows * zoom + LABEL + GAP };
  }

  draw() {
    const { rows, columns, index, dead, bad } = this.head;
    this.used = this.zoom || this.fitting();
    const { cell, across, down } = this.grid(this.used);
    this.across = across;
    const width = Math.min(across, index.length) * (cell + GAP) + GAP;
    const height = Math.ceil(index.length / across) * down + GAP;
    const pen = sized(this.canvas, width, height);
    const style = getComputedStyle(this.host);
    const sheet = this.painted();
    pen.font = "11px " + style.fontFamily;
    pen.textBaseline = "alphabetic";
    for (let slot = 0; slot < index.length; slot++) {
      const { x, y } = this.corner(slot);
      pen.fillStyle = style.color;
      pen.textAlign = "left";
      pen.fillText(String(index[slot]), x, y - 4);
      const badge = bad[slot] ? `${bad[slot]} NaN` : dead[slot] ? t("dead") : "";
      pen.textAlign = "right";
      pen.fillStyle = style.getPropertyValue(bad[slot] ? "--odd" : "--soft");
      pen.fillText(badge, x + cell, y - 4, cell - 14);
      pen.drawImage(sheet, 0, slot * rows, columns, rows, x, y, columns * this.used, rows * this.used);
      pen.strokeStyle = style.getPropertyValue("--line");
      pen.lineWidth = 1;
      pen.setLineDash(dead[slot] ? [3, 3] : []);
      pen.strokeRect(x - 0.5, y - 0.5, columns * this.used + 1, rows * this.used + 1);
    }
    this.sheet.style.width = `${width}px`;
    this.sheet.style.height = `${height}px`;
    sized(this.above, width, height);
    this.mark();
  }

  /** All maps below each other, one pixel a value. */
  painted() {
    const { rows, columns, index } = this.head;
    const sheet = new OffscreenCanvas(Math.max(1, columns), Math.max(1, rows * index.length));
    const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (sheet.getContext("2d"));
    const image = pen.createImageData(sheet.width, sheet.height);
    for (let slot = 0; slot < index.length; slot++) {
      paint(this.values, slot * rows * columns, (slot + 1) * rows * columns, image.data, this.scale(slot));
    }
    pen.putImageData(image, 0, 0);
    return sheet;
  }

  /** @param {number} slot where its map begins on the sheet */
  corner(slot) {
    const { cell, across, down } = this.grid(this.used);
    return { x: GAP + (slot % across) * (cell + GAP), y: GAP + LABEL + Math.floor(slot / across) * down };
  }

  /** @param {MouseEvent} event @returns {Place | null} */
  at(event) {
    if (!this.head) return null;
    const box = this.sheet.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const { cell, across, down } = this.grid(this.used);
    const slot = Math.floor((y - GAP) / down) * across + Math.floor((x - GAP) / (cell + GAP));
    if (slot < 0 || slot >= this.head.index.length || x < GAP || y < GAP) return null;
    const corner = this.corner(slot);
    const row = Math.floor((y - corner.y) / this.used);
    const column = Math.floor((x - corner.x) / this.used);
    if (row < 0 || column < 0 || row >= this.head.rows || column >= this.head.columns) return null;
    return this.place(slot, row, column);
  }

  /** @param {number} slot @param {number} row @param {number} column of the map as it was sent @returns {Place} */
  place(slot, row, column) {
    const { rows, columns, index, step } = this.head;
    const value = this.values[(slot * rows + row) * columns + column];
    return { slot, map: index[slot], row: row * step, column: column * step, value };
  }

  /** @param {Place | null} place */
  hover(place) {
    const before = this.over;
    if (before?.slot === place?.slot && before?.row === place?.row && before?.column === place?.column) return;
    this.over = place;
    this.mark();
    this.hovered(place);
  }

  /** @param {Place | null} place */
  choose(place) {
    this.chosen = place;
    this.mark();
    if (place && place.slot >= 0) this.reveal(place.slot);
  }

  /** @param {number} slot */
  reveal(slot) {
    const { y } = this.corner(slot);
    const bottom = y + this.head.rows * this.used + GAP;
    if (y - LABEL < this.host.scrollTop) this.host.scrollTop = y - LABEL - GAP;
    else if (bottom > this.host.scrollTop + this.host.clientHeight) this.host.scrollTop = bottom - this.host.clientHeight;
  }

  mark() {
    const pen = /** @type {CanvasRenderingContext2D} */ (this.above.getContext("2d"));
    pen.clearRect(0, 0, this.above.width, this.above.height);
    if (!this.head) return;
    const accent = getComputedStyle(this.host).getPropertyValue("--accent");
    const { step, index } = this.head;
    if (this.over) {
      for (let slot = 0; slot < index.length; slot++) this.crosshair(pen, slot, this.over.row / step,
        this.over.column / step);
    }
    const slot = this.chosen ? index.indexOf(this.chosen.map) : -1;
    if (this.chosen && slot >= 0) this.ring(pen, slot, this.chosen.row / step, this.chosen.column / step, accent);
  }

  /** @param {CanvasRenderingContext2D} pen @param {number} slot @param {number} row @param {number} column */
  crosshair(pen, slot, row, column) {
    const { x, y } = this.corner(slot);
    const z = this.used;
    const [w, h] = [this.head.columns * z, this.head.rows * z];
    const [cx, cy] = [x + (Math.floor(column) + 0.5) * z, y + (Math.floor(row) + 0.5) * z];
    for (const [colour, wide] of /** @type {[string, number][]} */ ([["rgba(255,255,255,.75)", 3],
      ["rgba(10,15,20,.85)", 1]])) {
      pen.strokeStyle = colour;
      pen.lineWidth = wide;
      pen.beginPath();
      pen.moveTo(x, cy); pen.lineTo(cx - z, cy); pen.moveTo(cx + z, cy); pen.lineTo(x + w, cy);
      pen.moveTo(cx, y); pen.lineTo(cx, cy - z); pen.moveTo(cx, cy + z); pen.lineTo(cx, y + h);
      pen.stroke();
    }
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {number} slot
   * @param {number} row
   * @param {number} column
   * @param {string} accent
   */
  ring(pen, slot, row, column, accent) {
    const { x, y } = this.corner(slot);
    const z = this.used;
    const size = Math.max(z, 6);
    const [cx, cy] = [x + (Math.floor(column) + 0.5) * z, y + (Math.floor(row) + 0.5) * z];
    pen.strokeStyle = accent;
    pen.lineWidth = 2;
    pen.strokeRect(x - 2, y - 2, this.head.columns * z + 4, this.head.rows * z + 4);
    for (const [colour, out] of /** @type {[string, number][]} */ ([["#ffffff", 2.5], ["#0b0f13", 1]])) {
      pen.strokeStyle = colour;
      pen.lineWidth = 1.5;
      pen.strokeRect(cx - size / 2 - out, cy - size / 2 - out, size + 2 * out, size + 2 * out);
    }
  }
}
