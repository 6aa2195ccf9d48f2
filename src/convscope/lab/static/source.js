// @ts-check
// Which picture: one by name, one of the reader's own, or a digit drawn by hand; and what the model says of it.
import { sendPicture } from "./api.js";
import { el, fill, segments } from "./dom.js";
import { likeliest } from "./likeliest.js";
import { complain } from "./notices.js";
import { t } from "./words.js";

const PAD = 168;
const LARGEST = 24 * 2 ** 20;

export class Source {
  /**
   * @param {HTMLElement} host
   * @param {any} facts of the session
   * @param {(id: string) => void} named
   * @param {(facts: any) => void} sent
   * @param {(name: string) => void} why what an answer rests on
   */
  constructor(host, facts, named, sent, why) {
    this.host = host;
    this.facts = facts;
    this.named = named;
    this.sent = sent;
    this.why = why;
    this.way = "name";
    this.id = "given";
    this.area = el("div", { class: "source" });
    this.top = el("div", { class: "top5" });
    this.notes = el("p", { class: "notes" });
    this.pad = el("canvas", { class: "sketch", width: PAD, height: PAD, role: "img" });
    this.timer = 0;
    drawing(this.pad, () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.read(), 60);
    });
    if (facts.can.pictures) this.drops();
    this.frame();
  }

  drops() {
    const { host } = this;
    host.addEventListener("dragover", (e) => e.preventDefault());
    host.addEventListener("drop", (e) => {
      e.preventDefault();
      const file = e.dataTransfer?.files[0];
      if (file) this.send(file, file.name);
    });
  }

  frame() {
    if (!this.facts.can.pictures) return fill(this.host, el("p", {}, this.name ?? this.facts.given), this.notes, this.top);
    const ways = /** @type {[string, string][]} */ ([["name", t("by-name")], ["own", t("own")], ["draw", t("draw")]]);
    fill(this.host, segments(t("picture"), ways, this.way, (way) => {
      this.way = way;
      this.body();
    }), this.area, this.notes, this.top);
    this.body();
  }

  body() {
    if (this.way === "name") fill(this.area, this.names());
    else if (this.way === "own") fill(this.area, this.upload());
    else {
      this.pad.setAttribute("aria-label", t("pad"));
      fill(this.area, this.pad, el("button", { type: "button", onclick: () => this.clear() }, t("clear")));
    }
  }

  names() {
    const digit = /^digits:(\d+)$/.exec(this.id);
    const kind = digit ? "digits" : this.id.startsWith("own-") ? "own" : this.id;
    const most = this.facts.digits - 1;
    const index = el("input", { type: "number", min: 0, max: most, value: digit ? digit[1] : "0",
      "aria-label": t("digit-number"),
      hidden: kind !== "digits", onchange: () => {
        const wanted = Math.min(most, Math.max(0, Math.round(Number(index.value)) || 0));
        index.value = String(wanted);
        this.named(`digits:${wanted}`);
      } });
    const options = [["given", this.facts.given], ["digits", t("digit")], ["flower", t("flower")],
      ["china", t("china")]];
    if (kind === "own") options.unshift(["own", this.name ?? t("own")]);
    const select = el("select", { "aria-label": t("picture"), onchange: () => {
      index.hidden = select.value !== "digits";
      if (select.value !== "own") this.named(select.value === "digits" ? `digits:${index.value}` : select.value);
    } }, ...options.map(([v, text]) => el("option", { value: v, selected: v === kind }, text)));
    return el("div", { class: "line" }, select, index);
  }

  upload() {
    const file = el("input", { type: "file", accept: "image/*", class: "unseen", id: "file", onchange: () => {
      if (file.files?.[0]) this.send(file.files[0], file.files[0].name);
    } });
    return el("div", { class: "line" }, file, el("label", { class: "button", for: "file" }, t("choose-file")),
      el("span", { class: "soft" }, t("or-drop")));
  }

  clear() {
    const pen = /** @type {CanvasRenderingContext2D} */ (this.pad.getContext("2d"));
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, PAD, PAD);
  }

  read() {
    this.pad.toBlob((blob) => blob && this.send(blob, t("drawn"), "pad"), "image/png");
  }

  /** @param {Blob} blob @param {string} name @param {string} [slot] */
  async send(blob, name, slot) {
    try {
      if (blob.size > LARGEST) throw new Error(t("too-large", { mib: LARGEST / 2 ** 20 }));
      this.sent(await sendPicture(blob, name, slot));
    } catch (error) {
      complain(error);
    }
  }

  /** @param {any} facts of the picture that is shown */
  show(facts) {
    const changed = this.id !== facts.id;
    this.id = facts.id;
    this.name = facts.name;
    if (changed && this.way === "name" && this.facts.can.pictures) this.body();
    this.notes.textContent = this.way === "draw" ? "" : facts.notes.join("; ");
    fill(this.top, ...likeliest(facts.top, this.facts.can.why ? (row) => this.why(row.label) : null));
    this.top.setAttribute("role", "group");
    this.top.setAttribute("aria-label", t("likeliest"));
  }

  /** @param {string} name the class that the picture shows the pixels of */
  press(name) {
    for (const button of this.top.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.value === name));
  }
}

/**
 * White strokes on black, as thick as those of the training digits.
 * @param {HTMLCanvasElement} canvas @param {() => void} changed
 */
function drawing(canvas, changed) {
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, PAD, PAD);
  let down = false;
  const at = (/** @type {PointerEvent} */ e) => {
    const box = canvas.getBoundingClientRect();
    return [((e.clientX - box.left) * PAD) / box.width, ((e.clientY - box.top) * PAD) / box.height];
  };
  canvas.addEventListener("pointerdown", (e) => {
    down = true;
    canvas.setPointerCapture(e.pointerId);
    Object.assign(pen, { strokeStyle: "#fff", lineWidth: 20, lineCap: "round", lineJoin: "round", shadowColor: "#fff",
      shadowBlur: 8 });
    const [x, y] = at(e);
    pen.beginPath();
    pen.moveTo(x, y);
    pen.lineTo(x + 0.1, y);
    pen.stroke();
    changed();
  });
  canvas.addEventListener("pointermove", (e) => {
    if (!down) return;
    const [x, y] = at(e);
    pen.lineTo(x, y);
    pen.stroke();
    changed();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { down = false; });
}
