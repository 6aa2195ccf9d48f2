// @ts-check
// The tensors of a page without a server: each is text until it is asked for.

/**
 * @typedef {{shape: number[], name: string, input: boolean}} About
 * @typedef {About & {values: Float32Array}} Tensor
 */

/** @param {string} text base64 of little-endian float32 @returns {Float32Array} */
export function decoded(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Float32Array(bytes.buffer);
}

export class Store {
  /** @param {Record<string, About>} about the tensors by their numbers @param {(name: string) => string} text of one */
  constructor(about, text) {
    this.about = about;
    this.text = text;
    /** @type {Map<string, Float32Array>} */
    this.known = new Map();
  }

  /** @param {string | number} name @returns {Float32Array} */
  values(name) {
    const known = this.known.get(String(name));
    if (known) return known;
    const made = decoded(this.text(String(name)));
    this.known.set(String(name), made);
    return made;
  }

  /** @param {number} id @returns {Tensor} */
  tensor(id) {
    return { ...this.about[id], values: this.values(id) };
  }
}

/** @param {number[]} shape @param {number[]} index @returns {number} the place of an element */
export function flat(shape, index) {
  return index.reduce((at, i, axis) => at * shape[axis] + i, 0);
}

/** @param {number[]} shape @param {number} at @returns {number[]} the index of a place */
export function unflat(shape, at) {
  const index = [];
  for (const n of [...shape].reverse()) {
    index.unshift(at % n);
    at = Math.floor(at / n);
  }
  return index;
}

/** Where an operand that is broadcast was read. @param {number[]} shape @param {number[]} unit @returns {number[]} */
export function broadcast(shape, unit) {
  return shape.map((n, axis) => (n === 1 ? 0 : unit[unit.length - shape.length + axis]));
}

/** @param {About} tensor @param {number[]} index such as `features.C1[0, 2, 3, 4]` */
export function place(tensor, index) {
  return `${tensor.name}[${index.join(", ")}]`;
}
