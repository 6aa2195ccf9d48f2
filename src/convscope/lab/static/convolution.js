// @ts-check
// The convolution page: a sliding kernel, its transpose in two views, and the same as a product of matrices.
import { Controls, RANGES } from "./controls.js";
import { el, fill, segments, sized } from "./dom.js";
import { state } from "./notices.js";
import { save, savePng } from "./save.js";
import { columns, convolved, group, inserted, kernelOf, numbers, outSize, refusal, scattered, span, stretched, taps,
  turned } from "./slide.js";
import { drawPlane, drawSign, drawWindow, TITLE } from "./stage.js";
import { numberOf, remember, shown } from "./state.js";
import { SvgPen } from "./svgpen.js";
import { fileOf, page } from "./vector.js";
import { t } from "./words.js";

/** @typedef {import("./slide.js").Settings} Settings */
const VIEWS = ["slide", "transposed", "matrix"];
const TICK = 450; // ms a frame
const START = { size: 5, inputs: 1, outputs: 1, kernel: 3, stride: 1, padding: 1, dilation: 1, groups: 1, outpad: 0 };
const GAP = 34;
const [LEAST, MOST] = [9, 52]; // px of a cell

/** @param {HTMLElement} main @returns {Promise<() => void>} */
export async function begin(main) {
  const page = new Convolution(main);
  page.frame();
  return () => page.frame();
}

class Convolution {
  /** @param {HTMLElement} main */
  constructor(main) {
    const asked = shown();
    this.view = VIEWS.includes(asked.get("view") ?? "") ? asked.get("view") ?? "slide" : "slide";
    const given = Object.fromEntries(RANGES.map(([key, low, high]) => [key,
      numberOf(key, START[/** @type {keyof typeof START} */ (key)], low, high)]));
    /** @type {Settings} */
    this.settings = /** @type {any} */ ({ ...given, transposed: this.view === "transposed" });
    if (refusal(this.settings)) this.settings = { ...START, transposed: this.settings.transposed };
    this.output = Math.min(numberOf("channel", 0, 0, 3), this.settings.outputs - 1);
    this.seed = numberOf("seed", 1, 1, 9999);
    this.step = numberOf("step", 0, 0, 10000);
    this.timer = 0;
    /** @type {any} */
    this.sheet = null; // where it is drawn as SVG
    this.left = el("section", { class: "left" });
    this.stage = el("div", { class: "stage", tabIndex: 0, role: "region" });
    this.canvas = el("canvas", { role: "img" });
    this.player = el("div", { class: "player" });
    this.says = el("div", { class: "says-all" });
    this.panel = el("div", { class: "settings" });
    fill(main, this.left, el("section", { class: "centre" }, this.player, this.stage, this.says));
    fill(this.stage, this.canvas);
    this.controls = new Controls(this.panel, this.settings, (settings) => {
      this.settings = settings;
      this.output = Math.min(this.output, settings.outputs - 1);
      this.step = 0;
      this.renew();
    });
    this.make();
    new ResizeObserver(() => this.draw()).observe(this.stage);
  }

  make() {
    this.data = numbers(this.settings, this.seed);
    this.step = Math.min(this.step, this.frames() - 1);
  }

  /** How many frames there are; with two views, as many as the longer one has. */
  frames() {
    const made = outSize(this.settings) ** 2;
    return this.view === "transposed" ? Math.max(made, this.settings.size ** 2) : made;
  }

  frame() {
    this.stage.setAttribute("aria-label", t("convolution"));
    const views = /** @type {[string, string][]} */ (VIEWS.map((v) => [v, t(`view-${v}`)]));
    fill(this.left, segments(t("view"), views, this.view, (v) => this.look(v)), this.panel,
      el("button", { type: "button", onclick: () => {
        this.seed = (this.seed % 9999) + 1;
        this.renew();
      } }, t("new-numbers")),
      el("div", { class: "line" },
        el("button", { type: "button", onclick: () => savePng([this.canvas], getComputedStyle(document.body).backgroundColor,
          `${this.view}-${this.step}.png`) }, t("save-shown")),
        el("button", { type: "button", onclick: () => save(fileOf(this.drawn()), `${this.view}-${this.step}.svg`) }, t("save-svg"))));
    this.controls.frame();
    this.renew();
  }

