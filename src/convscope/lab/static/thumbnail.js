// @ts-check
// Pixels as a picture of one pixel a value; of two or four channels the last is how opaque it is.

/** @param {Float32Array} values in 0..1 @param {number[]} shape channels, height, width */
export function thumbnail(values, [channels, height, width]) {
  const image = new ImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = 255 * values[(channels < 3 ? 0 : c) * height * width + i];
    image.data[4 * i + 3] = channels % 2 ? 255 : 255 * values[(channels - 1) * height * width + i];
  }
  const small = new OffscreenCanvas(width, height);
  /** @type {OffscreenCanvasRenderingContext2D} */ (small.getContext("2d")).putImageData(image, 0, 0);
  return small;
}
