// @ts-check
// The confusion matrix; a cell opens its pictures, a picture what the network thought of it.
import { getJson, getPacked } from "./api.js";
import { el, fill, sized } from "./dom.js";
import { count, short } from "./format.js";
import { complain } from "./notices.js";
import { likeliest } from "./likeliest.js";
import { remember, shown as address } from "./state.js";
import { thumbnail } from "./thumbnail.js";
import { t } from "./words.js";

const SIDE = 56;
const MOST = 60; // classes of which a matrix can be read; of more, the largest confusions are listed
const PAIRS = 40;

export class Confusion {
  /** @param {HTMLElement} host */
  constructor(host) {
    this.host = host;
    this.run = 0;
    /** @type {any} */
    this.result = null;
    this.opened = el("div", { class: "opened" });
  }

  /** @param {number} run @param {any} result */
  show(run, result) {
    this.run = run;
    this.result = result;
    this.draw();
    const [right, said] = (address().get("cell") ?? "").split(",").map(Number);
    if (result && right < result.classes.length && said < result.classes.length) this.open(right, said);
  }

  draw() {
    const { result } = this;
    if (!result) return fill(this.host);
    const [low, high] = result.interval;
    const percent = (/** @type {number} */ v) => (100 * v).toFixed(2);
    fill(this.opened, el("p", { class: "hint" }, t("open-cell")));
    fill(this.host, el("h2", {}, t("confusion")),
      el("p", {}, t("accuracy", { share: percent(result.accuracy), low: percent(low), high: percent(high),
        n: count(result.images) })),
      el("div", { class: "split" },
        result.classes.length > MOST ? this.pairs() : this.table(), this.opened));
  }

  table() {
    const { classes, confusion } = this.result;
    return matrixTable({ down: classes, across: classes }, confusion, (right, said) => this.open(right, said));
  }

  /** The largest confusions as a list, for more classes than a matrix can show. */
  pairs() {
    const { classes, confusion } = this.result;
    const wrong = confusion.flatMap((/** @type {number[]} */ row, /** @type {number} */ right) =>
      row.map((n, said) => ({ n, right, said })).filter((c) => c.n && c.right !== c.said));
    wrong.sort((/** @type {any} */ a, /** @type {any} */ b) => b.n - a.n);
    return el("ul", { class: "rows pairs", role: "list" }, ...wrong.slice(0, PAIRS).map((/** @type {any} */ c) => el("li", {},
      el("button", { type: "button", onclick: () => this.open(c.right, c.said) },
        t("cell", { n: c.n, true: classes[c.right], said: classes[c.said] })))));
  }

  /** @param {number} right @param {number} said */
  async open(right, said) {
    try {
      const { head, values } = await getPacked(`runs/${this.run}/cells/${right}/${said}`, "cell");
      const names = this.result.classes;
      remember({ cell: `${right},${said}` });
      const plane = head.shape.reduce((/** @type {number} */ a, /** @type {number} */ b) => a * b, 1);
      const more = el("div", { class: "top5" });
      const pictures = head.index.map((/** @type {number} */ index, /** @type {number} */ i) => el("button", {
        type: "button", class: "thumb", "aria-label": t("test-picture", { n: index }), title: t("test-picture",
          { n: index }), onclick: () => this.think(index, more),
      }, drawn(values.subarray(i * plane, (i + 1) * plane), head.shape)));
      fill(this.opened, el("h3", {}, t("cell", { n: head.total, true: names[right], said: names[said] })),
        el("div", { class: "thumbs" }, ...pictures),
        head.total > head.index.length && el("p", { class: "soft" }, t("first-shown", { n: head.index.length })), more);
    } catch (error) {
      complain(error);
    }
  }

  /** @param {number} index @param {HTMLElement} host */
  async think(index, host) {
    try {
      const answer = await getJson(`runs/${this.run}/predictions/${index}`, "prediction");
      fill(host, el("h3", {}, t("thought", { n: index, true: answer.true })),
        ...likeliest(answer.top));
    } catch (error) {
      complain(error);
    }
  }
}

/** @param {Float32Array} values in 0..1 @param {number[]} shape channels, height, width */
function drawn(values, shape) {
  const [, height, width] = shape;
  const canvas = el("canvas", { "aria-hidden": "true" });
  const zoom = SIDE / Math.max(width, height);
  const pen = sized(canvas, width * zoom, height * zoom);
  pen.imageSmoothingEnabled = zoom < 1;
  pen.drawImage(thumbnail(values, shape), 0, 0, width * zoom, height * zoom);
  return canvas;
}

/**
 * What is true down, what was said across; a cell opens what is in it.
 * @param {{down: string[], across: string[]}} names @param {number[][]} counts
 * @param {(right: number, said: number) => void} open
 */
export function matrixTable({ down, across }, counts, open) {
  const rows = counts.map((row, right) => {
    const whole = Math.max(1, row.reduce((a, b) => a + b, 0));
    return el("tr", {}, el("th", { scope: "row", title: down[right] }, down[right]), ...row.map((n, said) => {
      const cell = el("td", { class: said === right ? "right-cell" : null }, n
        ? el("button", { type: "button", "aria-label": t("cell", { n: count(n), true: down[right], said: across[said] }),
          onclick: () => open(right, said) }, n < 1e4 ? String(n) : short(n)) : null);
      if (n) cell.style.setProperty("--share",
        `${Math.round(100 * (said === right ? 0.12 + 0.5 * (n / whole) : Math.min(1, 0.15 + 3 * (n / whole))))}%`);
      return cell;
    }));
  });
  return el("table", { class: "confusion-table" }, el("caption", { class: "unseen" }, t("confusion")),
    el("thead", {}, el("tr", {}, el("th", { scope: "col", class: "corner" }, t("true-named")),
      ...across.map((name) => el("th", { scope: "col", title: name }, name)))), el("tbody", {}, ...rows));
}
