// @ts-check
// The frame of every page: name, pages, language, colours. The page itself is a module of its own.
import { el, fill } from "./dom.js";
import { lastOf, remember, set, setting } from "./state.js";
import { LANGUAGES, language, setLanguage, t } from "./words.js";

const THEMES = ["auto", "light", "dark"];

/** @typedef {{begin: (main: HTMLElement, facts: HTMLElement) => Promise<() => void>}} Page */

/**
 * @param {Record<string, string>} pages names by their addresses; one alone needs no way to the others
 * @param {string} path of the one that is shown
 * @param {(name: string) => Promise<Page>} load
 */
export async function start(pages, path, load) {
  /** @type {() => void} */
  let redraw = () => {};
  remember({});
  setLanguage(setting("language") ?? navigator.language);
  document.documentElement.dataset.theme = THEMES.includes(setting("theme") ?? "") ? setting("theme") ?? "auto" : "auto";
  const name = pages[path];
  const page = await load(name);
  const header = el("header", { class: "top" });
  const facts = el("div", { class: "facts" });
  const main = el("main", { id: "main", class: name });
  const alert = el("div", { id: "problem", role: "alert", hidden: true });
  const speech = el("div", { id: "speech", class: "unseen", "aria-live": "polite" });
  document.body.replaceChildren(header, alert, main, speech);
  const drawFrame = () => {
    document.documentElement.lang = language();
    document.title = `${t(name)} \u00b7 convscope lab`;
    const links = Object.entries(pages).map(([to, other]) =>
      el("a", { href: to, "aria-current": to === path ? "page" : null,
        onclick: (/** @type {MouseEvent} */ e) => {
          if (to !== path) /** @type {HTMLAnchorElement} */ (e.currentTarget).search = lastOf(to);
        } }, t(other)));
    fill(header,
      el("a", { class: "skip", href: "#main" }, t("skip")),
      el("h1", { class: "unseen" }, t(name)),
      el("span", { class: "brand" }, el("span", { class: "mark", "aria-hidden": "true" }), "convscope",
        el("span", {}, "lab")),
      links.length > 1 && el("nav", { "aria-label": t("pages") }, ...links),
      facts,
      el("span", { class: "spinner", "aria-hidden": "true" }),
      picker(t("language"), LANGUAGES, language().split("-")[0], (value) => {
        set("language", value);
        setLanguage(value);
        drawFrame();
        redraw();
      }),
      picker(t("theme"), THEMES.map((v) => [v, t(v)]), document.documentElement.dataset.theme ?? "auto", (value) => {
        set("theme", value);
        document.documentElement.dataset.theme = value;
        redraw();
      }),
    );
  };
  drawFrame();
  redraw = await page.begin(main, facts);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
}

/** @param {string} label @param {string[][]} options @param {string} value @param {(value: string) => void} changed */
function picker(label, options, value, changed) {
  const select = el("select", { "aria-label": label, class: "quiet", onchange: () => changed(select.value) },
    ...options.map(([v, text]) => el("option", { value: v, selected: v === value }, text)));
  return select;
}
