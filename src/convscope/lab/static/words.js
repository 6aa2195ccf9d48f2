// @ts-check
// The page's words in the reader's language. What the server says of an error stays English.
import { en } from "./words.en.js";
import { zh } from "./words.zh.js";

/** @type {Record<string, Record<string, string>>} */
export const TABLES = { en, zh };
/** @type {string[][]} */
export const LANGUAGES = [["en", "English"], ["zh", "\u7b80\u4f53\u4e2d\u6587"]];

let now = "en";

/** The language that is shown. */
export function language() {
  return now === "zh" ? "zh-Hans" : now;
}

/** @param {string} wanted such as zh-CN; English if there are no words for it */
export function setLanguage(wanted) {
  const short = wanted.toLowerCase().split("-")[0];
  now = short in TABLES ? short : "en";
}

/**
 * The words of a key, with `{name}` filled in.
 * @param {string} key @param {Record<string, string | number>} [values]
 */
export function t(key, values = {}) {
  const text = TABLES[now][key] ?? en[/** @type {keyof typeof en} */ (key)] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}
