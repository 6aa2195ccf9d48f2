// @ts-check
// What the page waits for: under 100 ms nothing is shown, under a second a spinner, then how far it has come, how long
// the rest takes, and a way to end it.
import { el, fill } from "./dom.js";
import { t } from "./words.js";

const [SPIN, TELL, LOOK] = [100, 1000, 400]; // ms

/** @typedef {{done: number, of: number, seconds: number}} Work */

/** @param {number} done @param {number} of @param {number} seconds that these took */
export function left(done, of, seconds) {
  if (!done) return t("turns", { n: done, of });
  return t("turns-left", { n: done, of, s: Math.max(1, Math.round((seconds / done) * (of - done))) });
}

export class Waiting {
  /** @param {() => Promise<Work | null>} look how far it has come @param {() => void} stop */
  constructor(look, stop) {
    this.look = look;
    this.stop = stop;
    /** @type {Set<{since: number}>} */
    this.open = new Set();
    this.timer = 0;
    /** @type {HTMLElement | null} */
    this.host = null;
  }

  /** @template T @param {Promise<T>} answer @returns {Promise<T>} */
  async until(answer) {
    const mine = { since: performance.now() };
    this.open.add(mine);
    this.turn();
    try {
      return await answer;
    } finally {
      this.open.delete(mine);
      this.turn();
    }
  }

  /** Shows what the oldest question deserves, and comes again when it deserves more. */
  turn() {
    clearTimeout(this.timer);
    const waited = this.open.size ? performance.now() - Math.min(...[...this.open].map((one) => one.since)) : -1;
    document.body.classList.toggle("busy", waited >= SPIN && waited < TELL);
    if (waited < TELL) this.host?.remove();
    if (waited < 0) return;
    if (waited >= TELL) this.tell(waited);
    const next = waited < SPIN ? SPIN - waited : waited < TELL ? TELL - waited : LOOK;
    this.timer = setTimeout(() => this.turn(), Math.ceil(next));
  }

  /** @param {number} waited ms */
  async tell(waited) {
    const bar = el("progress", { "aria-label": t("working") });
    const says = el("span", { class: "figure" }, t("so-far", { s: Math.round(waited / 1000) }));
    if (!this.host?.isConnected) {
      this.host = el("div", { class: "work-bar", role: "status" }, bar, says,
        el("button", { type: "button", onclick: () => this.stop() }, t("cancel")));
      document.body.append(this.host);
    }
    const work = await this.look();
    const shown = this.host;
    if (!shown.isConnected) return;
    if (work?.of) {
      bar.max = work.of;
      bar.value = work.done;
      fill(says, left(work.done, work.of, work.seconds));
    }
    shown.children[0].replaceWith(bar);
    shown.children[1].replaceWith(says);
  }
}
