// @ts-check
// Above the maps: order, scale, zoom, page, and what can be taken away; the colour bar with its numbers.
import { choice, el, fill, segments } from "./dom.js";
import { MOST_ZOOM } from "./maps.js";
import { complain } from "./notices.js";
import { save, saveJson, savePng } from "./save.js";
import { ScaleBar } from "./scalebar.js";
import { remember, shown } from "./state.js";
import { cells, fileOf, mapsDrawn, MOST_CELLS } from "./vector.js";
import { t } from "./words.js";

const ORDERS = ["index", "max", "variance"];

export class Tools {
  /**
   * @param {HTMLElement} host @param {import("./maps.js").Maps} maps
   * @param {{turn: (to: number) => void, numbers: () => any, values: () => string, name: () =>
   *   string, arithmetic: () => SVGElement | null, page: () => Promise<Blob>, picture: () => HTMLCanvasElement | null,
   *   can: Record<string, boolean>}} calls
   */
  constructor(host, maps, calls) {
    this.host = host;
    this.maps = maps;
    this.calls = calls;
    const asked = shown();
    this.by = this.asked();
    maps.perMap = asked.get("scale") === "map";
    maps.zoom = Math.min(MOST_ZOOM, Math.max(0, Math.round(Number(asked.get("zoom"))) || 0));
    /** @type {any} */
    this.head = null;
    this.bar = new ScaleBar();
    this.pages = el("div", { class: "pager" });
    this.zoomed = el("output", { class: "figure" });
  }

  /** The order that the address asks for. */
  asked() {
    const by = shown().get("by") ?? "";
    return ORDERS.includes(by) ? by : "index";
  }

  /** @param {any} head of the maps that are shown */
  show(head) {
    this.head = head;
    this.frame();
  }

  frame() {
    if (!this.head) return;
    const { maps } = this;
    fill(this.host,
      choice(t("order"), ORDERS.map((v) => [v, t(`by-${v}`)]), this.by, (v) => {
        this.by = v;
        this.calls.turn(0);
      }),
      segments(t("scale"), [["layer", t("whole-layer")], ["map", t("each-map")]], maps.perMap ? "map" : "layer",
        (v) => {
        maps.perMap = v === "map";
        remember({ scale: maps.perMap ? "map" : null });
        maps.draw();
        this.legend();
      }),
      el("div", { class: "zoom", role: "group", "aria-label": t("zoom") },
        el("button", { type: "button", "aria-label": t("smaller"), onclick: () => this.zoom(maps.used - 1) }, "\u2212"),
        this.zoomed,
        el("button", { type: "button", "aria-label": t("larger"), onclick: () => this.zoom(maps.used + 1) }, "+"),
        el("button", { type: "button", onclick: () => this.zoom(0) }, t("fit"))),
      this.pages,
      el("span", { class: "push" }),
      this.bar.host,
      this.take());
    this.pager();
    this.legend();
    this.zoomed.textContent = `${maps.used}\u00d7`;
  }

  /** @param {number} to 0: what fits */
  zoom(to) {
    this.maps.zoom = Math.min(MOST_ZOOM, Math.max(0, to));
    remember({ zoom: this.maps.zoom || null });
    this.maps.draw();
    this.zoomed.textContent = `${this.maps.used}\u00d7`;
  }

  pager() {
    const { page, pages } = this.head;
    const turn = (/** @type {string} */ text, /** @type {string} */ label, /** @type {number} */ to) =>
      el("button", { type: "button", "aria-label": label, disabled: to < 0 || to >= pages,
        onclick: () => this.calls.turn(to) }, text);
    this.pages.hidden = pages < 2;
    fill(this.pages, turn("\u2039", t("page-before"), page - 1),
      el("span", { class: "figure" }, t("page-of", { n: page + 1, of: pages })), turn("\u203a", t("page-after"),
        page + 1));
  }

  legend() {
    this.bar.show(this.head, this.maps.perMap);
  }

  take() {
    const list = el("details", { class: "menu" }, el("summary", {}, t("save")));
    const entry = (/** @type {string} */ text, /** @type {() => void} */ act) => el("button",
      { type: "button", onclick: () => {
      list.open = false;
      act();
    } }, text);
    const large = cells(this.head) > MOST_CELLS;
    const back = getComputedStyle(document.body).backgroundColor;
    list.append(el("div", { class: "entries" },
      entry(t("save-png"), () => savePng([this.maps.canvas, this.maps.above], back, `${this.calls.name()}.png`)),
      large ? el("button", { type: "button", disabled: true, title: t("too-many", { n: MOST_CELLS }) }, t("save-svg-maps"))
        : entry(t("save-svg-maps"), () => save(fileOf(mapsDrawn(this.maps)), `${this.calls.name()}.svg`)),
      entry(t("save-arithmetic"), () => {
        const drawn = this.calls.arithmetic();
        if (drawn) save(fileOf(drawn), `${this.calls.name()}-unit.svg`);
      }),
      entry(t("save-picture"), () => {
        const canvas = this.calls.picture();
        if (canvas) savePng([canvas], back, `${this.calls.name()}-field.png`);
      }),
      entry(t("save-json"), () => saveJson(this.calls.numbers(), `${this.calls.name()}.json`)),
      this.calls.can.values && entry(t("save-npz"), () => save(this.calls.values(), `${this.calls.name()}.npz`)),
      this.calls.can.page && entry(t("save-page"), () => this.calls.page().then((blob) => save(blob, "network.html")).catch(complain))));
    return list;
  }
}
