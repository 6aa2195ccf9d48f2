// @ts-check
// What a detector or a segmenter found in its test pictures: boxes or masks, a threshold, what is right and what not.
import { getJson, getPacked } from "./api.js";
import { inkOn } from "./colour.js";
import { matrixTable } from "./confusion.js";
import { el, fill, segments, sized } from "./dom.js";
import { count, number } from "./format.js";
import { judged } from "./matching.js";
import { complain } from "./notices.js";
import { numberOf, remember, shown } from "./state.js";
import { thumbnail } from "./thumbnail.js";
import { t } from "./words.js";

const PAGE = 12;
const SIDE = 224; // px of a picture
const KINDS = ["right", "wrong", "missed"];
const SHOWN_SCORE = 0.4;

/** @typedef {import("./matching.js").Verdict} Verdict */

export class Found {
  /** @param {HTMLElement} host @param {number} run @param {any} result of the evaluation */
  constructor(host, run, result) {
    this.host = host;
    this.run = run;
    this.result = result;
    this.boxes = result.task === "detect";
    this.views = this.boxes ? ["all", ...KINDS] : ["said", "true", "differs"];
    this.usual = { least: this.boxes ? SHOWN_SCORE : 0, show: this.views[0] };
    const asked = shown();
    this.threshold = numberOf(this.key("least"), Math.round(100 * this.usual.least), 0, 100) / 100;
    this.show = this.views.includes(asked.get(this.key("show")) ?? "") ? asked.get(this.key("show")) ?? "" : this.usual.show;
    this.page = numberOf(this.key("page"), 0, 0, 1e6);
    const cell = /^(\d+),(\d+)$/.exec(asked.get(this.key("cell")) ?? "");
    /** @type {number[] | null} true and said class of the cell that was opened */
    this.cell = cell && cell.slice(1).map(Number);
    /** @type {any[]} */
    this.pictures = [];
    this.sheet = el("div", { class: "found" });
    this.pager = el("div", { class: "pager" });
    this.table = el("div");
    this.limit = el("output", { class: "figure" });
    /** @type {Map<number, import("./api.js").Packed>} */
    this.known = new Map();
  }

  /** @param {string} what of this task, in the address */
  key(what) {
    return `${this.result.task}-${what}`;
  }

  remember() {
    remember({ [this.key("least")]: this.threshold === this.usual.least ? null : Math.round(100 * this.threshold),
      [this.key("show")]: this.show === this.usual.show ? null : this.show, [this.key("page")]: this.page || null,
      [this.key("cell")]: this.cell && this.cell.join(",") });
  }

  async start() {
    this.frame();
    try {
      this.pictures = (await getJson(`runs/${this.run}/${this.result.task}/pictures`)).pictures;
      await this.draw();
    } catch (error) {
      complain(error);
    }
  }

  frame() {
    const { result, boxes } = this;
    const [low, high] = result.interval;
    const percent = (/** @type {number} */ v) => (100 * v).toFixed(2);
    const views = /** @type {[string, string][]} */ (this.views.map((v) => [v, t(`found-${v}`)]));
    const slider = el("input", { type: "range", min: 0, max: 100, value: String(Math.round(100 * this.threshold)),
      "data-set": "threshold", oninput: () => {
      this.threshold = Number(slider.value) / 100;
      this.page = 0;
      this.draw();
    } });
    fill(this.host, el("h2", {}, t(boxes ? "objects" : "regions")),
      el("p", {}, t(boxes ? "map" : "miou", { share: percent(result.score), low: percent(low), high: percent(high),
        n: count(result.images) })),
      this.table,
      el("div", { class: "line" }, segments(t("show"), views, this.show, (v) => {
        this.show = v;
        this.page = 0;
        this.draw();
      }), el("label", { class: "field" }, el("span", {}, t(boxes ? "least-score" : "least-sure")), slider), this.limit,
      el("span", { class: "push" }), this.pager),
      el("p", { class: "keys" }, ...(boxes ? this.marks() : this.names())), this.sheet);
  }

  /** What the lines of the boxes mean. */
  marks() {
    return KINDS.map((kind) => el("span", { class: `mark-${kind}` }, t(`mark-${kind}`)));
  }

