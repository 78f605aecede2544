// The page: pictures in, classes or boxes out.

import { Predictor } from "./asymmnet.js";
import { readPicture } from "./picture.js";

const TOP = 5; // classes that are shown
const SIDE = 960; // pixels of a shown picture, at most
const KEPT = 50; // results on the page

const at = (id) => document.getElementById(id);
const [status, results, button] = [at("status"), at("results"), at("camera")];

function say(text, isError = false) {
  status.textContent = text;
  status.className = isError ? "error" : "";
}

const predictor = await Predictor.load({
  engine: new URLSearchParams(location.search).get("engine") ?? "auto",
}).catch((error) => {
  say(`The model cannot be loaded: ${error.message}`, true);
});
if (predictor) {
  const { card, kind, engine } = predictor;
  const names = card.class_names ?? [];
  const known = names.length && names.join(", ").length < 200 ? `: ${names.join(", ")}` : "";
  const count = names.length || card.classes;
  at("about").textContent = `${card.model}, a ${kind} of ${count} classes${known}`;
  document.title = `${card.model} – AsymmNet`;
  say(`Ready (${engine === "webgpu" ? "WebGPU" : "WebAssembly"}).`);
  at("inputs").hidden = false;
  connect();
}

function connect() {
  at("files").addEventListener("change", ({ target }) => {
    show([...target.files]);
    target.value = ""; // the same file may be chosen again
  });
  addEventListener("paste", ({ clipboardData }) => show([...clipboardData.files]));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    at("drop").classList.add("over");
  });
  addEventListener("dragleave", () => at("drop").classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    at("drop").classList.remove("over");
    show([...event.dataTransfer.files]);
  });
  button.addEventListener("click", () => (stopCamera ? stopCamera() : startCamera()));
}

let queue = Promise.resolve(); // one picture after the other

function show(files) {
  if (!files.length) return say("Nothing was given that is a file; copy or drop a picture.", true);
  for (const file of files) queue = queue.then(() => showFile(file));
  return queue;
}

async function showFile(file) {
  const item = newItem(file.name || "pasted picture");
  try {
    const view = await readPicture(file);
    await fill(item, await seen(view), view.width, view.height, file);
    say(`Ready: ${item.title}.`);
  } catch (error) {
    item.node.classList.add("failed");
    item.caption.textContent = `${item.title}: ${error.message}`;
    item.caption.classList.add("error");
    say(`${item.title}: ${error.message}`, true);
  }
}

function newItem(title) {
  const node = at("result").content.firstElementChild.cloneNode(true);
  const find = (selector) => node.querySelector(selector);
  const item = { title, node, frame: find(".frame"), caption: find("figcaption"),
    classes: find(".classes"), time: find(".time") };
  item.caption.textContent = title;
  results.prepend(node);
  while (results.children.length > KEPT) results.lastElementChild.remove();
  return item;
}

