// @ts-check
// The network page: layers, the maps of one, the picture, and one value as its arithmetic.
import { getBlob, getJson, getPacked } from "./api.js";
import { Arithmetic } from "./arithmetic.js";
import { el, fill } from "./dom.js";
import { count, number, shape } from "./format.js";
import { listen } from "./keyboard.js";
import { Layers } from "./layers.js";
import { Maps } from "./maps.js";
import { complain, putOff, quiet, speak, state } from "./notices.js";
import { looksAt, PictureView, sentence } from "./picture.js";
import { Source } from "./source.js";
import { numberOf, remember, shown, whenBack } from "./state.js";
import { Tools } from "./tools.js";
import { arithmeticDrawn } from "./vector.js";
import { t } from "./words.js";

const REST = 120; // ms without another unit

/** @typedef {import("./maps.js").Place} Place */
/** @typedef {import("./layers.js").Row} Row */

/** @param {HTMLElement} main @param {HTMLElement} facts @returns {Promise<() => void>} draws all anew */
export async function begin(main, facts) {
  const page = new Network(main, facts);
  await page.start();
  return () => page.redraw();
}

class Network {
  /** @param {HTMLElement} main @param {HTMLElement} facts */
  constructor(main, facts) {
    this.facts = facts;
    this.places = Object.fromEntries(["layers", "tools", "maps", "readout", "picture", "source",
      "work"].map((name) => [name, el("div", { class: name })]));
    const { layers, tools, maps, readout, picture, source, work } = this.places;
    this.regions = [
      el("section", { class: "left" }, layers),
      el("section", { class: "centre" }, tools, maps, readout),
      el("section", { class: "right", tabIndex: 0 }, picture, source),
      el("section", { class: "dock", tabIndex: 0 }, work),
    ];
    fill(main, ...this.regions);
    work.classList.add("arithmetic");
    this.picture = "given";
    /** @type {Row | null} */
    this.row = null;
    /** @type {any} */
    this.head = null;
    /** @type {any} */
    this.told = null;
    /** @type {number[]} */
    this.unit = [];
    this.page = 0;
  }

  async start() {
    try {
      this.session = await getJson("session");
    } catch (error) {
      return complain(error);
    }
    const { layers, tools, maps, picture, source, work } = this.places;
    this.layers = new Layers(layers, (row) => this.load(row, { step: row !== this.row }));
    this.view = new PictureView(picture, this.session, () => this.explain(), () => this.why());
    this.source = new Source(source, this.session, (id) => this.show(id), (sent) => this.take(sent),
      (name) => this.view?.overlay.about(this.session.answers.indexOf(name)));
    this.maps = new Maps(maps, (place) => this.hover(place), (place) => this.pick(place));
    this.sum = new Arithmetic(work, this.session, (channel) => this.explain(channel));
    this.tools = new Tools(tools, this.maps, {
      turn: (to) => this.turnTo(to),
      numbers: () => this.numbers(),
      can: this.session.can,
      values: () => `/api/pictures/${this.picture}/layers/${this.row?.index}/values`,
      page: () => getBlob(`pictures/${this.picture}/page`, "page"),
      picture: () => this.view?.canvas ?? null,
      arithmetic: () => this.saved(),
      name: () => `${this.row?.module || this.row?.op}`,
    });
    listen(this.maps.sheet, (rows, columns) => this.move(rows, columns), (by) => this.turn(by));
    this.frame();
    whenBack(() => this.again());
    await this.again();
  }

  /** Shows what the address says. */
  async again() {
    const asked = shown();
    const picture = asked.get("picture") ?? "given";
    if (this.tools) this.tools.by = this.tools.asked();
    this.page = numberOf("page", 0, 0, 1e6);
    this.unit = (asked.get("unit") ?? "").split(",").filter(Boolean).map(Number);
    if (!this.head || picture !== this.picture) return this.show(picture, asked.get("layer"));
    await this.load(this.first(asked.get("layer")), { page: this.page, unit: this.unit, channel: numberOf("channel", -1, 0, 1e6) });
  }

  frame() {
    const { session } = this;
    const names = [t("layers"), t("maps"), t("picture"), t("arithmetic")];
    this.regions.forEach((r, i) => r.setAttribute("aria-label", names[i]));
    this.maps?.sheet.setAttribute("aria-label", t("maps-how"));
    fill(this.facts, el("strong", {}, session.model), el("span", {}, `${shape(session.shape)}`),
      session.trained ? null : el("span", { class: "warn", title: t("untrained-long") }, t("untrained")));
  }

  /** @param {string} id @param {string | null} [layer] */
  async show(id, layer = null) {
    state(false);
    try {
      await this.take(await getJson(`pictures/${encodeURIComponent(id)}`, "picture"), layer);
    } catch (error) {
      complain(error);
      this.source?.frame();
      if (!this.row && id !== "given") await this.show("given", layer);
    }
  }

