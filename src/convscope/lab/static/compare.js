// @ts-check
// Runs beside each other: the best of each quantity that was logged on the validation part.
import { titled } from "./curves.js";
import { el, svg } from "./dom.js";
import { count, number } from "./format.js";
import { t } from "./words.js";

export const DASHES = ["5 3", "2 3", "9 3 2 3"]; // of the runs beside the one that is shown

/** How a run's lines look. @param {number} place 0: the run that is shown */
function dashed(place) {
  return svg("svg", { class: "dashes", width: 28, height: 8, "aria-hidden": "true" }, svg("path", { d: "M0 4h28", stroke: "currentColor",
    "stroke-width": 2, "stroke-dasharray": place ? DASHES[(place - 1) % DASHES.length] : null }));
}

/** @param {{run: any, rows: any[]}[]} shown the run that is shown, then those beside it @returns {HTMLElement} */
export function compared(shown) {
  const keys = [...new Set(shown.flatMap(({ rows }) => rows.flatMap((r) => Object.keys(r))))].filter((k) => k.startsWith("val_"));
  const best = (/** @type {any[]} */ rows, /** @type {string} */ key) => {
    const values = rows.map((r) => r[key]).filter((v) => typeof v === "number");
    return values.length ? (key.endsWith("loss") ? Math.min(...values) : Math.max(...values)) : null;
  };
  const cell = (/** @type {number | null} */ v) => el("td", { class: "num" }, v === null ? "\u2013" : number(v));
  return el("table", { class: "family-table" }, el("caption", { class: "unseen" }, t("compare")),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, t("run")), el("th", { scope: "col", class: "num" }, t("col-epochs")),
      ...keys.map((k) => el("th", { scope: "col", class: "num" }, `${t("best")} ${titled(k.slice(4))}`)))),
    el("tbody", {}, ...shown.map(({ run, rows }, i) => el("tr", { "data-run": run.id }, el("th", { scope: "row" }, dashed(i), run.name),
      el("td", { class: "num" }, count(rows.length)), ...keys.map((k) => cell(best(rows, k)))))));
}
