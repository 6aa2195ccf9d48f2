// @ts-check
// The family page: every kind of convolution on the same picture, with what it costs, sees and takes.
import { getJson, getPacked } from "./api.js";
import { paint, scaleOf } from "./colour.js";
import { choice, el, fill, sized } from "./dom.js";
import { count, number, shape, short, significant } from "./format.js";
import { complain, putOff, quiet, state } from "./notices.js";
import { Progress } from "./progress.js";
import { numberOf, remember, shown } from "./state.js";
import { t } from "./words.js";

/** @type {[string, number, number, number][]} name, least, most, start */
const SLIDERS = [["channels", 1, 64, 16], ["kernel", 1, 9, 3], ["groups", 1, 16, 4], ["dilation", 1, 5, 2]];
const PICTURES = ["given", "flower", "china"];
const TURNS = 6; // answers that a measurement takes
const SIDE = 128; // px of a map

/** @param {HTMLElement} main @returns {Promise<() => void>} */
export async function begin(main) {
  const page = new Family(main);
  await page.start();
  return () => page.frame();
}

class Family {
  /** @param {HTMLElement} main */
  constructor(main) {
    this.left = el("section", { class: "left" });
    this.why = el("p", { class: "why", "aria-live": "polite" });
    this.maps = el("div", { class: "members" });
    this.measure = el("div", { class: "measure" });
    this.scale = el("p", { class: "one-scale" });
    this.table = el("div", { class: "costs" });
    this.progress = new Progress();
    fill(main, this.left, el("section", { class: "centre", tabIndex: 0 }, this.maps, this.scale, this.table, this.measure));
    const asked = shown().get("picture") ?? "given";
    this.picture = PICTURES.includes(asked) ? asked : "given";
    /** @type {Record<string, number>} */
    this.values = Object.fromEntries(SLIDERS.map(([k, low, high, start]) => [k, numberOf(k, start, low, high)]));
    /** @type {Record<string, number[]>} */
    this.seconds = {};
    this.threads = 0;
    /** @type {any} */
    this.told = null;
    /** @type {import("./api.js").Packed | null} */
    this.made = null;
  }

  async start() {
    this.frame();
    await this.load();
  }

  /** @param {string} kind of what is asked for */
  path(kind = "") {
    const words = Object.entries(this.values).map(([k, v]) => `${k}=${v}`).join("&");
    return `family/${this.picture}${kind}?${words}`;
  }

  frame() {
    this.left.setAttribute("aria-label", t("settings"));
    const rows = SLIDERS.map(([key, low, high]) => {
      const told = el("output", { class: "figure" }, String(this.values[key]));
      const slider = el("input", { type: "range", min: low, max: high, value: String(this.values[key]),
        "aria-label": t(`set-${key}`), "data-set": key, oninput: () => {
        this.values[key] = Number(slider.value);
        told.textContent = slider.value;
        this.load();
      } });
      return el("label", { class: "slider" }, el("span", { class: "label" }, t(`set-${key}`)), slider, told);
    });
    fill(this.left, choice(t("picture"), PICTURES.map((p) => [p, t(p)]), this.picture, (p) => {
      this.picture = p;
      this.load();
    }), el("div", { class: "settings" }, ...rows), this.why, el("p", { class: "notes" }, t("family-how")));
    this.draw();
  }

  async load() {
    state(false);
    this.progress.cancel();
    try {
      const told = await getJson(this.path(), "family");
      const made = await getPacked(this.path("/maps"), "members");
      [this.told, this.made, this.seconds] = [told, made, {}];
      this.why.textContent = "";
      quiet();
      remember({ picture: this.picture === "given" ? null : this.picture,
        ...Object.fromEntries(SLIDERS.map(([k, , , start]) => [k, this.values[k] === start ? null : this.values[k]])) });
      this.draw();
      state(true);
    } catch (error) {
      if (putOff(error)) return;
      if (error instanceof Error && error.message.startsWith("family: ")) {
        this.why.textContent = error.message.slice(8);
        state(true);
      } else complain(error);
    }
  }

