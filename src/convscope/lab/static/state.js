// @ts-check
// What is shown, kept in the address, so that a copied address shows the same. The token never stays in it.

let kept = new URLSearchParams(location.search);

/** @returns {URLSearchParams} */
export function shown() {
  return new URLSearchParams(kept);
}

/** @param {Record<string, string | number | null>} changes null takes a key away */
export function remember(changes) {
  const now = shown();
  now.delete("token");
  for (const [key, value] of Object.entries(changes)) {
    if (value === null || value === "") now.delete(key);
    else now.set(key, String(value));
  }
  kept = now;
  const text = now.toString().replaceAll("%2C", ",").replaceAll("%3A", ":");
  try {
    history.replaceState(null, "", location.pathname + (text ? `?${text}` : ""));
  } catch {
    // a frame in a notebook has no address of its own
  }
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