  /** @param {string} view */
  look(view) {
    this.view = view;
    this.settings = { ...this.settings, transposed: view === "transposed" };
    if (refusal(this.settings)) this.settings = { ...this.settings, padding: 0, outpad: 0 };
    if (refusal(this.settings)) this.settings = { ...START, transposed: view === "transposed" };
    this.controls.settings = this.settings;
    this.step = 0;
    this.controls.frame();
    this.renew();
  }

  /** After a change of settings: new numbers, new player, new picture. */
  renew() {
    this.make();
    this.play(false);
    const { outputs } = this.settings;
    const slider = el("input", { type: "range", min: 0, max: this.frames() - 1, value: String(this.step),
      "aria-label": t("frame"), oninput: () => this.go(Number(slider.value)) });
    this.slider = slider;
    this.where = el("output", { class: "figure" });
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const button = (/** @type {string} */ text, /** @type {string} */ label,
      /** @type {() => void} */ act) => el("button", { type: "button", "aria-label": label, title: label,
        onclick: act }, text);
    this.start = el("button", { type: "button", class: "play", disabled: still, title: still ? t("still") : null,
      onclick: () => this.play(!this.timer) }, t("play"));
    fill(this.player, this.start, button("\u2039", t("step-back"), () => this.go(this.step - 1)),
      button("\u203a", t("step-on"), () => this.go(this.step + 1)), slider, this.where,
      outputs > 1 && segments(t("output-channel"), Array.from({ length: outputs },
        (_, i) => [String(i), t("output-n", { n: i })]), String(this.output), (v) => {
        this.output = Number(v);
        this.draw();
      }));
    this.draw();
    const { transposed, ...kept } = this.settings;
    const changed = Object.fromEntries(Object.entries(kept).map(([k, v]) => [k,
      v === START[/** @type {keyof typeof START} */ (k)] ? null : v]));
    remember({ view: this.view === "slide" ? null : this.view, seed: this.seed === 1 ? null : this.seed, ...changed });
    state(true);
  }

  /** @param {number} step */
  go(step) {
    this.step = (step + this.frames()) % this.frames();
    if (this.slider) this.slider.value = String(this.step);
    this.draw();
  }

  /** @param {boolean} on */
  play(on) {
    clearInterval(this.timer);
    this.timer = on ? setInterval(() => this.go(this.step + 1), TICK) : 0;
    if (this.start) this.start.textContent = on ? t("pause") : t("play");
  }

  draw() {
    if (!this.stage.clientWidth || !this.where) return;
    this.where.textContent = `${this.step + 1} / ${this.frames()}`;
    const style = getComputedStyle(this.stage);
    if (this.view === "slide") this.drawSlide(style);
    else if (this.view === "transposed") this.drawTransposed(style);
    else this.drawMatrix(style);
    remember({ step: this.step || null, channel: this.output || null });
  }

  /** @param {number} width in cells @param {number} tall in cells @param {number} gaps @param {number} [most] */
  cell(width, tall, gaps, most = MOST) {
    const room = (this.stage.clientWidth - 40 - gaps * GAP) / width;
    return Math.max(LEAST, Math.min(most, Math.floor(room), Math.floor((this.stage.clientHeight - 60) / tall)));
  }

  /** The width of so many cells, or of the titles above them. @param {number} cells @param {...string} titles */
  width(cells, ...titles) {
    const pen = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    pen.font = `12px ${getComputedStyle(this.stage).fontFamily}`;
    return Math.max(cells, ...titles.map((title) => pen.measureText(title).width + 6 - GAP / 2));
  }

  /** @param {CSSStyleDeclaration} style @param {number} wide @param {number} tall */
  brush(style, wide, tall) {
    const pen = sized(this.canvas, Math.max(wide, 10), Math.max(tall, 10));
    if (!this.sheet) return { pen, style };
    Object.assign(this.sheet, { wide, tall, pen: new SvgPen(pen) });
    return { pen: /** @type {any} */ (this.sheet.pen), style };
  }