  draw() {
    if (!this.told || !this.made) return;
    this.drawMaps();
    this.drawTable();
    fill(this.measure, el("button", { type: "button", class: "go", onclick: () => this.time() }, t("measure")),
      this.progress.host, el("span", { class: "soft" }, Object.keys(this.seconds).length
        ? t("measured-how", { n: Object.values(this.seconds)[0].length, threads: this.threads }) : ""));
  }

  drawMaps() {
    const { head, values } = /** @type {import("./api.js").Packed} */ (this.made);
    const plane = head.maps[0].height * head.maps[0].width;
    const scale = scaleOf(values.subarray(plane));
    let from = 0;
    fill(this.maps, ...head.maps.map((/** @type {any} */ m) => {
      const canvas = el("canvas", { role: "img", "aria-label": `${m.name || t("picture")} ${m.height}\u00d7${m.width}` });
      const part = values.subarray(from, from + m.height * m.width);
      from += m.height * m.width;
      const image = new ImageData(m.width, m.height);
      paint(part, 0, part.length, image.data, m.name ? scale : scaleOf(part));
      const sheet = new OffscreenCanvas(m.width, m.height);
      /** @type {OffscreenCanvasRenderingContext2D} */ (sheet.getContext("2d")).putImageData(image, 0, 0);
      const share = SIDE / Math.max(m.height, m.width);
      const pen = sized(canvas, m.width * share, m.height * share);
      pen.drawImage(sheet, 0, 0, m.width * share, m.height * share);
      return el("figure", { class: "member", "data-member": m.name }, canvas, el("figcaption", {},
        el("strong", {}, m.name || t("picture")), el("span", { class: "soft" }, `${m.height}\u00d7${m.width}`)));
    }));
    this.scale.textContent = t("scale-from", { low: scale.signed ? number(-scale.limit) : "0", high: number(scale.limit) });
  }

  drawTable() {
    const rows = this.told.members;
    const timed = Object.keys(this.seconds).length > 0;
    const dense = rows[0];
    const most = Math.max(...rows.map((/** @type {any} */ m) => m.macs));
    const heads = ["member", "output", "params", "MACs", "", "sees", "moves", "fewer", ...(timed ? ["takes", "faster"] : [])];
    const head = heads.map((k, i) => k ? el("th", { scope: "col", class: i ? "num" : null },
      k !== "MACs" ? t(`col-${k}`) : k) : el("td", { "aria-hidden": "true" }));
    const cell = (/** @type {string} */ text) => el("td", { class: "num" }, text);
    fill(this.table, el("table", { class: "family-table" }, el("thead", {}, el("tr", {}, ...head)),
      el("tbody", {}, ...rows.map((/** @type {any} */ m) => {
        const gauge = el("span", {});
        gauge.style.width = `${100 * m.macs / most}%`;
        const times = this.seconds[m.name];
        return el("tr", { "data-row": m.name }, el("th", { scope: "row" }, m.name), cell(shape(m.output_shape.slice(1))),
          cell(count(m.params)), cell(short(m.macs)), el("td", {}, el("span", { class: "gauge" }, gauge)),
          cell(`${shape(m.field)} px`), cell(`${significant(m.bytes / 1024, 3)} KiB`),
          cell(m.promised ? `${significant(m.promised, 3)}\u00d7` : "\u2013"),
          ...(timed ? [cell(`${significant(1000 * median(times), 3)} ms`), cell(ratio(this.seconds[dense.name],
            times))] : []));
      }))));
  }

  async time() {
    const path = this.path("/times");
    /** @type {Record<string, number[]>} */
    const seconds = {};
    try {
      await this.progress.run(TURNS, async () => {
        const told = await getJson(path, "times");
        for (const [name, taken] of Object.entries(told.seconds)) (seconds[name] ??= []).push(...taken);
        this.threads = told.threads;
      });
    } catch (error) {
      complain(error);
    }
    if (path !== this.path("/times") || !Object.keys(seconds).length) return;
    this.seconds = seconds;
    this.draw();
  }
}

/** @param {number[]} values */
function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** @param {number[]} one @param {number[]} other how many times as long the first took, within each round */
function ratio(one, other) {
  return `${significant(median(one.map((v, i) => v / other[i])), 3)}\u00d7`;
}
