// @ts-check
// What went wrong, said above the last good view; and what a screen reader is told.
import { el, fill } from "./dom.js";
import { t } from "./words.js";

/** @param {unknown} error whether it only says that a newer question was asked, or that none is wanted */
export function putOff(error) {
  return error instanceof DOMException && error.name === "AbortError";
}

/** @param {unknown} error */
export function complain(error) {
  if (putOff(error)) return;
  const box = document.getElementById("problem");
  if (!box) return;
  const text = error instanceof Error && error.message ? error.message : t("unreachable");
  fill(box, el("span", {}, text), el("button", { type: "button", onclick: quiet, "aria-label": t("close") }, "\u00d7"));
  box.hidden = false;
  document.body.dataset.state = "ready";
}

export function quiet() {
  const box = document.getElementById("problem");
  if (box) box.hidden = true;
}

let timer = 0;

/** @param {string} text spoken once the keys rest */
export function speak(text) {
  clearTimeout(timer);
  timer = setTimeout(() => {
    const box = document.getElementById("speech");
    if (box) box.textContent = text;
  }, 150);
}

/** @param {boolean} ready whether all that was asked for is drawn */
export function state(ready) {
  document.body.dataset.state = ready ? "ready" : "loading";
}
