// @ts-check
// The names of terms, as the package writes them, in the reader's language.
import { written } from "./format.js";
import { t } from "./words.js";

const NAMED = ["mean", "variance", "scale", "shift", "bias", "copy", "self", "other", "number", "padding", "numerator",
  "denominator"];

/** @type {[RegExp, (found: string[], channels: number) => string][]} */
const KINDS = [
  [/^channel (\d+), tap ([\d,]+)( \(padding\))?$/, ([, c, at, out], channels) =>
    `${channels === 1 ? t("tap-alone", { at }) : t("tap", { c, at })}${out ? ` (${t("padding")})` : ""}`],
  [/^input (\d+)$/, ([, at]) => t("tap-alone", { at })],
  [/^input (\d+) of (\d+)$/, ([, n, of]) => t("input-of", { n, of })],
  [/^(mean|variance) of ([\d,]+) values$/, ([, what, n]) => t("of-values", { what: t(`term-${what}`), n })],
  [/^own (.+)$/, ([, what]) => t("own-term", { what: written(what) })],
  [/^log of the sum of (.+)$/, ([, what]) => t("log-sum", { what: written(what) })],
];

/** @param {string} label @param {number} channels of what the term is from */
export function labelled(label, channels) {
  if (NAMED.includes(label)) return t(`term-${label}`);
  for (const [form, said] of KINDS) {
    const found = form.exec(label);
    if (found) return said(found, channels);
  }
  return written(label);
}
