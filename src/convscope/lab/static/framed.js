// @ts-check
// The page in a notebook's frame: what the frame's owner answers, the kernel has said.
import { answerBy, Problem } from "./api.js";
import { start } from "./frame.js";
import { begin } from "./network.js";
import { t } from "./words.js";

const PATIENCE = 30000; // ms

/** @type {Map<number, (answer: Response) => void>} */
const waiting = new Map();
let count = 0;

/** @param {string} path @param {RequestInit} options @returns {Promise<Response>} */
function ask(path, { signal }) {
  const id = ++count;
  return new Promise((done, failed) => {
    const timer = setTimeout(() => failed(new Problem(t("no-kernel"))), PATIENCE);
    waiting.set(id, (answer) => {
      clearTimeout(timer);
      done(answer);
    });
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      waiting.delete(id);
      failed(new DOMException("a newer question", "AbortError"));
    });
    parent.postMessage({ id, path }, "*");
  });
}

addEventListener("message", (e) => {
  if (e.source !== parent || !waiting.has(e.data?.id)) return;
  waiting.get(e.data.id)?.(new Response(e.data.body, { status: e.data.status }));
  waiting.delete(e.data.id);
});
answerBy(ask);
start({ "/": "network" }, "/", async () => ({ begin }));
