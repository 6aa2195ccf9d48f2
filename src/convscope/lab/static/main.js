// @ts-check
// The lab's pages, by their addresses; each is loaded when it is opened.
import { start } from "./frame.js";

const PAGES = { "/": "network", "/convolution": "convolution", "/family": "family", "/runs": "runs" };

start(PAGES, location.pathname in PAGES ? location.pathname : "/", (name) => import(`./${name}.js`));
