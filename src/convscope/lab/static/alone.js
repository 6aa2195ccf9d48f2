// @ts-check
// A page that holds its network and its picture: it is its own server.
import { answerBy } from "./api.js";
import { answersOf } from "./answers.js";
import { start } from "./frame.js";
import { begin } from "./network.js";
import { Store } from "./store.js";

const facts = JSON.parse(document.getElementById("facts")?.textContent ?? "{}");
const held = Object.fromEntries([...document.querySelectorAll("script[id^=blob-]")].map((e) => [e.id.slice(5), e]));
answerBy(answersOf(facts, new Store(facts.tensors, (name) => held[name].textContent ?? "")));
start({ "/": "network" }, "/", async () => ({ begin }));
