// @ts-check
// The runs page: curves that grow while a run trains, and what the trained network confuses.
import { getJson } from "./api.js";
import { Confusion } from "./confusion.js";
import { compared, DASHES } from "./compare.js";
import { chart, titled } from "./curves.js";
import { el, fill } from "./dom.js";
import { count } from "./format.js";
import { Found } from "./found.js";
import { complain, state } from "./notices.js";
import { save } from "./save.js";
import { numberOf, remember, shown } from "./state.js";
import { t } from "./words.js";

const POLL = 1500; // ms between looks at a run that trains

/** @param {HTMLElement} main @returns {Promise<() => void>} */
export async function begin(main) {
  const page = new Runs(main);
  await page.start();
  return () => page.frame();
}

class Runs {
  /** @param {HTMLElement} main */
  constructor(main) {
    this.left = el("section", { class: "left" });
    this.curves = el("div", { class: "curves" });
    this.tools = el("div", { class: "tools" });
    this.matrix = el("div", { class: "confusion" });
    this.main = main;
    this.confusion = new Confusion(this.matrix);
    this.found = el("div", { class: "founds" });
    this.others = el("div", { class: "compared" });
    /** @type {Set<number>} runs that are laid over the one that is shown */
    this.beside = new Set((shown().get("with") ?? "").split(",").filter(Boolean).map(Number));
    /** @type {Map<number, any>} */
    this.logs = new Map();
    fill(main, this.left, el("section", { class: "centre", tabIndex: 0 }, this.tools, this.curves, this.others,
      this.matrix, this.found));
    /** @type {any[]} */
    this.runs = [];
    /** @type {any} */
    this.log = { rows: [], epochs: 0, finished: true };
    this.current = numberOf("run", 0, 0, 9999);
    this.smooth = numberOf("smooth", 0, 0, 95) / 100;
    this.log10 = shown().get("axis") !== "linear";
    this.hidden = new Set((shown().get("hide") ?? "").split(",").filter(Boolean));
    this.timer = 0;
  }

  async start() {
    try {
      this.runs = (await getJson("runs")).runs;
      this.frame();
      if (this.runs.length) await this.choose(this.runs.some((r) => r.id === this.current) ? this.current : this.runs[0].id);
      state(true);
    } catch (error) {
      complain(error);
    }
  }

  frame() {
    this.left.setAttribute("aria-label", t("runs"));
    if (!this.runs.length) {
      fill(this.left);
      fill(this.tools);
      fill(this.curves, el("p", { class: "hint" }, t("no-runs")));
      return;
    }
    fill(this.left, el("h2", { class: "unseen" }, t("runs")),
      el("ul", { class: "rows", role: "list" }, ...this.runs.map((run) => el("li", {},
      el("button", { type: "button", "aria-current": String(run.id === this.current),
        onclick: () => this.choose(run.id) },
        el("span", { class: "name" }, el("bdi", {}, el("strong", {}, run.name))), el("span",
          { class: run.finished ? "type" : "type live" }, run.finished ? "" : t("unfinished")),
        el("span", { class: "size" }, `${run.model}, ${run.data}`), el("span", { class: "sees" },
          t("epochs", { n: count(run.done), of: count(run.epochs) }))), this.besideBox(run)))));
    this.drawTools();
    this.draw();
    this.confusion.draw();
  }

  /** @param {any} run a box to lay it over the one that is shown */
  besideBox(run) {
    if (this.runs.length < 2 || run.id === this.current) return null;
    const box = el("input", { type: "checkbox", checked: this.beside.has(run.id), onchange: async () => {
      if (!this.beside.delete(run.id)) this.beside.add(run.id);
      remember({ with: [...this.beside].join(",") });
      await this.fetchOthers().catch(complain);
      this.draw();
    } });
    return el("label", { class: "check" }, box, t("compare"));
  }

  /** The run that is shown, then those beside it. */
  shownRuns() {
    const others = this.runs.filter((r) => this.beside.has(r.id) && r.id !== this.current && this.logs.has(r.id));
    const own = this.runs.find((r) => r.id === this.current);
    return [{ run: own, rows: this.log.rows }, ...others.map((run) => ({ run, rows: this.logs.get(run.id).rows }))];
  }

  async fetchOthers() {
    for (const id of this.beside) {
      if (this.runs.some((r) => r.id === id) && !this.logs.has(id)) this.logs.set(id, await getJson(`runs/${id}/metrics`));
    }
  }

  /** @param {any} result */
  async showResult(result) {
    fill(this.found);
    if (result.task === "classify") return this.confusion.show(this.current, result);
    const parts = result.task === "several" ? Object.values(result.parts) : [result];
    const hosts = parts.map(() => el("section", { class: "confusion" }));
    fill(this.found, ...hosts);
    await Promise.all(parts.map((part, i) => new Found(hosts[i], this.current, part).start()));
  }

  /** @param {number} id */
  async choose(id) {
    state(false);
    clearTimeout(this.timer);
    this.current = id;
    this.result = null;
    this.confusion.show(id, null);
    fill(this.found);
    if (id !== numberOf("run", 0, 0, 9999)) {
      const now = Object.keys(Object.fromEntries(shown())).filter((key) => key === "cell" || /^(detect|segment)-/.test(key));
      remember(Object.fromEntries(now.map((key) => [key, null])));
    }
    remember({ run: id || null });
    await this.fetchOthers().catch(complain);
    await this.look();
    state(true);
  }

