// @ts-check
// The colours of a scale as a bar between its numbers.
import { paint } from "./colour.js";
import { el, fill, sized } from "./dom.js";
import { number } from "./format.js";
import { t } from "./words.js";

const [WIDTH, HEIGHT] = [80, 10];

export class ScaleBar {
  constructor() {
    this.bar = el("canvas", { role: "img" });
    this.low = el("span", { class: "figure" });
    this.high = el("span", { class: "figure" });
    this.host = el("div", { class: "scalebar" });
    fill(this.host, this.low, this.bar, this.high);
  }

  /** @param {import("./colour.js").Scale} scale @param {boolean} [each] whether each map has its own */
  show({ limit, signed }, each = false) {
    const pen = sized(this.bar, WIDTH, HEIGHT);
    const values = Float32Array.from({ length: WIDTH }, (_, i) => (signed ? (2 * i) / (WIDTH - 1) - 1 : i / (WIDTH - 1)));
    const image = new ImageData(WIDTH, 1);
    paint(values, 0, WIDTH, image.data, { limit: 1, signed });
    const strip = new OffscreenCanvas(WIDTH, 1);
    /** @type {OffscreenCanvasRenderingContext2D} */ (strip.getContext("2d")).putImageData(image, 0, 0);
    pen.drawImage(strip, 0, 0, WIDTH, HEIGHT);
    this.low.textContent = signed ? (each ? t("minus-largest") : number(-limit)) : "0";
    this.high.textContent = each ? t("largest") : number(limit);
    this.bar.setAttribute("aria-label", t("scale-from", { low: this.low.textContent, high: this.high.textContent }));
  }
}
