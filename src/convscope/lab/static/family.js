// @ts-check
// The family page: every kind of convolution on the same picture, with what it costs, sees and takes.
import { getJson, getPacked } from "./api.js";
import { paint, scaleOf } from "./colour.js";
import { choice, el, fill, segments, sized } from "./dom.js";
import { count, shape, short, significant } from "./format.js";
import { complain, putOff, quiet, state } from "./notices.js";
import { Progress } from "./progress.js";
import { ScaleBar } from "./scalebar.js";
import { numberOf, remember, shown } from "./state.js";
import { t } from "./words.js";

/** @type {[string, number, number, number][]} name, least, most, start */
const SLIDERS = [["channels", 1, 64, 16], ["kernel", 1, 9, 3], ["groups", 1, 16, 4], ["dilation", 1, 5, 2]];
const PICTURES = ["given", "flower", "china"];
const OTHERS = /^(digits:\d+|own-\d+)$/; // pictures of the network page
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
    this.scale = el("div", { class: "one-scale" });
    this.table = el("div", { class: "costs" });
    this.progress = new Progress();
    fill(main, this.left, el("section", { class: "centre", tabIndex: 0 }, this.maps, this.scale, this.table, this.measure));
    const asked = shown().get("picture") ?? "given";
    this.other = OTHERS.test(asked) ? [asked] : [];
    this.picture = [...PICTURES, ...this.other].includes(asked) ? asked : "given";
    this.perMap = shown().get("scale") === "map";
    /** @type {Record<string, number>} */
    this.values = Object.fromEntries(SLIDERS.map(([k, low, high, start]) => [k, numberOf(k, start, low, high)]));
    if (refusal(this.values)) this.values = Object.fromEntries(SLIDERS.map(([k, , , start]) => [k, start]));
    this.bar = new ScaleBar();
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
    fill(this.left, choice(t("picture"), [...PICTURES.map((p) => /** @type {[string, string]} */ ([p, t(p)])),
      ...this.other.map((p) => /** @type {[string, string]} */ ([p, p]))], this.picture, (p) => {
      this.picture = p;
      this.load();
    }), el("div", { class: "settings" }, ...rows), this.why, el("p", { class: "notes" }, t("family-how")));
    this.draw();
  }

  async load() {
    const refused = refusal(this.values);
    this.why.textContent = refused ? t(...refused) : "";
    if (refused) return;
    state(false);
    this.progress.cancel();
    try {
      const told = await getJson(this.path(), "family");
      const made = await getPacked(this.path("/maps"), "members");
      [this.told, this.made, this.seconds] = [told, made, {}];
      quiet();
      remember({ picture: this.picture === "given" ? null : this.picture,
        ...Object.fromEntries(SLIDERS.map(([k, , , start]) => [k, this.values[k] === start ? null : this.values[k]])) });
      this.draw();
      state(true);
    } catch (error) {
      if (putOff(error)) return;
      complain(error);
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
    const whole = scaleOf(values.subarray(plane));
    let from = 0;
    fill(this.maps, ...head.maps.map((/** @type {any} */ m) => {
      const canvas = el("canvas", { role: "img", "aria-label": `${called(m.name)} ${m.height}\u00d7${m.width}` });
      const part = values.subarray(from, from + m.height * m.width);
      from += m.height * m.width;
      const image = new ImageData(m.width, m.height);
      paint(part, 0, part.length, image.data, m.name && !this.perMap ? whole : scaleOf(part));
      const sheet = new OffscreenCanvas(m.width, m.height);
      /** @type {OffscreenCanvasRenderingContext2D} */ (sheet.getContext("2d")).putImageData(image, 0, 0);
      const share = SIDE / Math.max(m.height, m.width);
      const pen = sized(canvas, m.width * share, m.height * share);
      pen.drawImage(sheet, 0, 0, m.width * share, m.height * share);
      return el("figure", { class: "member", "data-member": m.name }, canvas, el("figcaption", {},
        el("strong", {}, called(m.name)), el("span", { class: "soft" }, `${m.height}\u00d7${m.width}`)));
    }));
    this.bar.show(whole, this.perMap);
    fill(this.scale, segments(t("scale"), [["family", t("whole-family")], ["map", t("each-map")]], this.perMap ? "map" : "family",
      (v) => {
      this.perMap = v === "map";
      remember({ scale: this.perMap ? "map" : null });
      this.drawMaps();
      /** @type {HTMLElement | null} */ (this.scale.querySelector("[aria-pressed=true]"))?.focus();
    }), this.bar.host);
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
        return el("tr", { "data-row": m.name }, el("th", { scope: "row" }, called(m.name)), cell(shape(m.output_shape.slice(1))),
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

/** Why there are no such members, as a key of the words and its numbers. @param {Record<string, number>} values
 * @returns {[string, Record<string, string | number>] | null} */
function refusal({ channels, groups }) {
  if (channels % groups === 0) return null;
  const fit = Array.from({ length: channels }, (_, i) => i + 1).filter((n) => channels % n === 0);
  return ["no-division", { g: groups, c: channels, fit: fit.join(", ") }];
}

/** @param {string} name of a member; the picture has none */
function called(name) {
  return name ? t(`member-${name.replaceAll(" ", "-")}`) : t("picture");
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
