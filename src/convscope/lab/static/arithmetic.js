// @ts-check
// One value taken apart: patch x kernel = products, the sum of each channel, the bias, the total, and what the model
// says.
import { scaleOf, swatch } from "./colour.js";
import { el, fill } from "./dom.js";
import { count, exponentOf, fixed, number, plain, power, written } from "./format.js";
import { labelled } from "./labels.js";
import { remember, shown as address } from "./state.js";
import { t } from "./words.js";

const BARS = 6;
const COLUMN = 8; // terms in a column

/** @typedef {{mean: number[], std: number[]}} Normal */

export class Arithmetic {
  /**
   * @param {HTMLElement} host
   * @param {Normal} normal
   * @param {(channel: number) => void} asked for the matrices of a channel
   */
  constructor(host, normal, asked) {
    this.host = host;
    this.normal = normal;
    this.asked = asked;
    this.raw = address().get("pixels") === "raw";
    /** @type {any} */
    this.facts = null;
    this.channel = -1;
    this.all = false;
    this.empty();
  }

  empty() {
    this.facts = null;
    fill(this.host, el("h2", { class: "unseen" }, t("arithmetic")), el("p", { class: "hint" }, t("pick")));
  }

  /** @param {any} facts of one unit @param {number} [channel] that was asked for */
  show(facts, channel = -1) {
    this.facts = facts;
    this.channel = channel;
    this.all &&= channel >= 0;
    this.draw();
  }

  draw() {
    const { facts } = this;
    if (!facts) return this.empty();
    const title = el("h2", {}, facts.layer, el("span", { class: "unit" }, ` [${facts.unit.join(", ")}]`),
      el("span", { class: "op" }, plain(facts.op)));
    if (!facts.told) {
      fill(this.host, el("header", {}, title, el("span", { class: "equals" }, `= ${number(facts.value)}`)),
        el("p", { class: "hint" }, facts.why));
      return;
    }
    fill(this.host, el("header", {}, title, this.equation()), el("div", { class: "taken" }, ...this.body()));
  }

  equation() {
    const { told } = this.facts;
    return el("p", { class: "equals" },
      el("span", { class: "result" }, number(told.total)),
      el("span", { class: "model" }, t("model-says",
        { value: number(told.says), difference: number(told.difference) })));
  }

  body() {
    const { told } = this.facts;
    if (told.matrices) {
      const shown = told.matrices.find((/** @type {any} */ m) => m.channel === this.channel) ?? told.matrices[0];
      return [this.matrices(shown), told.combine === "sum" ? this.sums(shown.channel) : this.largest(shown)];
    }
    if (told.largest) return [this.terms([...told.largest, ...told.named], told.others, told.rest)];
    return [this.terms(told.named, told.more_named, null), told.formula ? el("p", { class: "formula" },
      written(told.formula)) : null];
  }

  /** @param {any} shown the matrices of one channel */
  matrices(shown) {
    const { told } = this.facts;
    const raw = this.raw && told.from_input;
    const patch = raw ? shown.patch.map((/** @type {number[]} */ row) => row.map((v) => this.pixel(v,
      shown.at[1]))) : shown.patch;
    const title = raw ? t("patch-raw") : t("patch");
    const parts = [this.matrix(title, patch, shown.inside, raw ? "raw" : "",
      told.combine === "max" ? shown.winner : null)];
    if (told.combine === "sum") {
      parts.push(el("span", { class: "sign", "aria-hidden": "true" }, "\u00d7"),
        this.matrix(t("kernel"), shown.kernel, shown.inside, "kernel", null),
        el("span", { class: "sign", "aria-hidden": "true" }, "="), this.matrix(t("products"), shown.products,
          shown.inside, "", null));
    }
    const toggle = told.from_input && this.normal.mean && told.combine === "sum" ? el("label", { class: "check" },
      el("input", { type: "checkbox", checked: this.raw, onchange: () => {
        this.raw = !this.raw;
        remember({ pixels: this.raw ? "raw" : null });
        this.draw();
      } }), t("raw")) : null;
    return el("div", { class: "matrices" }, el("div", { class: "row" }, ...parts), el("p", { class: "soft" },
      t("channel-of", { c: shown.channel, n: told.channels }), " ", toggle));
  }

  /** @param {number} value @param {number} channel the pixel before normalisation, 0 to 255 */
  pixel(value, channel) {
    const { mean, std } = this.normal;
    return 255 * (value * (std[channel] ?? std[0]) + (mean[channel] ?? mean[0]));
  }

