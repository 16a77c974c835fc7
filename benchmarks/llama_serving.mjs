// Answer prompts with llama.cpp, asked by benchmarks.serving_arms: one line of JSON each on standard
// input, one answer on standard output.
//
//   node llama_serving.mjs MODEL.gguf ROWS CONTEXT THREADS
//
// With node-llama-cpp, which the environment variable RISEN_NODE_LLAMA names the folder of.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { join } from "node:path";

const [model, rows, context, threads] = process.argv.slice(2);
const entry = join(process.env.RISEN_NODE_LLAMA, "dist", "index.js");
const { getLlama } = await import(pathToFileURL(entry).href);
const llama = await getLlama({ gpu: false, maxThreads: Number(threads), build: "never", logLevel: "error" });
const loaded = await llama.loadModel({ modelPath: model, gpuLayers: 0 });

// A batch goes off when every answer that runs has a token in it, as in llama.cpp's server. The
// package itself sends what there is in the next cycle, which is often one token of eight.
let active = 0;
let pending = null;
const send = () => {
  if (pending === null) return;
  const dispatch = pending;
  pending = null;
  dispatch();
};
const sendIfReady = () => whole._queuedDecodes.length >= active && send();
const dispatchSchedule = (dispatch) => {
  pending = dispatch;
  setImmediate(sendIfReady);
  // The rest of a prompt longer than a batch has nobody who says that it is ready.
  setTimeout(() => pending === dispatch && send(), 20);
};

const whole = await loaded.createContext({
  sequences: Number(rows),
  contextSize: Number(context),
  threads: Number(threads),
  batchSize: 512,
  // llama.cpp computes sequences together only where their numbers follow each other in a batch: so
  // they are put in order, and the lowest free one is taken.
  batching: { dispatchSchedule, itemPrioritizationStrategy: "firstInFirstOut" },
});
const sequences = Array.from({ length: Number(rows) }, () => whole.getSequence());
const free = new Set(sequences.keys());
const waiting = [];
const place = () => {
  if (!free.size) return new Promise((go) => waiting.push(go));
  const lowest = Math.min(...free);
  free.delete(lowest);
  return lowest;
};
const giveBack = (number) => (waiting.length ? waiting.shift()(number) : free.add(number));
const now = () => performance.now() / 1000;

// One answer of exactly `tokens` tokens: what they are, and when each came.
async function answer(ids, tokens) {
  const number = await place();
  const one = sequences[number];
  await one.clearHistory();
  const got = [];
  const times = [];
  active += 1;
  for await (const token of one.evaluate(ids, {
    temperature: 0,
    yieldEogToken: true,
    evaluationPriority: 1000 - number,
  })) {
    got.push(token);
    times.push(now());
    if (got.length >= tokens) break;
    setImmediate(() => setImmediate(sendIfReady));
  }
  active -= 1;
  setImmediate(sendIfReady);
  giveBack(number);
  return { ids: got, times };
}

const later = (seconds) => new Promise((go) => setTimeout(go, seconds * 1000));

console.log(JSON.stringify({ ready: llama.llamaCppRelease }));
for await (const line of createInterface({ input: process.stdin })) {
  const { prompts, tokens, arrivals } = JSON.parse(line);
  const begun = now();
  const made = await Promise.all(
    prompts.map(async (ids, number) => {
      if (arrivals) await later(arrivals[number]);
      return answer(ids, tokens[number]);
    }),
  );
  for (const one of made) one.times = one.times.map((time) => time - begun);
  console.log(JSON.stringify({ answers: made, peak: process.resourceUsage().maxRSS * 1024 }));
}
process.exit(0);
