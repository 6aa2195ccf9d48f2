// @ts-check
// The frame of every page: name, pages, language, colours. The page itself is a module of its own.
import { el, fill } from "./dom.js";
import { remember, set, setting } from "./state.js";
import { LANGUAGES, language, setLanguage, t } from "./words.js";

const PAGES = { "/": "network", "/convolution": "convolution", "/family": "family", "/runs": "runs" };
const THEMES = ["auto", "light", "dark"];

/** @type {() => void} */
let redraw = () => {};

async function start() {
  remember({});
  setLanguage(setting("language") ?? navigator.language);
  document.documentElement.dataset.theme = THEMES.includes(setting("theme") ?? "") ? setting("theme") ?? "auto" : "auto";
  const path = /** @type {keyof typeof PAGES} */ (location.pathname in PAGES ? location.pathname : "/");
  const page = await import(`./${PAGES[path]}.js`);
  const header = el("header", { class: "top" });
  const facts = el("div", { class: "facts" });
  const main = el("main", { id: "main", class: PAGES[path] });
  const alert = el("div", { id: "problem", role: "alert", hidden: true });
  const speech = el("div", { id: "speech", class: "unseen", "aria-live": "polite" });
  document.body.replaceChildren(header, alert, main, speech);
  const drawFrame = () => {
    document.documentElement.lang = language();
    document.title = `${t(PAGES[path])} \u00b7 convscope lab`;
    fill(header,
      el("a", { class: "skip", href: "#main" }, t("skip")),
      el("h1", { class: "unseen" }, t(PAGES[path])),
      el("span", { class: "brand" }, el("span", { class: "mark", "aria-hidden": "true" }), "convscope",
        el("span", {}, "lab")),
      el("nav", { "aria-label": t("pages") }, ...Object.entries(PAGES).map(([to, name]) =>
        el("a", { href: to, "aria-current": to === path ? "page" : null }, t(name)))),
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

start();
