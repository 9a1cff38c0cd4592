// The page's side of the model: one worker, one request at a time. Later requests wait for earlier ones.
const TIME_LIMIT = 20;
const model = {
  worker: null, bytes: null, waiting: [], current: null, timer: 0, number: 0,
  async load() {
    if (typeof WebAssembly !== "object") throw new Error("This browser has no WebAssembly, so the model cannot run. Any browser since 2023 has it; some hardened ones let you allow it for this page.");
    if (typeof Worker !== "function") throw new Error("This browser has no Web Workers, so the model cannot run.");
    if (typeof DecompressionStream !== "function") throw new Error("This browser has no DecompressionStream, so the model cannot be unpacked. Chrome 103, Firefox 113, Safari 16.4 and later have it.");
    this.bytes = await embedded("wasm");
    await this.begin();
  },
  begin() {
    const address = URL.createObjectURL(new Blob([element("worker").textContent], { type: "text/javascript" }));
    return new Promise((resolve, reject) => {
      try { this.worker = new Worker(address); } catch (error) { reject(new Error(`The browser refused to start a Web Worker, so the model cannot run: ${error.message}`)); return; }
      this.worker.onerror = event => reject(new Error(`The model could not be started: ${event.message || "the browser refused the worker"}`));
      this.worker.onmessage = ({ data }) => {
        URL.revokeObjectURL(address);
        if (data.ready) { this.worker.onmessage = ({ data }) => this.receive(data); resolve(); }
        else reject(new Error(`The model could not be compiled: ${data.stopped}`));
      };
      this.worker.postMessage({ bytes: this.bytes });
    });
  },
  // Resolves to the answer and the time it took, or to a text of why there is none: {stopped}.
  ask(request, seconds = TIME_LIMIT) {
    return new Promise(resolve => {
      this.waiting.push({ id: ++this.number, request, resolve, seconds });
      this.next();
    });
  },
  next() {
    if (this.current || !this.waiting.length || !this.worker) return;
    this.current = this.waiting.shift();
    this.worker.postMessage({ id: this.current.id, request: this.current.request });
    this.timer = setTimeout(() => this.stop(`The run was stopped at the time limit of ${TIME_LIMIT} s.`), this.current.seconds * 1000);
  },
  receive(data) {
    if (!this.current || data.id !== this.current.id) return;
    clearTimeout(this.timer);
    const { resolve } = this.current;
    this.current = null;
    resolve(data.stopped === undefined ? data : { stopped: `The model stopped: ${data.stopped}. This is a defect of the model or a test beyond its memory; the next run starts with a new instance.` });
    this.next();
  },
  // Ends the request in progress. A thread inside WebAssembly cannot be asked to stop, so it gets a successor.
  async stop(reason) {
    if (!this.current) return;
    clearTimeout(this.timer);
    const { resolve } = this.current;
    this.current = null;
    this.worker.terminate();
    this.worker = null;
    resolve({ stopped: reason });
    await this.begin();
    this.next();
  },
};
// The text of a request: the command, options, an empty line, the test.
function requestText(command, pairs, text) {
  const clean = value => String(value).replace(/[\r\n]+/g, " ");
  return [command, ...pairs.map(([key, value]) => `${key} ${clean(value)}`), "", text || ""].join("\n");
}
