// @ts-check
// Found boxes against true ones: best first, each takes the true box that it overlaps most, if that is free.

const OVERLAP = 0.5;

/**
 * @typedef {number[]} Row x1, y1, x2, y2, class, score
 * @typedef {{box: Row, kind: "right" | "wrong" | "missed", meant: number, said: number}} Verdict `meant` or `said` is
 *   the number of classes where there is none
 */

/** @param {Row} a @param {Row} b the share of the intersection in the union */
export function overlap(a, b) {
  const wide = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const tall = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (wide <= 0 || tall <= 0) return 0;
  const area = (/** @type {Row} */ r) => (r[2] - r[0]) * (r[3] - r[1]);
  return (wide * tall) / (area(a) + area(b) - wide * tall);
}

/**
 * @param {Row[]} found by falling score @param {Row[]} meant @param {number} threshold @param {number} classes
 * @returns {Verdict[]}
 */
export function judged(found, meant, threshold, classes) {
  const free = new Set(meant.keys());
  /** @type {Verdict[]} */
  const told = found.filter((row) => row[5] >= threshold).map((box) => {
    let [best, share] = [-1, 0];
    for (const i of free) {
      const now = overlap(box, meant[i]);
      if (now >= share && now > 0) [best, share] = [i, now];
    }
    if (share < OVERLAP) return { box, kind: "wrong", meant: classes, said: box[4] };
    free.delete(best);
    return { box, kind: meant[best][4] === box[4] ? "right" : "wrong", meant: meant[best][4], said: box[4] };
  });
  return [...told, ...[...free].map((i) => /** @type {Verdict} */ ({ box: meant[i], kind: "missed", meant: meant[i][4],
    said: classes }))];
}
