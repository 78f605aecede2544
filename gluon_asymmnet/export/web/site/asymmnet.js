// Classify pictures or detect objects in the browser, with the results of the Python package.
//
//   import { Predictor } from "./asymmnet.js";
//   const predictor = await Predictor.load();               // the model beside this file
//   const [best] = await predictor.classify(file);          // { index, name, probability }
//   const found = await predictor.detect(file);             // [{ index, name, score, box }, ...]
//
// A picture is a Blob or File, an ArrayBuffer or Uint8Array with a JPEG, PNG, WebP or BMP file, or
// an ImageData.

import { PictureError, readPicture } from "./picture.js";
import { centreCrop, stretched } from "./resize.js";

export { PictureError };

const HERE = new URL(".", import.meta.url);
const { fround, max, min } = Math;

export class Predictor {
  // Load card, model and engine.  `engine`: "webgpu", "wasm", or "auto": WebGPU if the browser has
  // it and it can run the model.
  static async load({ engine = "auto", folder = HERE } = {}) {
    const card = await (await get(new URL("card.json", folder))).json();
    const model = new Uint8Array(await (await get(new URL("model.onnx", folder))).arrayBuffer());
    const reasons = [];
    const engines = (await hasGraphicsCard()) ? ["webgpu", "wasm"] : ["wasm"];
    for (const name of engine === "auto" ? engines : [engine]) {
      try {
        const { ort, session } = await open(name, model);
        const predictor = new Predictor(card, name, ort, session);
        await predictor.predict(new Float32Array(3 * card.input_size ** 2)); // compiles it
        return predictor;
      } catch (error) {
        reasons.push(`${name}: ${error.message}`);
      }
    }
    throw new Error(`the model cannot be run (${reasons.join("; ")})`);
  }

  constructor(card, engine, ort, session) {
    this.card = card;
    this.engine = engine;
    this.kind = card.kind ?? "classifier";
    this.ort = ort;
    this.session = session;
    this.levels = card.rgb_mean.map((mean, c) => {
      const scale = fround(1 / fround(card.rgb_std[c]));
      return Float32Array.from({ length: 256 }, (_, v) => fround(v - fround(mean)) * scale);
    });
  }

  // Return the input of the network, (3, size, size) float32, normalised, as Python computes it.
  preprocess(view) {
    const size = this.card.input_size;
    const rgb = this.kind === "detector"
      ? stretched(view, size)
      : centreCrop(view, size, this.card.crop_ratio);
    const area = size * size;
    const result = new Float32Array(3 * area);
    for (let c = 0; c < 3; c++) {
      for (let i = 0; i < area; i++) result[c * area + i] = this.levels[c][rgb[3 * i + c]];
    }
    return result;
  }

  // Map a preprocessed picture to the outputs of the network: logits, or scores and boxes.
  async predict(input) {
    const size = this.card.input_size;
    const tensor = new this.ort.Tensor("float32", input, [1, 3, size, size]);
    const outputs = await this.session.run({ [this.session.inputNames[0]]: tensor });
    const arrays = this.session.outputNames.map((name) => outputs[name].data);
    if (!arrays.every((array) => array.every(Number.isFinite))) {
      throw new Error(`${this.engine} gives values that are not finite`);
    }
    return arrays;
  }

  // Return the `top` most probable classes, best first.
  async classify(picture, top = 5) {
    this.#require("classifier");
    const [logits] = await this.predict(this.preprocess(await readPicture(picture)));
    const highest = logits.reduce((a, b) => max(a, b));
    const exponentials = Array.from(logits, (logit) => Math.exp(logit - highest));
    const sum = exponentials.reduce((a, b) => a + b);
    return order(logits).slice(0, top).map((index) => ({
      index, name: this.#name(index), probability: exponentials[index] / sum,
    }));
  }

  // Return the objects with a score from `threshold` on, best first; a box is [left, top, right,
  // bottom] in pixels of the picture as it is seen.
  async detect(picture, threshold = 0.3) {
    this.#require("detector");
    const { card } = this;
    const view = await readPicture(picture);
    const [scores, boxes] = await this.predict(this.preprocess(view));
    const size = card.input_size;
    const factors = [view.width, view.height].map((side) => fround(size / side));
    return suppress(scores, boxes, card)
      .map(({ index, score, box }) => ({
        index, name: this.#name(index), score,
        box: Array.from(box, (v, i) => fround(min(max(v, 0), size) / factors[i % 2])),
      }))
      .filter(({ score, box }) =>
        score >= fround(threshold) && box[0] < box[2] && box[1] < box[3]);
  }

  #name(index) {
    return this.card.class_names?.[index] ?? String(index);
  }

  #require(kind) {
    if (this.kind !== kind) throw new Error(`the model is a ${this.kind}, not a ${kind}`);
  }
}

// Suppress overlapping boxes of a class, as predict/nms.py does, in single precision.
//
// scores: (A, classes), boxes: (A, 4) corners, both flat.  Returns [{ index, score, box }, ...].
export function suppress(scores, boxes, { nms_thresh, nms_topk, post_nms, least_score }) {
  const count = boxes.length / 4;
  const classes = scores.length / count;
  const found = [];
  for (let index = 0; index < classes; index++) {
    for (let i = 0; i < count; i++) {
      const score = scores[i * classes + index];
      if (score > fround(least_score)) {
        found.push({ index, score, box: boxes.subarray(4 * i, 4 * i + 4) });
      }
    }
  }
  if (!(nms_thresh > 0 && nms_thresh < 1)) return found;
  found.sort((a, b) => b.score - a.score); // stable: of equal scores the earlier one first
  let rest = nms_topk > 0 ? found.slice(0, nms_topk) : found;
  const kept = [];
  while (rest.length && kept.length !== post_nms) {
    const [best, ...others] = rest;
    kept.push(best);
    rest = others.filter((other) =>
      other.index !== best.index || !(overlap(best.box, other.box) > fround(nms_thresh)));
  }
  return kept;
}

function overlap(a, b) {
  const common = areaOf([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])]);
  return fround(common / fround(fround(areaOf(a) + areaOf(b)) - common));
}

const areaOf = (box) => fround(max(fround(box[2] - box[0]), 0) * max(fround(box[3] - box[1]), 0));

// Positions by falling value; of equal values the earlier one first.
const order = (values) => Array.from(values.keys()).sort((a, b) => values[b] - values[a]);

// WebGPU in software is much slower than WebAssembly.
async function hasGraphicsCard() {
  const adapter = await navigator.gpu?.requestAdapter();
  return Boolean(adapter) && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
}

async function open(engine, model) {
  const ort = await import(new URL(`ort/ort.${engine}.min.mjs`, HERE).href);
  ort.env.wasm.wasmPaths = new URL("ort/", HERE).href;
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(model, { executionProviders: [engine] });
  return { ort, session };
}

async function get(url) {
  // Asks the server whether the file has changed: parts of two exports must not mix.
  const response = await fetch(url, { cache: "no-cache" });
  if (!response.ok) throw new Error(`${url.pathname} cannot be loaded: ${response.status}`);
  return response;
}