  /** @param {any} sent the facts of a picture @param {string | null} [layer] */
  async take(sent, layer = null) {
    state(false);
    try {
      quiet();
      this.picture = sent.id;
      this.source?.show(sent);
      remember({ picture: sent.id === "given" ? null : sent.id });
      const pixels = await getPacked(`pictures/${sent.id}/pixels`, "pixels");
      this.size = pixels.head.shape.slice(1);
      this.view?.show(pixels.head.shape, pixels.values, sent.name);
      if (this.known !== sent.layers) {
        const answer = await getJson(`pictures/${sent.id}/layers`, "layers");
        if (this.known) [this.page, this.unit] = [0, []];
        this.known = answer.layers;
        this.layers?.show(answer);
        this.row = null;
      }
      if (layer !== null || !this.row) this.row = this.first(layer);
      await this.load(this.row, { page: this.page, unit: this.unit, channel: this.told ? -1 : numberOf("channel", -1, 0, 1e6) });
      if (this.view?.overlay.mode === "why") await this.why();
    } catch (error) {
      complain(error);
    }
  }

  /** @param {string | null} layer as `addressOf` writes it, or a number; else the last convolution @returns {Row | null} */
  first(layer) {
    const rows = this.layers?.rows ?? [];
    const named = rows.filter((r) => r.module === layer).pop() ?? rows.find((r) => [`op:${r.index}`, String(r.index)].includes(layer ?? ""));
    return named ?? rows.filter((r) => r.op === "convolution").pop() ?? rows.find((r) => r.output_shape.length > 1) ?? rows[0] ?? null;
  }

  /**
   * Shows a page of a layer; what is shown stays if it cannot be.
   * @param {Row | null} row @param {{page?: number, unit?: number[], channel?: number, step?: boolean}} [at] `channel`
   *   whose matrices are wanted first, `step` whether the browser's way back leads to what was shown before
   */
  async load(row, { page = 0, unit = [], channel = -1, step = false } = {}) {
    const { maps, tools, layers } = this;
    if (!row || !maps || !tools || !layers) return this.nothing();
    layers.select(row.index);
    state(false);
    try {
      const path = `pictures/${this.picture}/layers/${row.index}/maps?page=${page}&by=${tools.by}`;
      const { head, values } = await getPacked(path, "maps");
      Object.assign(this, { row, head, page, unit });
      maps.show(head, values);
      tools.show(head);
      remember({ layer: addressOf(row, layers.rows), page: page || null,
        by: tools.by === "index" ? null : tools.by, unit: null, channel: null }, step);
      this.readout(null);
    } catch (error) {
      if (!putOff(error) || this.layers?.current === row.index) this.stay();
      return complain(error);
    }
    const place = this.placeOf(unit) ?? this.brightest();
    if (place) await this.pick(place, channel);
  }

  /** A network without an operator that is shown. */
  nothing() {
    fill(this.places.readout, el("span", { class: "soft" }, t("no-layers")));
    state(true);
  }

  /** The list and the tools say again what is shown. */
  stay() {
    const { row, head, tools, layers } = this;
    if (!row || !head || !tools) return;
    layers?.select(row.index);
    tools.by = head.by;
    tools.frame();
  }

  /** @returns {Place | null} the largest value of the page */
  brightest() {
    const { maps, head } = this;
    if (!maps) return null;
    let best = 0;
    for (let i = 1; i < maps.values.length; i++) if (!(maps.values[best] >= maps.values[i])) best = i;
    const plane = head.rows * head.columns;
    return maps.place(Math.floor(best / plane), Math.floor((best % plane) / head.columns), best % head.columns);
  }

  /** @param {Place} place @returns {number[]} its index in the operator's output */
  unitOf(place) {
    const { lead, wrapped } = this.head;
    if (wrapped) return [0, place.row * wrapped + place.column];
    const unit = [place.row, place.column];
    let rest = place.map;
    for (const n of [...lead].reverse()) {
      unit.unshift(rest % n);
      rest = Math.floor(rest / n);
    }
    return unit;
  }

  /** @param {number[]} unit @returns {Place | null} where it stands on this page */
  placeOf(unit) {
    const { lead, wrapped, index, step, height, width } = this.head;
    if (unit.length !== (wrapped ? 2 : lead.length + 2)) return null;
    const map = wrapped ? 0 : lead.reduce((/** @type {number} */ m, /** @type {number} */ n,
      /** @type {number} */ i) => m * n + unit[i], 0);
    const [row, column] = wrapped ? [Math.floor(unit[1] / wrapped), unit[1] % wrapped] : unit.slice(-2);
    const slot = index.indexOf(map);
    if (slot < 0 || row < 0 || column < 0 || row >= height || column >= width || row % step || column % step) return null;
    return this.maps?.place(slot, row / step, column / step) ?? null;
  }

  /** @param {Place} place @param {number} [channel] whose matrices are wanted first */
  async pick(place, channel = -1) {
    this.unit = this.unitOf(place);
    this.maps?.choose(place);
    await this.explain(channel);
  }

