// @ts-check
// Arrows move the unit, Shift by 8, PageUp and PageDown the map.

/** @type {Record<string, [number, number]>} */
const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/**
 * @param {HTMLElement} element @param {(rows: number, columns: number) => void} move @param {(maps: number) => void}
 *   turn
 */
export function listen(element, move, turn) {
  element.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const step = STEPS[e.key];
    if (step) move(step[0] * (e.shiftKey ? 8 : 1), step[1] * (e.shiftKey ? 8 : 1));
    else if (e.key === "PageDown" || e.key === "PageUp") turn(e.key === "PageDown" ? 1 : -1);
    else return;
    e.preventDefault();
  });
}
