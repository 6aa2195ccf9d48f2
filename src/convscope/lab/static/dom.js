// @ts-check
// Elements by code alone: no HTML is ever parsed from text, so that a name is shown as what it is.

/** @typedef {Node | string | number | null | undefined | false} Child */
/** @typedef {Record<string, any>} Props */

const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "selected", "tabIndex", "htmlFor"]);
const SVG = "http://www.w3.org/2000/svg";

/**
 * An element with properties, listeners (`onclick`) and children.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag @param {Props} [props] @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function el(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  apply(made, props);
  made.append(...kept(children));
  return made;
}

/**
 * The same for SVG.
 * @param {string} tag @param {Props} [props] @param {...Child} children
 * @returns {SVGElement}
 */
export function svg(tag, props = {}, ...children) {
  const made = /** @type {SVGElement} */ (document.createElementNS(SVG, tag));
  apply(made, props);
  made.append(...kept(children));
  return made;
}

/** @param {Element} element @param {...Child} children */
export function fill(element, ...children) {
  element.replaceChildren(...kept(children));
}

/** @param {Element} made @param {Props} props */
function apply(made, props) {
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (PROPERTIES.has(key)) /** @type {any} */ (made)[key] = value;
    else if (value !== false) made.setAttribute(key, value === true ? "" : String(value));
  }
}

/** @param {Child[]} children @returns {(Node | string)[]} */
function kept(children) {
  return children.filter((c) => c !== null && c !== undefined && c !== false)
    .map((c) => (typeof c === "number" ? String(c) : /** @type {Node | string} */ (c)));
}

/**
 * A canvas as sharp as the screen; drawing is in CSS pixels.
 * @param {HTMLCanvasElement} canvas @param {number} width @param {number} height
 * @returns {CanvasRenderingContext2D}
 */
export function sized(canvas, width, height) {
  const ratio = height * devicePixelRatio > 30000 ? 1 : devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.setTransform(canvas.width / Math.max(1, width), 0, 0, canvas.height / Math.max(1, height), 0, 0);
  pen.imageSmoothingEnabled = false;
  return pen;
}

/**
 * A labelled choice.
 * @param {string} label @param {[string, string][]} options value and text
 * @param {string} value @param {(value: string) => void} changed
 */
export function choice(label, options, value, changed) {
  const select = el("select", { "aria-label": label, onchange: () => changed(select.value) },
    ...options.map(([v, text]) => el("option", { value: v, selected: v === value }, text)));
  return el("label", { class: "field" }, el("span", {}, label), select);
}

/**
 * Buttons of which one is pressed.
 * @param {string} label @param {[string, string][]} options @param {string} value @param {(value: string) => void}
 *   changed
 */
export function segments(label, options, value, changed) {
  const buttons = options.map(([v, text]) => el("button", {
    type: "button", "aria-pressed": String(v === value), "data-value": v,
    onclick: () => {
      for (const b of buttons) b.setAttribute("aria-pressed", String(b.dataset.value === v));
      changed(v);
    },
  }, text));
  return el("div", { class: "segments", role: "group", "aria-label": label }, ...buttons);
}
