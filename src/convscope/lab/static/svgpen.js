// @ts-check
// A pen that draws as a canvas does, and leaves SVG: what the planes of numbered cells need of one.
import { svg } from "./dom.js";

/** @type {Record<string, string>} */
const ANCHOR = { left: "start", center: "middle", right: "end" };

export class SvgPen {
  /** @param {CanvasRenderingContext2D} measure tells how wide a text is */
  constructor(measure) {
    this.measure = measure;
    /** @type {SVGElement[]} */
    this.made = [];
    this.globalAlpha = 1;
    this.fillStyle = this.strokeStyle = "#000";
    this.lineWidth = 1;
    this.font = "12px sans-serif";
    this.textAlign = "left";
    this.textBaseline = "alphabetic";
    /** @type {number[]} */
    this.dash = [];
  }

  /** @param {number[]} dash */
  setLineDash(dash) {
    this.dash = dash;
  }

  /** @param {number} x @param {number} y @param {number} width @param {number} height */
  fillRect(x, y, width, height) {
    this.add("rect", { x, y, width, height, fill: this.fillStyle });
  }

  /** @param {number} x @param {number} y @param {number} width @param {number} height */
  strokeRect(x, y, width, height) {
    this.add("rect", { x, y, width, height, fill: "none", stroke: this.strokeStyle, "stroke-width": this.lineWidth,
      "stroke-dasharray": this.dash.join(" ") || null });
  }

  /** @param {string} text @param {number} x @param {number} y @param {number} [most] width, into which it is squeezed */
  fillText(text, x, y, most = Infinity) {
    this.measure.font = this.font;
    const squeezed = this.measure.measureText(text).width > most;
    this.add("text", { x, y, fill: this.fillStyle, "font-size": Number.parseFloat(this.font),
      "text-anchor": ANCHOR[this.textAlign],
      "dominant-baseline": this.textBaseline === "middle" ? "central" : null,
      textLength: squeezed ? most : null, lengthAdjust: squeezed ? "spacingAndGlyphs" : null }, text);
  }

  /** @param {string} tag @param {Record<string, any>} props @param {string} [text] */
  add(tag, props, text) {
    this.made.push(svg(tag, { ...props, opacity: this.globalAlpha < 1 ? this.globalAlpha : null }, text));
  }
}
