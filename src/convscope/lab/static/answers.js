// @ts-check
// What the server would answer, worked out from what the page itself holds.
import { looksAt } from "./picture.js";
import { flat } from "./store.js";
import { taken } from "./terms.js";
import { t } from "./words.js";

/** @typedef {import("./store.js").Store} Store */

/** @param {any} facts of the file @param {Store} store @returns {(path: string) => Promise<Response>} */
export function answersOf(facts, store) {
  const answers = new Answers(facts, store);
  return async (path) => {
    const [words, query] = path.split("?");
    return answers.of(words.split("/"), new URLSearchParams(query));
  };
}

class Answers {
  /** @param {any} facts @param {Store} store */
  constructor(facts, store) {
    this.facts = facts;
    this.store = store;
  }

  /** @param {string[]} words of the path @param {URLSearchParams} query @returns {Response} */
  of(words, query) {
    const [first, , what, layer, part, unit, more] = words;
    if (first === "session") return json(this.facts.session);
    if (what === undefined) return json(this.facts.picture);
    if (what === "pixels") return packed({ shape: this.facts.picture.shape }, this.store.values("pixels"));
    if (what === "layers" && layer === undefined) return json(this.facts.layers);
    if (part === "maps") return this.maps(Number(layer), query);
    const at = unit ? unit.split(",").map(Number) : [];
    if (more === "reach") return packed({ unseen: this.row(Number(layer)).holes, holes: 0 }, new Float32Array());
    return json(this.unit(Number(layer), at, Number(query.get("channel") ?? -1)));
  }

  /** @param {number} index @returns {any} */
  row(index) {
    return this.facts.layers.rows.find((/** @type {any} */ r) => r.index === index);
  }

  /** @param {number} layer @param {URLSearchParams} query */
  maps(layer, query) {
    const head = this.facts.maps[layer];
    if (!head) return json({ error: t("no-maps") }, 400);
    const by = query.get("by") ?? "index";
    const order = Array.from({ length: head.maps }, (_, i) => i);
    if (by !== "index") order.sort((a, b) => (head[by][b] ?? -Infinity) - (head[by][a] ?? -Infinity) || a - b);
    const pages = Math.max(1, Math.ceil(head.maps / head.page_of));
    const page = Math.min(pages - 1, Math.max(0, Number(query.get("page")) || 0));
    const index = order.slice(page * head.page_of, (page + 1) * head.page_of);
    const step = Math.max(1, Math.ceil(Math.max(head.height, head.width) / head.side));
    const [rows, columns] = [Math.ceil(head.height / step), Math.ceil(head.width / step)];
    const all = this.store.values(this.row(layer).value);
    const values = new Float32Array(index.length * rows * columns);
    index.forEach((map, slot) => {
      for (let i = 0; i < rows * columns; i++) {
        const at = map * head.height * head.width + Math.floor(i / columns) * step * head.width + (i % columns) * step;
        values[slot * rows * columns + i] = all[at];
      }
    });
    const of = (/** @type {string} */ key) => index.map((map) => head[key][map]);
    const [min, max, bad] = [of("min"), of("max"), of("bad")];
    const dead = index.map((_, i) => min[i] === 0 && max[i] === 0 && bad[i] === 0);
    return packed({ ...head, min, max, bad, variance: of("variance"), dead, index, page, pages, by, step, rows, columns },
      values);
  }

  /** @param {number} layer @param {number[]} unit @param {number} channel */
  unit(layer, unit, channel) {
    const row = this.row(layer);
    const recipe = this.facts.recipes[layer];
    const output = this.store.tensor(row.value);
    const value = output.values[flat(output.shape, unit)];
    const told = { layer: row.module || row.op, index: layer, op: row.op, unit, value, box: this.box(row, unit),
      unknown: row.unknown };
    if (!recipe) return { ...told, told: null, why: t("no-recipe", { op: row.op }) };
    return { ...told, told: taken(this.store, recipe, unit, output.shape, value, channel) };
  }

  /** @param {any} row @param {number[]} unit */
  box(row, unit) {
    if (row.unknown) return null;
    const [r, c] = unit.length === 4 ? unit.slice(2) : [0, 0];
    const size = this.facts.picture.shape.slice(1);
    if (row.boxes) return [row.boxes[0][r], row.boxes[1][c]];
    return looksAt(row, r, c, size);
  }
}

/** @param {any} content @param {number} [status] */
function json(content, status = 200) {
  return new Response(JSON.stringify(content), { status });
}

/** @param {any} head @param {Float32Array} values */
function packed(head, values) {
  const text = new TextEncoder().encode(JSON.stringify(head));
  const length = text.length + (-text.length & 3);
  const bytes = new Uint8Array(4 + length + values.byteLength).fill(32);
  new DataView(bytes.buffer).setUint32(0, length, true);
  bytes.set(text, 4);
  bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), 4 + length);
  return new Response(bytes);
}