  /** The colours of the classes. */
  names() {
    return this.result.classes.slice(1).map((/** @type {string} */ name, /** @type {number} */ i) => {
      const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
      swatch.style.background = this.result.colours[i + 1];
      return el("span", {}, swatch, name);
    });
  }

  /** @param {any} picture @returns {Verdict[]} */
  verdicts(picture) {
    return judged(picture.found, picture.true, this.threshold, this.result.classes.length);
  }

  /** Objects, or pixels, by true and said class, at the threshold. */
  matrix() {
    const { classes } = this.result;
    const n = classes.length + (this.boxes ? 1 : 0);
    const counts = Array.from({ length: n }, () => new Array(n).fill(0));
    for (const picture of this.pictures) {
      if (this.boxes) for (const v of this.verdicts(picture)) counts[v.meant][v.said]++;
      else picture.counts.forEach((/** @type {number} */ c, /** @type {number} */ i) => { counts[Math.floor(i / n)][i % n] += c; });
    }
    return counts;
  }

  /** Those that belong to what is chosen. */
  chosen() {
    const { cell, show, boxes } = this;
    const n = this.result.classes.length;
    const has = (/** @type {any} */ p) => (boxes ? this.verdicts(p).some((v) => this.wanted(v)) : !cell || p.counts[cell[0] * n + cell[1]] > 0);
    const list = cell || (boxes && show !== "all") ? this.pictures.filter(has) : [...this.pictures];
    if (cell && !boxes) list.sort((a, b) => b.counts[cell[0] * n + cell[1]] - a.counts[cell[0] * n + cell[1]]);
    return list;
  }

  /** @param {Verdict} v */
  wanted(v) {
    if (this.cell && (v.meant !== this.cell[0] || v.said !== this.cell[1])) return false;
    return this.show === "all" || this.show === v.kind;
  }

  async draw() {
    const list = this.chosen();
    const pages = Math.max(1, Math.ceil(list.length / PAGE));
    this.page = Math.min(this.page, pages - 1);
    this.limit.textContent = `${Math.round(100 * this.threshold)} %`;
    this.remember();
    this.drawMatrix();
    this.drawPager(pages, list.length);
    const here = list.slice(this.page * PAGE, (this.page + 1) * PAGE);
    const asked = this.asked = {};
    try {
      for (const p of here) {
        if (!this.known.has(p.index)) this.known.set(p.index,
          await getPacked(`runs/${this.run}/${this.result.task}/pictures/${p.index}`));
        if (asked !== this.asked) return;
      }
    } catch (error) {
      return complain(error);
    }
    if (!here.length) return fill(this.sheet, el("p", { class: "hint" }, t("found-none")));
    fill(this.sheet, ...here.map((p) => this.figure(p)));
  }

  drawMatrix() {
    const { classes } = this.result;
    const names = { down: this.boxes ? [...classes, t("nothing")] : classes, across: this.boxes ? [...classes, t("missed")] : classes };
    fill(this.table, matrixTable(names, this.matrix(), (right, said) => {
      this.cell = this.cell && this.cell[0] === right && this.cell[1] === said ? null : [right, said];
      this.show = this.boxes ? "all" : "differs";
      this.page = 0;
      this.frame();
      this.draw();
      /** @type {HTMLElement | null} */ (this.table.querySelector(
        `tbody tr:nth-child(${right + 1}) td:nth-of-type(${said + 1}) button`))?.focus();
    }), this.cell && el("p", { class: "soft" }, t("cell-open", { true: names.down[this.cell[0]],
      said: names.across[this.cell[1]] }), " ", el("button", { type: "button", onclick: () => {
      this.cell = null;
      this.draw();
    } }, t("cell-close"))));
  }

  /** @param {number} pages @param {number} n */
  drawPager(pages, n) {
    const turn = (/** @type {string} */ text, /** @type {string} */ label, /** @type {number} */ to) => el("button", {
      type: "button", "aria-label": label, disabled: to < 0 || to >= pages, onclick: () => {
        this.page = to;
        this.draw();
      } }, text);
    fill(this.pager, el("span", { class: "soft" }, t("n-pictures", { n: count(n) })), turn("\u2039", t("page-before"), this.page - 1),
      el("span", { class: "figure" }, t("page-of", { n: this.page + 1, of: pages })), turn("\u203a", t("page-after"), this.page + 1));
  }