  /**
   * @param {string} name @param {(number | null)[][]} values @param {boolean[][]} inside @param {string} kind
   * @param {number[] | null} winner
   */
  matrix(name, values, inside, kind, winner) {
    const flat = values.flat().map((v) => v ?? NaN);
    const scale = kind === "raw" ? { limit: 255, signed: false } : { ...scaleOf(flat), signed: true };
    const exponent = kind === "raw" ? 0 : exponentOf(flat);
    const rows = values.map((row, r) => el("tr", {}, ...row.map((v, c) => {
      const out = !inside[r][c];
      const text = out && kind !== "kernel" ? (kind === "raw" ? "" : "0") : fixed(v, exponent, kind === "raw" ? 0 : 2);
      const cell = el("td",
        { class: [out ? "pad" : "",
          winner && winner[0] === r && winner[1] === c ? "winner" : ""].join(" ").trim() || null, title: out ? t("padding") : number(v) }, text);
      if (!out) {
        const { back, ink } = swatch(v, scale);
        cell.style.backgroundColor = back;
        cell.style.color = ink;
      }
      return cell;
    })));
    const wide = values[0].length > 7 ? "wide" : values[0].length > 5 ? "broad" : "";
    return el("figure", { class: "matrix" }, el("figcaption", {}, name,
      exponent ? el("span", { class: "power" }, `, ${power(exponent)}`) : null),
      el("table", { class: `cells ${wide}` }, el("tbody", {}, ...rows)));
  }

  /**
   * @param {number} current the sum of each channel as a bar; the rest, the bias and the total
   * @returns {HTMLElement}
   */
  sums(current) {
    const { told } = this.facts;
    /** @type {[number, number][]} */
    const ranked = told.channel_sums.map((/** @type {number | null} */ v, /** @type {number} */ c) => [c, v ?? NaN]);
    ranked.sort((a, b) => size(b[1]) - size(a[1]) || a[0] - b[0]);
    const bars = this.all ? ranked.length : BARS;
    const shown = ranked.slice(0, bars);
    const rest = ranked.slice(bars).reduce((sum, [, v]) => sum + v, 0);
    const limit = Math.max(...ranked.map(([, v]) => size(v)).filter(Number.isFinite), Math.abs(told.bias ?? 0), 1e-30);
    const lines = shown.map(([c, v]) => el("button", { type: "button", class: "sum",
      "aria-pressed": String(c === current), onclick: () => this.asked(c) },
      el("span", { class: "label" }, t("channel", { c })), bar(v, limit), el("span", { class: "figure" }, number(v))));
    const line = (/** @type {string} */ text, /** @type {number} */ v, kind = "") => el("div", { class: `sum ${kind}` },
      el("span", { class: "label" }, text), kind ? el("span") : bar(v, limit), el("span", { class: "figure" },
        number(v)));
    return el("div", { class: "sums", role: "group", "aria-label": t("sums") }, ...lines,
      ranked.length > bars && el("button", { type: "button", class: "sum", onclick: () => {
        this.all = true;
        this.draw();
      } }, el("span", { class: "label" }, t("other-channels", { n: count(ranked.length - bars) })), bar(rest, limit), el("span", { class: "figure" }, number(rest))),
      ...told.named.map((/** @type {any} */ term) => line(labelled(term.label, told.channels),
        term.part ?? NaN)),
      line(t("total"), told.total ?? NaN, "total"));
  }

  /** @param {any} shown */
  largest(shown) {
    const inside = shown.inside.flat().filter(Boolean).length;
    return el("p", { class: "formula" }, t("largest-of", { n: inside }), " ",
      el("strong", {}, number(this.facts.told.total)));
  }

  /** @param {any[]} terms @param {number} more @param {number | null} rest */
  terms(terms, more, rest) {
    const { told } = this.facts;
    const limit = Math.max(...terms.map((term) => size(term.part ?? NaN)).filter(Number.isFinite), 1e-30);
    const rows = terms.map((term) => el("tr", {},
      el("td", {}, labelled(term.label, told.channels)), el("td", { class: "soft" }, term.from), el("td", { class: "num" }, number(term.value)),
      el("td", { class: "num" }, term.weight === null ? "" : number(term.weight)),
      el("td", { class: "num" }, number(term.part)), el("td", {}, bar(term.part ?? NaN, limit))));
    if (more) rows.push(el("tr", {}, el("td", { colspan: 4, class: "soft" }, t("other-terms", { n: count(more) })),
      el("td", { class: "num" }, rest === null ? "" : number(rest))));
    const half = rows.length > COLUMN ? Math.ceil(rows.length / 2) : rows.length;
    return el("div", { class: "terms-all" }, table(rows.slice(0, half), half < rows.length ? null : told.total),
      half < rows.length && table(rows.slice(half), told.total));
  }
}

/** @param {Node[]} rows of terms @param {number | null} total below them */
function table(rows, total) {
  const head = ["term", "from", "value", "weight", "part"].map((k) => el("th",
    { scope: "col", class: k === "term" || k === "from" ? null : "num" }, t(k)));
  return el("table", { class: "terms" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows),
    total !== null && el("tfoot", {}, el("tr", { class: "total" }, el("td", { colspan: 4 }, t("total")),
      el("td", { class: "num" }, number(total)))));
}

/** @param {number} value */
function size(value) {
  return Number.isFinite(value) ? Math.abs(value) : Infinity;
}

/** @param {number} value @param {number} limit a bar from the middle: blue to the left, orange to the right */
function bar(value, limit) {
  const share = Number.isFinite(value) ? Math.min(1, Math.abs(value) / limit) : 1;
  const inner = el("span", { class: Number.isFinite(value) ? (value < 0 ? "minus" : "plus") : "odd" });
  inner.style.width = `${50 * share}%`;
  return el("span", { class: "beam", "aria-hidden": "true" }, inner);
}