  /** What is shown as SVG. */
  drawn() {
    this.sheet = /** @type {any} */ ({});
    this.draw();
    const { pen, wide, tall } = this.sheet;
    this.sheet = null;
    this.draw();
    return page(wide, tall, ...pen.made);
  }

  /** @param {CSSStyleDeclaration} style */
  drawSlide(style) {
    const s = this.settings;
    const { x, weights } = this.data ?? numbers(s, this.seed);
    const size = outSize(s);
    const [row, column] = [Math.floor(this.step / size), this.step % size];
    const padded = s.size + 2 * s.padding;
    const read = group(s, this.output);
    const { cell, columns: [across, abreast], inputWide, kernelWide, wide, tall } = arranged(
      { inputs: s.inputs, kernels: read.length, padded, kernel: s.kernel, size },
      [this.width(0, ...read.map((channel) => t("kernel-n", { n: channel }))), this.width(0, t("output-n", { n: this.output }))],
      [this.stage.clientWidth - 40, this.stage.clientHeight - 40]);
    const kernelX = 4 + across * inputWide + GAP / 2;
    const outX = kernelX + abreast * kernelWide + GAP / 2;
    const brush = this.brush(style, wide, tall);
    x.forEach((plane, channel) => {
      const [left, y] = [4 + (channel % across) * inputWide, Math.floor(channel / across) * line(padded, cell)];
      const shownPlane = bordered(plane, s.padding);
      const mine = read.includes(channel);
      const border = (/** @type {number} */ r,
        /** @type {number} */ c) => r < s.padding || c < s.padding || r >= s.padding + s.size || c >= s.padding + s.size;
      const hit = (/** @type {number} */ i,
        /** @type {number} */ at) => i - at * s.stride >= 0 && i - at * s.stride < span(s) && (i - at * s.stride) % s.dilation === 0;
      drawPlane(brush, shownPlane, left, y, cell, { title: t("input-n", { n: channel }),
        scale: { limit: 9, signed: false }, faint: border, faded: !mine, marked: (r,
          c) => mine && s.dilation > 1 && hit(r, row) && hit(c, column) });
      if (mine) drawWindow(brush, left, y, cell, [row * s.stride, column * s.stride, span(s), span(s)]);
    });
    drawSign(brush, "\u00d7", kernelX - GAP / 2, TITLE + (s.kernel * cell) / 2);
    read.forEach((channel, i) => drawPlane(brush, kernelOf(s, weights, channel, this.output),
      kernelX + (i % abreast) * kernelWide, Math.floor(i / abreast) * line(s.kernel, cell), cell, { title: t("kernel-n", { n: channel }), scale: { limit: 2, signed: true } }));
    drawSign(brush, "=", outX - GAP / 2, TITLE + (s.kernel * cell) / 2);
    drawPlane(brush, convolved(s, x, weights, this.output, this.step), outX, 0, cell,
      { title: t("output-n", { n: this.output }), scale: this.scale(), marked: (r, c) => r === row && c === column });
    const terms = taps(s, x, weights, this.output, row, column);
    this.tell(terms.map((p) => [p.value, p.weight]), `[${row}, ${column}]`);
  }

  /** One scale for all frames: that of the finished output. */
  scale() {
    const { x, weights } = this.data ?? numbers(this.settings, this.seed);
    const s = this.settings;
    const all = (s.transposed ? scattered(s, x, weights, this.output, Infinity) : convolved(s, x, weights, this.output,
      Infinity)).flat();
    const limit = Math.max(1, ...all.map((v) => Math.abs(v ?? 0)));
    return { limit, signed: true };
  }

