// @ts-check
// Files for the reader: what is shown as PNG or SVG, and its exact numbers.

/** @param {Blob | string} content a blob, or an address of this server @param {string} name */
export function save(content, name) {
  const link = document.createElement("a");
  const address = typeof content === "string" ? content : URL.createObjectURL(content);
  link.href = address;
  link.download = name.replace(/[^\w.,\u4e00-\u9fff-]+/g, "_");
  link.click();
  if (typeof content !== "string") setTimeout(() => URL.revokeObjectURL(address), 10000);
}

/** @param {any} data @param {string} name */
export function saveJson(data, name) {
  save(new Blob([JSON.stringify(data, null, 1)], { type: "application/json" }), name);
}

/**
 * @param {HTMLCanvasElement[]} layers drawn over each other
 * @param {string} back the page's colour
 * @param {string} name
 */
export function savePng(layers, back, name) {
  const sheet = document.createElement("canvas");
  [sheet.width, sheet.height] = [layers[0].width, layers[0].height];
  const pen = /** @type {CanvasRenderingContext2D} */ (sheet.getContext("2d"));
  pen.fillStyle = back;
  pen.fillRect(0, 0, sheet.width, sheet.height);
  for (const layer of layers) pen.drawImage(layer, 0, 0);
  sheet.toBlob((blob) => blob && save(blob, name), "image/png");
}
