// @ts-check
// What is shown, kept in the address, so that a copied address shows the same. The token never stays in it.

let kept = new URLSearchParams(location.search);
const PLACE = "convscope.at:";

/** @returns {URLSearchParams} */
export function shown() {
  return new URLSearchParams(kept);
}

/**
 * @param {Record<string, string | number | null>} changes null takes a key away
 * @param {boolean} [step] whether the browser's way back leads to what was shown before
 */
export function remember(changes, step = false) {
  const now = shown();
  now.delete("token");
  for (const [key, value] of Object.entries(changes)) {
    if (value === null || value === "") now.delete(key);
    else now.set(key, String(value));
  }
  kept = now;
  const text = now.toString().replaceAll("%2C", ",").replaceAll("%3A", ":");
  const to = location.pathname + (text ? `?${text}` : "");
  try {
    if (step && to !== location.pathname + location.search) history.pushState(null, "", to);
    else history.replaceState(null, "", to);
    sessionStorage.setItem(PLACE + location.pathname, text);
  } catch {
    // a frame in a notebook has no address of its own
  }
}

/** @param {() => void} shown what is to be done once the address is another one of this page */
export function whenBack(shown) {
  addEventListener("popstate", () => {
    kept = new URLSearchParams(location.search);
    shown();
  });
}

/** What another page showed last, with the picture of this one if it had none. @param {string} path @returns {string} */
export function lastOf(path) {
  const last = new URLSearchParams(sessionStorage.getItem(PLACE + path) ?? "");
  const picture = kept.get("picture");
  if (picture && !last.has("picture")) last.set("picture", picture);
  return last.toString();
}

/** @param {string} key @param {number} fallback @param {number} least @param {number} most */
export function numberOf(key, fallback, least, most) {
  const text = shown().get(key);
  const value = Number(text);
  return text !== null && Number.isInteger(value) && value >= least && value <= most ? value : fallback;
}

/** @param {string} key @returns {string | null} a setting of this browser */
export function setting(key) {
  try {
    return localStorage.getItem(`convscope.${key}`);
  } catch {
    return null;
  }
}

/** @param {string} key @param {string} value */
export function set(key, value) {
  try {
    localStorage.setItem(`convscope.${key}`, value);
  } catch {
    // a browser that keeps nothing shows the same, and forgets it
  }
}