  /** @param {number} [channel] */
  async explain(channel = -1) {
    if (!this.head) return;
    state(false);
    try {
      const more = channel < 0 ? "" : `?channel=${channel}`;
      const path = `pictures/${this.picture}/layers/${this.row?.index}/units/${this.unit.join(",")}`;
      const facts = await getJson(`${path}${more}`, "unit");
      this.told = facts;
      remember({ unit: this.unit.join(","), channel: channel < 0 ? null : channel });
      const box = facts.box ? facts.box.slice(-2) : null;
      this.view?.field(box);
      this.sum?.show(facts, channel);
      quiet();
      const [height, width] = this.size ?? [0, 0];
      speak(`${number(facts.value)}. ${box ? sentence(box, height, width) : facts.unknown ? "" : t("no-field")}`);
      await this.pixels(path);
      state(true);
    } catch (error) {
      complain(error);
      if (!putOff(error) && this.told) this.back();
    }
  }

  /** To the unit whose numbers are shown. */
  back() {
    if (this.told.index !== this.row?.index) return;
    this.unit = this.told.unit;
    this.maps?.choose(this.placeOf(this.unit));
  }

  /** The very pixels of the unit; once the keys rest where they are not asked for. @param {string} path of the unit */
  async pixels(path) {
    clearTimeout(this.resting);
    const { view } = this;
    const mode = view?.overlay.mode;
    const ask = async () => view?.reached(await getPacked(`${path}/reach${mode === "effective" ? "?effective=1" : ""}`, "reach"));
    if (!view?.box || mode === "why") return;
    if (mode === "effective") await ask();
    else this.resting = setTimeout(() => ask().catch(() => {}), REST); // where there are none, the box says enough
  }

  /** Which pixels bear on the network's answer. */
  async why() {
    const { view, picture } = this;
    if (!view) return;
    state(false);
    try {
      const found = await getPacked(`pictures/${picture}/${view.overlay.path()}`, "why");
      view.explained(found);
      this.source?.press(found.head.class);
      speak(view.says.textContent ?? "");
      quiet();
      state(true);
    } catch (error) {
      complain(error);
    }
  }

  /** @param {Place | null} place */
  hover(place) {
    this.view?.linked(place && this.row ? looksAt(this.row, place.row, place.column, this.size ?? [1, 1]) : null);
    this.readout(place);
  }

  /** @param {Place | null} place what is under the pointer, or of the whole layer */
  readout(place) {
    const { readout } = this.places;
    if (place) {
      const at = t("value-at", { unit: this.unitOf(place).join(", ") });
      fill(readout, el("span", { class: "soft" }, at), el("strong", {}, number(place.value)));
    } else {
      const { head } = this;
      const told = head.wrapped ? t("values-in", { n: count(head.height * head.width), w: head.wrapped })
        : t(head.maps === 1 ? "map-of" : "maps-of", { n: count(head.maps), h: head.height, w: head.width });
      fill(readout, el("span", { class: "soft" }, told),
        head.step > 1 && el("span", { class: "warn" }, t("thinned", { n: head.step })),
        head.not_finite > 0 && el("span", { class: "odd" }, t("not-finite", { n: count(head.not_finite) })));
    }
  }

  /** @param {number} rows @param {number} columns */
  move(rows, columns) {
    const place = this.placeOf(this.unit);
    const { head, maps } = this;
    if (!place || !maps) return;
    const within = (/** @type {number} */ v, /** @type {number} */ n) => Math.min(n - 1, Math.max(0, v));
    const row = within(place.row / head.step + rows, head.rows);
    this.pick(maps.place(place.slot, row, within(place.column / head.step + columns, head.columns)));
  }

  /** @param {number} by maps on, in the order that is shown */
  async turn(by) {
    const place = this.placeOf(this.unit);
    const { head, maps } = this;
    if (!place || !maps) return;
    const slot = place.slot + by;
    if (slot >= 0 && slot < head.index.length) {
      await this.pick(maps.place(slot, place.row / head.step, place.column / head.step));
    } else if (this.page + by >= 0 && this.page + by < head.pages) {
      await this.turnTo(this.page + by);
    }
  }

  /** @param {number} to */
  async turnTo(to) {
    await this.load(this.row, { page: to });
  }

  /** The arithmetic as it is shown, or a word on why there is none. */
  saved() {
    const drawn = this.told && arithmeticDrawn(this.told, this.sum?.channel ?? -1);
    if (!drawn) complain(new Error(t("no-matrices")));
    return drawn;
  }

  numbers() {
    return { model: this.session.model, picture: this.picture, maps: this.head, unit: this.told,
      attribution: this.view?.overlay.why?.head ?? null };
  }

  redraw() {
    this.frame();
    this.layers?.frame();
    this.source?.frame();
    this.view?.frame();
    this.tools?.frame();
    if (this.head) this.maps?.draw();
    this.view?.draw();
    this.sum?.draw();
    if (this.head) this.readout(null);
    else this.nothing();
  }
}

/** The name of the module that the operator ends, else the operator's number. @param {Row} row @param {Row[]} rows */
function addressOf(row, rows) {
  const last = rows.filter((r) => r.module === row.module).pop();
  return row.module && last === row ? row.module : `op:${row.index}`;
}