  /** @param {CSSStyleDeclaration} style */
  drawTransposed(style) {
    const s = this.settings;
    const { x, weights } = this.data ?? numbers(s, this.seed);
    const size = outSize(s);
    const share = (/** @type {number} */ count) => Math.min(count - 1, Math.floor((this.step * count) / this.frames()));
    const [from, to] = [share(s.size ** 2), share(size ** 2)];
    const [fr, fc, tr, tc] = [Math.floor(from / s.size), from % s.size, Math.floor(to / size), to % size];
    const read = group(s, this.output);
    const whole = scattered(s, x, weights, this.output, from);
    const wide = stretched(s, x[read[0]]);
    const n = wide.cells.length;
    const k = s.kernel;
    const [above, under] = [Math.max(s.size, whole.length), Math.max(n, size)];
    const cell = this.cell(k + Math.max(s.size + whole.length, n + size), above + under + 2, 5);
    const title = read.length > 1 ? t("input-first", { n: read[0], of: read.length }) : t("input-n", { n: read[0] });
    const middle = 4 + this.width(s.size * cell, title) + GAP;
    const right = middle + this.width(k * cell, t("kernel")) + GAP;
    const turnedX = 4 + this.width(n * cell, t("stretch")) + GAP;
    const out = turnedX + this.width(k * cell, t("turned")) + GAP;
    const brush = this.brush(style, Math.max(right + this.width(whole.length * cell, t("scatter")), out + size * cell) + GAP,
      (above + under) * cell + 2 * TITLE + GAP + 8);
    const kernel = kernelOf(s, weights, read[0], this.output);
    const scale = { limit: 2, signed: true };
    drawPlane(brush, x[read[0]], 4, 0, cell, { title, scale: { limit: 9, signed: false },
      marked: (r, c) => r === fr && c === fc });
    drawSign(brush, "\u00d7", middle - GAP / 2, TITLE + (k * cell) / 2);
    drawPlane(brush, kernel, middle, 0, cell, { title: t("kernel"), scale });
    drawSign(brush, "\u2192", right - GAP / 2, TITLE + (k * cell) / 2);
    const edge = (/** @type {number} */ i) => i < s.padding || i >= s.padding + size;
    drawPlane(brush, whole, right, 0, cell, { title: t("scatter"), scale: this.scale(),
      faint: (r, c) => edge(r) || edge(c) });
    drawWindow(brush, right, 0, cell, [fr * s.stride, fc * s.stride, span(s), span(s)]);
    const y = above * cell + TITLE + GAP / 2;
    drawPlane(brush, wide.cells, 4, y, cell, { title: t("stretch"), scale: { limit: 9, signed: false },
      faint: (r, c) => !wide.real[r][c] });
    drawWindow(brush, 4, y, cell, [tr, tc, span(s), span(s)]);
    drawSign(brush, "\u00d7", turnedX - GAP / 2, y + TITLE + (k * cell) / 2);
    drawPlane(brush, turned(kernel), turnedX, y, cell, { title: t("turned"), scale });
    drawSign(brush, "\u2192", out - GAP / 2, y + TITLE + (k * cell) / 2);
    drawPlane(brush, inserted(s, x, weights, this.output, to), out, y, cell,
      { title: t("output-n", { n: this.output }), scale: this.scale(), marked: (r, c) => r === tr && c === tc });
    const pairs = read.flatMap((channel) => {
      const { cells } = stretched(s, x[channel]);
      return turned(kernelOf(s, weights, channel, this.output)).flatMap((line,
        i) => line.map((w, j) => /** @type {[number, number]} */ ([cells[tr + i * s.dilation][tc + j * s.dilation],
          w])));
    });
    this.tell(pairs, `[${tr}, ${tc}]`);
  }

  /** @param {CSSStyleDeclaration} style */
  drawMatrix(style) {
    const s = this.settings;
    const { x, weights } = this.data ?? numbers(s, this.seed);
    const { matrix, inside, kernel } = columns(s, x, weights, this.output);
    const count = matrix[0].length;
    const cell = this.cell(Math.max(count, kernel.length) + 1, matrix.length + 3, 1, 34);
    const brush = this.brush(style, Math.max(count, kernel.length) * cell + 12,
      (matrix.length + 2) * cell + 3 * TITLE + GAP);
    drawPlane(brush, [kernel], 4, 0, cell, { title: t("row-kernel"), scale: { limit: 2, signed: true } });
    const y = cell + TITLE + 10;
    drawPlane(brush, matrix, 4, y, cell, { title: t("patches"), scale: { limit: 9, signed: false },
      faint: (r, c) => !inside[r][c] });
    drawWindow(brush, 4, y, cell, [0, this.step, matrix.length, 1]);
    const below = y + TITLE + matrix.length * cell + 10;
    const flat = convolved(s, x, weights, this.output, this.step).flat();
    drawPlane(brush, [flat], 4, below, cell, { title: t("row-output"), scale: this.scale(),
      marked: (_, c) => c === this.step });
    this.tell(kernel.map((w, i) => [matrix[i][this.step], w]), `[${this.step}]`);
  }