  /** The log now, and again in a while if there is more to come. */
  async look() {
    try {
      this.log = await getJson(`runs/${this.current}/metrics`, "metrics");
      const run = this.runs.find((r) => r.id === this.current);
      Object.assign(run, { done: this.log.rows.length, finished: this.log.finished });
      this.frame();
      if (!this.log.finished) this.timer = setTimeout(() => this.look(), POLL);
      else if (!this.result) {
        this.result = await getJson(`runs/${this.current}/evaluation`, "evaluation");
        await this.showResult(this.result);
      }
    } catch (error) {
      complain(error);
    }
  }

  drawTools() {
    const toggle = (/** @type {string} */ part) => {
      const button = el("button", { type: "button", class: `legend ${part}`, "aria-pressed": String(!this.hidden.has(part)),
        onclick: () => {
        if (!this.hidden.delete(part)) this.hidden.add(part);
        button.setAttribute("aria-pressed", String(!this.hidden.has(part)));
        remember({ hide: [...this.hidden].join(",") });
        this.draw();
      } }, el("span", { class: "line-mark", "aria-hidden": "true" }), t(part));
      return button;
    };
    const slider = el("input", { type: "range", min: 0, max: 95, step: 5, value: String(Math.round(100 * this.smooth)),
      oninput: () => {
      this.smooth = Number(slider.value) / 100;
      remember({ smooth: Number(slider.value) || null });
      this.draw();
    } });
    const log = el("input", { type: "checkbox", checked: this.log10, onchange: () => {
      this.log10 = log.checked;
      remember({ axis: this.log10 ? null : "linear" });
      this.draw();
    } });
    const name = this.runs.find((r) => r.id === this.current)?.name ?? "run";
    fill(this.tools, toggle("train"), toggle("val"), el("label", { class: "field" }, el("span", {}, t("smooth")),
      slider),
      el("label", { class: "check" }, log, t("log-axis")), el("span", { class: "push" }),
      el("button", { type: "button", onclick: () => save(new Blob([this.csv()], { type: "text/csv" }), `${name}.csv`) },
        t("save-csv")),
      el("button", { type: "button",
        onclick: () => this.svgs().forEach((drawn, i) => save(new Blob([new XMLSerializer().serializeToString(drawn)],
          { type: "image/svg+xml" }), `${name}-${i}.svg`)) }, t("save-svg")));
  }

  draw() {
    fill(this.others, this.beside.size ? compared(this.shownRuns()) : null);
    if (!this.log.rows.length) fill(this.curves, el("p", { class: "hint" }, t("no-epochs")));
    else fill(this.curves, ...this.svgs());
  }

  /** One chart a quantity: those logged for both parts, and the learning rate. */
  svgs() {
    const rows = this.log.rows;
    const style = getComputedStyle(this.curves);
    const colour = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`);
    const keys = [...new Set(rows.flatMap((/** @type {any} */ r) => Object.keys(r)))];
    const kinds = [...new Set(keys.map((k) => /^(?:train|val)_(.+)$/.exec(k)?.[1]).filter((k) => k !== undefined))];
    const look = { smooth: this.smooth, font: style.fontFamily,
      colours: { ink: colour("ink"), soft: colour("soft"), line: colour("line"), odd: colour("odd"),
        page: colour("page") } };
    const values = (/** @type {string} */ key) => rows.map((/** @type {any} */ r) => (typeof r[key] === "number" ? r[key] : null));
    const last = Math.max(...this.shownRuns().map((r) => r.rows.length));
    const epochs = Array.from({ length: last }, (_, i) => i + 1);
    const others = this.shownRuns().slice(1);
    const charts = kinds.map((kind) => {
      const lines = [["train", colour("minus")], ["val",
        colour("plus")]].filter(([part]) => !this.hidden.has(part) && keys.includes(`${part}_${kind}`));
      return chart(epochs,
        lines.map(([part, c]) => ({ name: `${part}_${kind}`, colour: c,
          values: values(`${part}_${kind}`) })).concat(others.flatMap((other, i) => lines.filter(([part]) => other.rows.some(
          (/** @type {any} */ r) => `${part}_${kind}` in r)).map(([part, c]) => ({
          name: `${other.run.name} ${part}_${kind}`, colour: c, dash: DASHES[i % DASHES.length],
          values: other.rows.map((/** @type {any} */ r) => (typeof r[`${part}_${kind}`] === "number" ? r[`${part}_${kind}`] : null)) })))), { ...look, title: titled(kind), log: this.log10 && kind === "loss" });
    });
    if (keys.includes("lr")) charts.push(chart(epochs, [{ name: "lr", colour: colour("soft"), values: values("lr") }],
      { ...look, smooth: 0, title: t("lr"), log: false }));
    return charts;
  }

  csv() {
    const rows = this.log.rows;
    const keys = [...new Set(rows.flatMap((/** @type {any} */ r) => Object.keys(r)))];
    const text = (/** @type {any} */ v) => (v === null ? "NaN" : v === undefined ? "" : String(v));
    return [keys.join(","),
      ...rows.map((/** @type {any} */ r) => keys.map((k) => text(r[k])).join(","))].join("\n") + "\n";
  }
}
