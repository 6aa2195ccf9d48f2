// @ts-check
// Questions to the server. A newer question in the same slot puts off the older one.
import { putOff, state } from "./notices.js";
import { Waiting } from "./waiting.js";

/** @typedef {{head: any, values: Float32Array}} Packed */

export class Problem extends Error {}

/** @type {Map<string, AbortController>} */
const slots = new Map();
/** @type {Set<AbortController>} */
const open = new Set();
/** @type {(path: string, options: RequestInit) => Promise<Response>} */
let asked = (path, options) => fetch(`/api/${path}`, options);
let counts = true;
const waiting = new Waiting(work, () => open.forEach((one) => one.abort()));

/**
 * Let something else than a server answer: the page itself, or a notebook's kernel.
 * @param {(path: string, options: RequestInit) => Promise<Response>} answer
 */
export function answerBy(answer) {
  asked = answer;
  counts = false;
}

/** How far the server has come; null where nobody counts. @returns {Promise<any>} */
async function work() {
  try {
    return counts ? await (await asked("work", {})).json() : null;
  } catch {
    return null;
  }
}

/**
 * @param {string} path @param {RequestInit & {slot?: string}} [options]
 * @returns {Promise<Response>}
 */
async function ask(path, { slot = "", ...options } = {}) {
  const stop = new AbortController();
  slots.get(slot)?.abort();
  if (slot) slots.set(slot, stop);
  open.add(stop);
  try {
    return await waiting.until(answered(path, { ...options, signal: stop.signal }));
  } catch (error) {
    if (putOff(error) && (!slot || slots.get(slot) === stop)) state(true); // the reader ended it
    throw error instanceof TypeError ? new Problem("") : error;
  } finally {
    open.delete(stop);
  }
}

/** @param {string} path @param {RequestInit} options @param {number} [tries] @returns {Promise<Response>} */
async function answered(path, options, tries = 4) {
  const answer = await asked(path, options);
  if (answer.ok) return answer;
  if (answer.status === 503 && tries > 1) {
    await new Promise((done) => setTimeout(done, 1000 * Number(answer.headers.get("retry-after") ?? 1)));
    options.signal?.throwIfAborted();
    return answered(path, options, tries - 1);
  }
  throw new Problem(sentence(await answer.text()) || `${answer.status} ${answer.statusText}`);
}

/** @param {string} text */
function sentence(text) {
  try {
    return String(JSON.parse(text).error);
  } catch {
    return text.slice(0, 300);
  }
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
