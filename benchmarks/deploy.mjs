// Run an ONNX file in onnxruntime-web under Node, as a browser does, without its picture decoder.
//
// node deploy.mjs ort.wasm.min.mjs MODEL INPUT OUTPUT SIDE: INPUT holds (n, 3, SIDE, SIDE) float32,
// OUTPUT gets the first output of each.  Prints the median milliseconds of a picture.

import { readFileSync, writeFileSync } from "node:fs";

const [, , runtime, model, input, output, side] = process.argv;
const { InferenceSession, Tensor, env } = await import(runtime);
env.wasm.numThreads = 1;
const session = await InferenceSession.create(readFileSync(model), {
  executionProviders: ["wasm"],
});
const values = new Float32Array(Uint8Array.from(readFileSync(input)).buffer);
const length = 3 * side * side;
const [found, times] = [[], []];
for (let at = 0; at < values.length; at += length) {
  const image = new Tensor("float32", values.slice(at, at + length), [1, 3, +side, +side]);
  const start = performance.now();
  const outputs = await session.run({ [session.inputNames[0]]: image });
  times.push(performance.now() - start);
  found.push(...outputs[session.outputNames[0]].data);
}
writeFileSync(output, new Uint8Array(Float32Array.from(found).buffer));
console.log(times.sort((a, b) => a - b)[times.length >> 1]);