  /** @param {any} picture */
  figure(picture) {
    const { head, values } = /** @type {import("./api.js").Packed} */ (this.known.get(picture.index));
    const [channels, height, width] = head.shape;
    const canvas = el("canvas", { role: "img" });
    const zoom = SIDE / Math.max(height, width);
    const pen = sized(canvas, width * zoom, height * zoom);
    pen.imageSmoothingEnabled = zoom < 1;
    pen.drawImage(thumbnail(values, head.shape), 0, 0, width * zoom, height * zoom);
    let words = "";
    if (this.boxes) words = this.drawBoxes(pen, picture, zoom);
    else {
      this.drawMask(pen, values.subarray(channels * height * width), [height, width, zoom]);
      words = `IoU ${(100 * picture.iou).toFixed(1)} %`;
    }
    canvas.setAttribute("aria-label", `${t("test-picture", { n: picture.index })}. ${words}`);
    return el("figure", { class: "seen", "data-picture": picture.index }, canvas, el("figcaption", {},
      el("span", {}, t("test-picture", { n: picture.index })), el("span", { class: "soft" }, words)));
  }

  /** @param {CanvasRenderingContext2D} pen @param {any} picture @param {number} zoom @returns {string} in words */
  drawBoxes(pen, picture, zoom) {
    const style = getComputedStyle(this.host);
    const all = this.verdicts(picture);
    for (const v of all.filter((one) => this.wanted(one))) {
      const [x1, y1, x2, y2] = v.box.slice(0, 4).map((c) => c * zoom);
      const colour = style.getPropertyValue({ right: "--accent", wrong: "--plus", missed: "--odd" }[v.kind]);
      pen.setLineDash(v.kind === "missed" ? [4, 3] : []);
      for (const [ink, wide] of /** @type {[string, number][]} */ ([["rgba(255,255,255,.85)", 4], [colour, 2]])) {
        pen.strokeStyle = ink;
        pen.lineWidth = wide;
        pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
      }
      pen.setLineDash([]);
      this.label(pen, v, [x1, y1, y2], colour);
    }
    const n = (/** @type {string} */ kind) => all.filter((v) => v.kind === kind).length;
    return t("found-says", { right: n("right"), wrong: n("wrong"), missed: n("missed") });
  }

  /** @param {CanvasRenderingContext2D} pen @param {Verdict} v @param {number[]} at @param {string} back `rgb(r, g, b)` */
  label(pen, v, [x, top, bottom], back) {
    const name = this.result.classes[v.kind === "missed" ? v.meant : v.said];
    const text = v.kind === "missed" ? name : `${name} ${number(Number(v.box[5].toFixed(2)))}`;
    pen.font = `11px ${getComputedStyle(this.host).fontFamily}`;
    const y = top > 16 ? top - 16 : bottom;
    pen.fillStyle = back;
    pen.fillRect(x - 1, y, pen.measureText(text).width + 8, 16);
    pen.fillStyle = inkOn((back.match(/\d+/g) ?? []).map(Number));
    pen.fillText(text, x + 3, y + 12);
  }

  /** @param {CanvasRenderingContext2D} pen @param {Float32Array} planes what is true, said, and how sure @param {number[]} size */
  drawMask(pen, planes, [height, width, zoom]) {
    const n = height * width;
    const [meant, said, sure] = [0, 1, 2].map((i) => planes.subarray(i * n, (i + 1) * n));
    const image = new ImageData(width, height);
    const colours = this.result.colours.map((/** @type {string} */ c) => (c.match(/\d+/g) ?? []).map(Number));
    for (let i = 0; i < n; i++) {
      const label = this.show === "true" ? meant[i] : said[i];
      const counts = this.show === "true" || sure[i] >= this.threshold;
      const hit = this.show === "differs" ? said[i] !== meant[i] && meant[i] < colours.length : label > 0 && label < colours.length;
      if (counts && hit) image.data.set([...(this.show === "differs" && label === 0 ? colours[meant[i]] : colours[label]), 170], 4 * i);
    }
    const over = new OffscreenCanvas(width, height);
    /** @type {OffscreenCanvasRenderingContext2D} */ (over.getContext("2d")).putImageData(image, 0, 0);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(over, 0, 0, width * zoom, height * zoom);
  }
}