// Compute one picture and write what was found beside it.
async function fill(item, canvas, width, height, picture) {
  const start = performance.now();
  const found = predictor.kind === "detector"
    ? await predictor.detect(picture)
    : await predictor.classify(picture, TOP);
  item.time.textContent = `${(performance.now() - start).toFixed(0)} ms`;
  if (predictor.kind === "detector") drawBoxes(canvas, found, canvas.width / width);
  canvas.setAttribute("role", "img");
  const said = found.map(({ name, score, probability }) =>
    `${name} ${percent(score ?? probability)}`).join(", ");
  canvas.setAttribute("aria-label", `${item.title}: ${said || "nothing found"}`);
  item.frame.replaceChildren(canvas);
  item.classes.replaceChildren(...found.map(row));
  if (!found.length) item.classes.append(Object.assign(document.createElement("li"),
    { textContent: "Nothing found." }));
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function row({ index, name, score, probability }) {
  const share = score ?? probability;
  const [line, label, value, bar] = ["li", "span", "span", "meter"].map((tag) =>
    document.createElement(tag));
  label.textContent = name;
  value.textContent = percent(share);
  Object.assign(bar, { min: 0, max: 1, value: share });
  bar.setAttribute("aria-hidden", "true");
  if (predictor.kind === "detector") { // a mark in the colour of the box
    label.style.setProperty("border-inline-start", `.75em solid ${colour(index)}`);
    label.style.setProperty("padding-inline-start", ".5em");
  }
  line.append(label, value, bar);
  return line;
}

// Light, so that black letters can be read on it.
const colour = (index) => `hsl(${(index * 137.5 + 15) % 360} 95% 68%)`;

// The picture as the network's side reads it, on a canvas of at most SIDE pixels.
async function seen({ pixels, width, height, start, right, down }) {
  const scale = Math.min(1, SIDE / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  let to = 0;
  for (let y = 0; y < canvas.height; y++) {
    const line = start + Math.floor(((y + 0.5) * height) / canvas.height) * down;
    for (let x = 0; x < canvas.width; x++, to += 4) {
      const from = line + Math.floor(((x + 0.5) * width) / canvas.width) * right;
      for (let c = 0; c < 3; c++) image.data[to + c] = pixels[from + c];
      image.data[to + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

function drawBoxes(canvas, found, scale) {
  const enlarged = Math.max(1, Math.ceil(480 / Math.max(canvas.width, canvas.height)));
  if (enlarged > 1) { // so that the letters have room
    const copy = canvas.cloneNode();
    [copy.width, copy.height] = [canvas.width, canvas.height];
    copy.getContext("2d").drawImage(canvas, 0, 0);
    [canvas.width, canvas.height] = [copy.width * enlarged, copy.height * enlarged];
    canvas.getContext("2d").drawImage(copy, 0, 0, canvas.width, canvas.height);
  }
  const context = canvas.getContext("2d");
  const unit = Math.max(1, Math.max(canvas.width, canvas.height) / 480);
  context.font = `bold ${14 * unit}px system-ui, sans-serif`;
  for (const { index, name, score, box } of [...found].reverse()) {
    const [left, top, right, bottom] = box.map((value) => value * scale * enlarged);
    const text = `${name} ${score.toFixed(2)}`;
    const wide = context.measureText(text).width + 8 * unit;
    const place = Math.max(0, top - 20 * unit);
    for (const [line, width] of [["#000", 4], [colour(index), 2]]) {
      context.strokeStyle = line;
      context.lineWidth = width * unit;
      context.strokeRect(left, top, right - left, bottom - top);
    }
    context.fillStyle = colour(index);
    context.fillRect(left - unit, place, wide, 20 * unit);
    context.fillStyle = "#000";
    context.fillText(text, left + 3 * unit, place + 15 * unit);
  }
}

let stopCamera = null;

async function startCamera() {
  if (!navigator.mediaDevices?.getUserMedia) {
    return say("The camera needs a page from https:// or from http://localhost.", true);
  }
  let stream;
  try {
    const video = { facingMode: "environment" };
    stream = await navigator.mediaDevices.getUserMedia({ video });
  } catch (error) {
    return say(`The camera cannot be used: ${error.message}`, true);
  }
  let running = true;
  stopCamera = () => {
    running = false;
    stopCamera = null;
    stream.getTracks().forEach((track) => track.stop());
    button.setAttribute("aria-pressed", "false");
    button.textContent = "Camera";
  };
  button.setAttribute("aria-pressed", "true");
  button.textContent = "Stop the camera";
  const film = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
  film.srcObject = stream;
  const item = newItem("camera");
  try {
    await film.play();
    while (running) {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [film.videoWidth, film.videoHeight];
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(film, 0, 0);
      const frame = context.getImageData(0, 0, canvas.width, canvas.height);
      await fill(item, canvas, canvas.width, canvas.height, frame);
      await new Promise(requestAnimationFrame);
    }
  } catch (error) {
    say(`The camera stopped: ${error.message}`, true);
    stopCamera?.();
  }
}
