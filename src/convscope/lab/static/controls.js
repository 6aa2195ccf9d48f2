// @ts-check
// Settings as rows of numbers; what cannot be is struck out, and says why.
import { el, fill } from "./dom.js";
import { refusal } from "./slide.js";
import { t } from "./words.js";

/** @typedef {import("./slide.js").Settings} Settings */
/** @type {[keyof Settings, number, number][]} */
export const RANGES = [
  ["size", 2, 10], ["inputs", 1, 4], ["outputs", 1, 4], ["kernel", 1, 5], ["stride", 1, 4], ["padding", 0, 4],
  ["dilation", 1, 3], ["groups", 1, 4], ["outpad", 0, 3],
];

export class Controls {
  /** @param {HTMLElement} host @param {Settings} settings @param {(settings: Settings) => void} changed */
  constructor(host, settings, changed) {
    this.host = host;
    this.settings = settings;
    this.changed = changed;
    this.why = el("p", { class: "why", "aria-live": "polite" });
  }

  frame() {
    const rows = RANGES.filter(([key]) => key !== "outpad" || this.settings.transposed).map(([key, low,
      high]) => this.row(key, low, high));
    fill(this.host, ...rows, this.why);
    this.why.textContent = "";
  }

  /** @param {keyof Settings} key @param {number} low @param {number} high */
  row(key, low, high) {
    const numbers = Array.from({ length: high - low + 1 }, (_, i) => low + i);
    return el("div", { class: "setting", role: "group", "aria-label": t(`set-${key}`) },
      el("span", { class: "label" }, t(`set-${key}`)),
      el("span", { class: "chips" }, ...numbers.map((v) => this.chip(key, v))));
  }

  /** @param {keyof Settings} key @param {number} value */
  chip(key, value) {
    const wanted = { ...this.settings, [key]: value };
    const refused = refusal(wanted);
    const reason = refused ? t(refused[0], refused[1]) : null;
    const say = () => { this.why.textContent = reason ? `${t(`set-${key}`)} ${value}: ${reason}` : ""; };
    return el("button", {
      type: "button", "data-set": `${key}-${value}`, "aria-pressed": String(this.settings[key] === value),
      "aria-disabled": reason ? "true" : null, title: reason, onpointerenter: say, onfocus: say,
      onclick: () => {
        if (reason) return say();
        this.settings = wanted;
        this.changed(wanted);
        this.frame();
        /** @type {HTMLElement | null} */ (this.host.querySelector(`[data-set="${key}-${value}"]`))?.focus();
      },
    }, String(value));
  }
}
