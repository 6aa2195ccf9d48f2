// @ts-check
// Work of several turns: how many are done, how long the rest takes, and an end to it on request.
import { el, fill } from "./dom.js";
import { left } from "./waiting.js";
import { t } from "./words.js";

export class Progress {
  constructor() {
    this.host = el("div", { class: "progress", hidden: true, role: "status" });
    this.stopped = true;
    this.round = 0;
  }

  cancel() {
    this.stopped = true;
    this.round++;
    this.host.hidden = true;
  }

  /** @param {number} turns @param {() => Promise<void>} turn one after the other, until all are done or it is cancelled */
  async run(turns, turn) {
    this.cancel();
    const mine = this.round;
    this.stopped = false;
    const begun = performance.now();
    const bar = el("progress", { max: turns, value: 0, "aria-label": t("measure") });
    const says = el("span", { class: "figure" });
    fill(this.host, bar, says, el("button", { type: "button", onclick: () => this.cancel() }, t("cancel")));
    this.host.hidden = false;
    try {
      for (let done = 0; done < turns; done++) {
        bar.value = done;
        says.textContent = left(done, turns, (performance.now() - begun) / 1000);
        await turn();
        if (this.stopped || mine !== this.round) return;
      }
    } finally {
      if (mine === this.round) this.cancel();
    }
  }
}
