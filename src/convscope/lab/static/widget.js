// @ts-check
// In a notebook: the page in a frame of its own, its questions carried to the kernel and the answers back.

/** @param {{model: any, el: HTMLElement}} view */
function render({ model, el }) {
  const frame = document.createElement("iframe");
  frame.title = "convscope";
  frame.setAttribute("sandbox", "allow-scripts allow-downloads");
  Object.assign(frame.style, { width: "100%", height: `${model.get("height")}px`, border: "1px solid #8888" });
  const asked = (/** @type {MessageEvent} */ e) => {
    if (e.source === frame.contentWindow && typeof e.data?.path === "string") model.send({ id: e.data.id, path: e.data.path });
  };
  const answered = (/** @type {any} */ told, /** @type {DataView[]} */ buffers) => {
    const view = buffers[0];
    const body = new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice().buffer;
    frame.contentWindow?.postMessage({ ...told, body }, "*", [body]);
  };
  window.addEventListener("message", asked);
  model.on("msg:custom", answered);
  frame.srcdoc = model.get("page");
  el.append(frame);
  return () => {
    window.removeEventListener("message", asked);
    model.off("msg:custom", answered);
  };
}

export default { render };
