// @ts-check
// What lies over the picture besides the box of a unit: pixels that do not count, the effective field, or which pixels
// bear on the network's answer.
import { paint } from "./colour.js";
import { choice, el, fill, segments } from "./dom.js";
import { count, significant } from "./format.js";
import { ScaleBar } from "./scalebar.js";
import { numberOf, remember, shown } from "./state.js";
import { t } from "./words.js";

/**
 * @typedef {[[number, number], [number, number]]} Box rows and columns, both ends included
 * @typedef {import("./api.js").Packed} Packed
 */
const HOLE = [20, 110, 84, 200]; // RGBA over a pixel that does not count: a hue, since pictures may be grey
const MIX = 75; // percent of the map in what is shown of it and the picture

export class Overlay {
  /**
   * @param {HTMLElement} host @param {any} session what can be asked
   * @param {{field: () => void, why: () => void, draw: () => void}} calls what is to be asked or drawn anew
   */
  constructor(host, session, calls) {
    this.host = host;
    this.session = session;
    this.calls = calls;
    const asked = shown();
    const modes = ["box", session.can.effective && "effective", session.can.why && "why"];
    this.modes = modes.filter((mode) => typeof mode === "string");
    this.mode = this.modes.includes(asked.get("field") ?? "") ? asked.get("field") ?? "box" : "box";
    this.method = session.can.why && session.methods.includes(asked.get("method")) ? asked.get("method") ?? "" : "grad-cam";
    this.label = numberOf("class", -1, 0, (session.answers?.length ?? 0) - 1);
    this.mix = numberOf("mix", MIX, 0, 100);
    this.bar = new ScaleBar();
    this.foot = el("div", { class: "overlay" });
    /** @type {Packed | null} */
    this.reach = null;
    /** @type {Packed | null} */
    this.why = null;
    this.frame();
  }

  frame() {
    const ways = /** @type {[string, string][]} */ (this.modes.map((mode) => [mode, t(`field-${mode}`)]));
    fill(this.host, ways.length > 1 && segments(t("which-field"), ways, this.mode, (mode) => this.turn(mode)), this.foot);
    this.frameFoot();
  }

  /** @param {string} mode */
  turn(mode) {
    this.mode = mode;
    [this.why, this.reach] = [null, null];
    remember({ field: mode === "box" ? null : mode, ...(mode === "why" ? {} : { method: null, class: null }) });
    this.frame();
    if (mode === "why") this.calls.why();
    else this.calls.field();
  }

  frameFoot() {
    if (this.mode === "box") return fill(this.foot);
    const mix = el("input", { type: "range", min: 0, max: 100, value: String(this.mix), "data-set": "mix",
      oninput: () => {
        this.mix = Number(mix.value);
        remember({ mix: this.mix === MIX ? null : this.mix });
        this.calls.draw();
      } });
    fill(this.foot, this.mode === "why" && el("div", { class: "line" }, this.methods(), this.classes()),
      this.bar.host, el("label", { class: "field" }, el("span", {}, t("mix")), mix));
    this.showBar();
  }

  methods() {
    const options = this.session.methods.map((/** @type {string} */ m) => [m, t(`why-${m}`)]);
    return choice(t("method"), options, this.method, (method) => {
      this.method = method;
      this.askWhy();
    });
  }

  classes() {
    const options = this.session.answers.map((/** @type {string} */ name, /** @type {number} */ i) => [String(i), name]);
    return choice(t("class"), [["-1", t("likeliest-one")], ...options], String(this.label), (label) => this.about(Number(label)));
  }

  /** @param {number} label the class that is asked about; -1: the likeliest */
  about(label) {
    this.label = label;
    if (this.mode !== "why") return this.turn("why");
    this.frameFoot();
    this.askWhy();
  }

  askWhy() {
    remember({ method: this.method === "grad-cam" ? null : this.method, class: this.label < 0 ? null : this.label });
    this.calls.why();
  }

  /** The rest of the address of what is asked. */
  path() {
    return `attributions/${this.method}${this.label < 0 ? "" : `?class=${this.label}`}`;
  }

  /** @param {Packed} why which pixels bear on an answer */
  explained(why) {
    this.why = why;
    this.showBar();
  }

  /** @param {Packed | null} reach the pixels that a unit depends on, and how much each counts; null: another unit */
  reached(reach) {
    const head = reach?.head;
    this.reach = head && (head.holes || head.unseen || head.effective) ? reach : null;
    this.showBar();
  }

  showBar() {
    if (this.mode === "box") return;
    const { head } = this.why ?? {};
    this.bar.host.hidden = this.mode === "why" && !head;
    this.bar.show(this.mode === "why" && head ? head : { limit: 1, signed: false });
  }

  /** Whether a map covers the whole picture. */
  covers() {
    return this.mode === "why" ? Boolean(this.why) : Boolean(this.reach?.head.effective);
  }

  /** What is shown, in words. @returns {string[]} */
  words() {
    if (this.mode === "why") return this.why ? [saysWhy(this.why.head)] : [];
    const { head } = this.reach ?? {};
    if (!head) return [];
    const words = [];
    if (head.holes) words.push(t("holes", { n: count(head.depends_on), h: count(head.holes) }));
    if (head.unseen) words.push(t("holes-unseen"));
    if (head.effective) {
      const [h, w, share] = [...head.effective.spread, 100 * head.effective.share].map((v) => significant(v, 3));
      words.push(t("effective-says", { h, w, share, n: count(head.effective.theoretical) }));
    }
    return words;
  }

  /** How it was made, in words. */
  how() {
    if (this.mode === "why") return t("why-how");
    return this.mode === "effective" ? t("effective-how") : "";
  }

  /** What lies over the picture. @param {number} height @param {number} width @param {Box | null} seen */
  canvas(height, width, seen) {
    const held = this.mode === "why" ? this.why : this.reach;
    if (!held) return null;
    const image = new ImageData(width, height);
    const plane = height * width;
    const { head, values } = held;
    if (this.mode === "why") paint(values, 0, plane, image.data, head);
    else if (head.effective) paint(values.subarray(plane), 0, plane, image.data, { limit: 1, signed: false });
    else if (seen) hollow(image, values, seen);
    const canvas = new OffscreenCanvas(width, height);
    /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d")).putImageData(image, 0, 0);
    return canvas;
  }
}

/** Covers what does not count within a box. @param {ImageData} image @param {Float32Array} values @param {Box} seen */
function hollow(image, values, [[top, bottom], [left, right]]) {
  for (let r = top; r <= bottom; r++) {
    for (let c = left; c <= right; c++) {
      if (!values[r * image.width + c]) image.data.set(HOLE, 4 * (r * image.width + c));
    }
  }
}

/** @param {any} head of an attribution */
function saysWhy(head) {
  const score = significant(head.score, 4);
  const words = [t(head.box ? "why-box" : "why-class", { name: head.class, score })];
  if (head.layer) words.push(t("why-layer", { layer: head.layer }));
  if (head.gap !== null) words.push(t("why-gap", { gap: significant(head.gap, 2) }));
  return words.join("; ");
}