  /** @param {number[][]} pairs values and weights @param {string} at */
  tell(pairs, at) {
    const total = pairs.reduce((sum, [v, w]) => sum + v * w, 0);
    const minus = (/** @type {number} */ v) => (v < 0 ? `(\u2212${-v})` : String(v));
    const terms = pairs.filter(([v, w]) => v && w).map(([v, w]) => `${v}\u00b7${minus(w)}`);
    const text = terms.length > 20 ? `${terms.slice(0, 20).join(" + ")} + \u2026` : terms.join(" + ") || "0";
    const made = `${t("output-n", { n: this.output })}${at} = `;
    fill(this.says, el("p", { class: "rule" }, this.rule()),
      el("p", {}, el("span", { class: "soft" }, made), text,
        el("strong", {}, ` = ${String(total).replace("-", "\u2212")}`)));
    this.canvas.setAttribute("aria-label", `${made}${total}`);
  }

  /** The size's formula with its numbers. */
  rule() {
    const s = this.settings;
    const m = outSize(s);
    const [word, rule] = s.transposed
      ? ["(n \u2212 1)\u00b7s \u2212 2p + d(k \u2212 1) + 1 + o",
        `(${s.size} \u2212 1)\u00b7${s.stride} \u2212 2\u00b7${s.padding} + ${s.dilation}\u00b7(${s.kernel} \u2212 1) + 1 + ${s.outpad}`]
      : ["\u230a(n + 2p \u2212 d(k \u2212 1) \u2212 1) / s\u230b + 1",
        `\u230a(${s.size} + 2\u00b7${s.padding} \u2212 ${s.dilation}\u00b7(${s.kernel} \u2212 1) \u2212 1) / ${s.stride}\u230b + 1`];
    return `${t("out-size")} = ${word} = ${rule} = ${m}`;
  }
}

/** The height of so many cells with their title. @param {number} cells @param {number} cell */
function line(cells, cell) {
  return cells * cell + TITLE + 12;
}

/**
 * How many inputs and kernels stand beside each other so that the cells are largest, and what room that takes.
 * @param {{inputs: number, kernels: number, padded: number, kernel: number, size: number}} planes how many, and their cells
 * @param {number[]} titles widths of those above a kernel and above the output @param {number[]} room width and height
 */
function arranged(planes, [kernelTitle, outTitle], [width, height]) {
  const tried = (/** @type {number[]} */ columns, /** @type {number} */ cell) => {
    const inputWide = planes.padded * cell + GAP / 2;
    const kernelWide = Math.max(planes.kernel * cell, kernelTitle) + GAP / 2;
    const wide = 4 + columns[0] * inputWide + columns[1] * kernelWide + 2 * GAP + Math.max(planes.size * cell, outTitle);
    const tall = 6 + Math.max(Math.ceil(planes.inputs / columns[0]) * line(planes.padded, cell),
      Math.ceil(planes.kernels / columns[1]) * line(planes.kernel, cell), line(planes.size, cell));
    return { cell, columns, inputWide, kernelWide, wide, tall };
  };
  let best = tried([Math.min(2, planes.inputs), 1], LEAST);
  for (let across = planes.inputs; across > 0; across--) {
    for (let abreast = planes.kernels; abreast > 0; abreast--) {
      for (let cell = MOST; cell > best.cell; cell--) {
        const one = tried([across, abreast], cell);
        if (one.wide <= width && one.tall <= height) best = one;
      }
    }
  }
  return best;
}

/** @param {number[][]} plane @param {number} by */
function bordered(plane, by) {
  const size = plane.length + 2 * by;
  return Array.from({ length: size }, (_, r) => Array.from({ length: size }, (_, c) => plane[r - by]?.[c - by] ?? 0));
}
