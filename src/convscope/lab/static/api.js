// @ts-check
// Questions to the server. A newer question in the same slot puts off the older one.

/** @typedef {{head: any, values: Float32Array}} Packed */

export class Problem extends Error {}

/** @type {Map<string, AbortController>} */
const slots = new Map();
/** @type {(path: string, options: RequestInit) => Promise<Response>} */
let asked = (path, options) => fetch(`/api/${path}`, options);
let open = 0;
let timer = 0;

/**
 * Let something else than a server answer: the page itself, or a notebook's kernel.
 * @param {(path: string, options: RequestInit) => Promise<Response>} answer
 */
export function answerBy(answer) {
  asked = answer;
}

/** The page says that it works only after 100 ms: a shorter wait is none. */
function counted(/** @type {number} */ change) {
  open += change;
  clearTimeout(timer);
  if (open > 0) timer = setTimeout(() => document.body.classList.add("busy"), 100);
  else document.body.classList.remove("busy");
}

/**
 * @param {string} path @param {RequestInit & {slot?: string, tries?: number}} [options]
 * @returns {Promise<Response>}
 */
async function ask(path, { slot, tries = 4, ...options } = {}) {
  if (slot) {
    slots.get(slot)?.abort();
    slots.set(slot, new AbortController());
    options.signal = slots.get(slot)?.signal;
  }
  counted(1);
  try {
    const answer = await asked(path, options);
    if (answer.ok) return answer;
    if (answer.status === 503 && tries > 1) {
      await new Promise((done) => setTimeout(done, 1000 * Number(answer.headers.get("retry-after") ?? 1)));
      return await ask(path, { tries: tries - 1, ...options });
    }
    const text = await answer.text();
    throw new Problem(sentence(text) || `${answer.status} ${answer.statusText}`);
  } catch (error) {
    if (error instanceof TypeError) throw new Problem("");
    throw error;
  } finally {
    counted(-1);
  }
}

/** @param {string} text */
function sentence(text) {
  try {
    return String(JSON.parse(text).error);
  } catch {
    return text.slice(0, 300);
  }
}

/** @param {unknown} error whether it only says that a newer question was asked */
export function putOff(error) {
  return error instanceof DOMException && error.name === "AbortError";
}

/** @param {string} path @param {string} [slot] @returns {Promise<any>} */
export async function getJson(path, slot) {
  return (await ask(path, { slot })).json();
}

/** @param {string} path @param {string} [slot] @returns {Promise<Packed>} numbers behind a JSON head */
export async function getPacked(path, slot) {
  const buffer = await (await ask(path, { slot })).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  return { head, values: new Float32Array(buffer, 4 + length) };
}

/** @param {string} path @param {string} slot @returns {Promise<Blob>} */
export async function getBlob(path, slot) {
  return (await ask(path, { slot })).blob();
}

/**
 * @param {Blob} blob
 * @param {string} name
 * @param {string} [slot]
 * @returns {Promise<any>} what the server made of the picture
 */
export async function sendPicture(blob, name, slot) {
  return (await ask(`pictures?name=${encodeURIComponent(name)}`, { method: "POST", body: blob, slot })).json();
}
