// @ts-check
// The likeliest classes as bars.
import { el } from "./dom.js";

/** @typedef {{label: string, probability: number}} Row */

/**
 * @param {Row[]} rows @param {((row: Row) => void) | null} [asked] about one of them
 * @returns {HTMLElement[]}
 */
export function likeliest(rows, asked = null) {
  return rows.map((row) => {
    const parts = [el("span", { class: "label", title: row.label }, row.label), gauge(row),
      el("span", { class: "figure" }, `${(100 * row.probability).toFixed(1)} %`)];
    return asked ? el("button", { type: "button", class: "bar", value: row.label, "aria-pressed": "false",
      onclick: () => asked(row) }, ...parts) : el("div", { class: "bar" }, ...parts);
  });
}

/** @param {Row} row */
function gauge(row) {
  const inner = el("span");
  inner.style.width = `${100 * row.probability}%`;
  return el("span", { class: "gauge", role: "meter", "aria-label": row.label, "aria-valuemin": 0, "aria-valuemax": 1,
    "aria-valuenow": row.probability }, inner);
}
