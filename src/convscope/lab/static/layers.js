// @ts-check
// The list of layers: what each makes, costs and sees; found by name, type or shape.
import { el, fill } from "./dom.js";
import { count, plain, shape, short } from "./format.js";
import { t } from "./words.js";

/**
 * @typedef {{index: number, module: string, op: string, output_shape: number[], params: number, macs: number | null,
 *   receptive_field: {size: number[] | null, stride: number[] | null, padding: number[] | null, global_through: string[]} |
 *   null}} Row
 */
const SHOWN = 300;

export class Layers {
  /** @param {HTMLElement} host @param {(row: Row) => void} chosen */
  constructor(host, chosen) {
    this.chosen = chosen;
    /** @type {Row[]} */
    this.rows = [];
    this.current = -1;
    this.most = SHOWN;
    this.search = el("input", { type: "search", class: "search", autocomplete: "off", spellcheck: "false",
      oninput: () => {
      this.most = SHOWN;
      this.draw();
    } });
    this.list = el("ul", { class: "rows", role: "list" });
    this.total = el("p", { class: "total" });
    this.host = host;
  }

  /** @param {{rows: Row[], total: {params: number, macs: number, unknown: string[]}}} answer */
  show(answer) {
    this.rows = answer.rows;
    this.answer = answer;
    this.frame();
  }

  frame() {
    this.search.setAttribute("aria-label", t("search"));
    this.search.placeholder = t("search");
    fill(this.host, el("h2", { class: "unseen" }, t("layers")), this.search, this.list, this.total);
    const total = this.answer?.total;
    if (total) {
      const least = total.unknown.length ? "\u2265 " : "";
      this.total.textContent = t("totals", { params: count(total.params), macs: least + short(total.macs) });
      this.total.title = least ? t("uncounted", { names: total.unknown.join(", ") }) : `${count(total.macs)} MACs`;
    }
    this.draw();
  }

  /** @param {number} index the operator's number */
  select(index) {
    this.current = index;
    const at = this.found().findIndex((r) => r.index === index);
    if (at >= this.most) this.most = at + SHOWN;
    this.draw();
    this.list.querySelector("[aria-current=true]")?.scrollIntoView({ block: "nearest" });
  }

  found() {
    const words = this.search.value.toLowerCase().replaceAll("\u00d7", "x").split(/\s+/).filter(Boolean);
    return this.rows.filter((r) => {
      const text = `${r.module} ${r.op} ${r.output_shape.join("x")}`.toLowerCase();
      return words.every((w) => text.includes(w));
    });
  }

  draw() {
    const found = this.found();
    const rest = found.length - this.most;
    fill(this.list,
      ...found.slice(0, this.most).map((r) => el("li", {}, this.button(r))),
      rest > 0 && el("li", {}, el("button", { type: "button", class: "more", onclick: () => {
        this.most += SHOWN;
        this.draw();
      } }, t("more", { n: count(rest) }))),
      found.length === 0 && el("li", { class: "empty" }, t("no-layer")),
    );
  }

  /** @param {Row} row */
  button(row) {
    const name = row.module || row.op;
    const cut = name.lastIndexOf(".") + 1;
    const cost = [row.params ? t("n-params", { n: count(row.params) }) : "", row.macs ? `${short(row.macs)} MACs` : ""];
    return el("button", {
      type: "button", "aria-current": String(row.index === this.current), title: name,
      onclick: () => this.chosen(row),
    },
    el("span", { class: "name" }, el("bdi", {}, name.slice(0, cut), el("strong", {}, name.slice(cut)))),
    el("span", { class: "type" }, plain(row.op)),
    el("span", { class: "size" }, shape(row.output_shape.slice(1)) || "1"),
    el("span", { class: "sees" }, sees(row)),
    cost[0] || cost[1] ? el("span", { class: "cost" }, cost.filter(Boolean).join(" \u00b7 ")) : null);
  }
}

/** @param {Row} row */
function sees(row) {
  const field = row.receptive_field;
  if (!field) return "";
  return field.global_through.length ? t("whole") : field.size ? `${shape(field.size)} px` : "";
}
