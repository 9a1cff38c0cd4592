// SPDX-License-Identifier: MIT
// The model, in a thread of its own. A message {bytes} brings the WebAssembly module, {id, request} asks it something.
let compiled = null, model = null;

function answer(request) {
  // A module that has trapped is in no defined state, so the next request gets a new instance.
  if (!model) {
    model = new WebAssembly.Instance(compiled, {}).exports;
    model._initialize();
  }
  const bytes = new TextEncoder().encode(request), at = model.playground_buffer(bytes.length) >>> 0;
  if (!at) return { error: "The request is too long for the model." };
  new Uint8Array(model.memory.buffer, at, bytes.length).set(bytes);
  const length = model.playground_answer(bytes.length) >>> 0;
  return JSON.parse(new TextDecoder().decode(new Uint8Array(model.memory.buffer, model.playground_output() >>> 0, length)));
}

onmessage = ({ data }) => {
  try {
    if (data.bytes) {
      compiled = new WebAssembly.Module(data.bytes);
      postMessage({ ready: true });
    } else {
      const start = performance.now(), result = answer(data.request);
      postMessage({ id: data.id, answer: result, milliseconds: performance.now() - start });
    }
  } catch (error) {
    model = null;
    postMessage({ id: data.id, stopped: String(error && error.message || error) });
  }
};
