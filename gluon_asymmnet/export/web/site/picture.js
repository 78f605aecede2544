// Picture files to pixels, as the Python package reads them: turned as EXIF says, transparency
// dropped, colour profiles ignored, damaged and truncated files refused.
//
// PNG is decoded here: a canvas would round colours under transparency.  JPEG and WebP are decoded
// by the browser, after everything that browsers treat differently (EXIF, colour profile,
// transparency) is removed from the file.

const MAX_PIXELS = 178956970; // as in Python
const BAND = 1 << 20; // pixels that are read from a canvas at once: phones limit its size

export class PictureError extends Error {}

// Return a view (see resize.js) of a Blob, an ArrayBuffer or Uint8Array with a picture file, or of
// an ImageData.
export async function readPicture(source) {
  if (source && source.data instanceof Uint8ClampedArray) {
    return upright(source.data, 4, source.width, source.height, 1);
  }
  const buffer = source instanceof Blob ? await source.arrayBuffer() : source;
  const bytes = buffer instanceof Uint8Array ? buffer : new Uint8Array(buffer);
  const kind = KINDS.find(({ start }) => startsWith(bytes, start));
  if (!kind) {
    const seen = bytes.length ? "this file is none" : "this file is empty";
    throw new PictureError(`expected a JPEG, PNG, WebP or BMP picture; ${seen}`);
  }
  try {
    return await kind.read(bytes);
  } catch (error) {
    if (error instanceof RangeError) throw new PictureError("the file is cut off or damaged");
    throw error;
  }
}

// A view of stored pixels, turned by EXIF's orientation, 1 to 8, without a copy.
function upright(pixels, step, width, height, orientation) {
  const [transposed, mirrored, upsideDown] = TURNS[orientation];
  let [right, down] = transposed ? [width * step, step] : [step, width * step];
  if (transposed) [width, height] = [height, width];
  let start = 0;
  if (mirrored) [start, right] = [start + (width - 1) * right, -right];
  if (upsideDown) [start, down] = [start + (height - 1) * down, -down];
  return { pixels, width, height, start, right, down };
}

// Of each orientation: transposed first, then mirrored left to right, top to bottom.
const TURNS = [
  null, [false, false, false], [false, true, false], [false, true, true], [false, false, true],
  [true, false, false], [true, true, false], [true, true, true], [true, false, true],
];

// ------------------------------------------------------------------ decoded by the browser

async function decoded(parts, type, orientation, expected) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob(parts, { type }), {
      colorSpaceConversion: "none",
    });
  } catch {
    throw new PictureError("the file is damaged, or of a kind that this browser cannot decode");
  }
  const { width, height } = bitmap;
  if (expected && (width !== expected[0] || height !== expected[1])) {
    throw new PictureError("the file is damaged: its size is not that of its header");
  }
  checkSize(width, height);
  const rows = Math.max(1, Math.min(height, Math.floor(BAND / width)));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, rows];
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  const pixels = new Uint8ClampedArray(width * height * 4);
  for (let y = 0; y < height; y += rows) {
    const count = Math.min(rows, height - y);
    context.drawImage(bitmap, 0, y, width, count, 0, 0, width, count);
    pixels.set(context.getImageData(0, 0, width, count).data, y * width * 4);
  }
  bitmap.close();
  return upright(pixels, 4, width, height, orientation);
}

function checkSize(width, height) {
  if (!(width * height > 0 && width * height <= MAX_PIXELS)) {
    throw new PictureError(`the picture has ${width} x ${height} pixels; at most ${MAX_PIXELS}`);
  }
}

// JPEG (ITU-T T.81, annex B): drop EXIF and the colour profile, stop at the end marker.
function readJpeg(bytes) {
  const kept = [bytes.subarray(0, 2)];
  let [at, orientation, size] = [2, 1, null];
  for (;;) {
    const from = at;
    while (at + 1 < bytes.length && !isMarker(bytes[at], bytes[at + 1])) at++;
    if (at + 1 >= bytes.length) throw new PictureError("truncated JPEG: its end is missing");
    const marker = bytes[at + 1];
    kept.push(bytes.subarray(from, at)); // compressed data
    if (marker === 0xd9) break;
    const body = at + 4;
    const end = at + 2 + bytes[at + 2] * 256 + bytes[at + 3];
    if (!(end >= body && end <= bytes.length)) throw new PictureError("truncated or damaged JPEG");
    if (marker === 0xe1 && startsWith(bytes.subarray(body, end), "Exif\0\0") && !size) {
      if (orientation === 1) orientation = orientationIn(bytes.subarray(body + 6, end));
    }
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker) && !size) {
      const number = (place) => bytes[body + place] * 256 + bytes[body + place + 1];
      size = [number(3), number(1)];
    }
    if (marker !== 0xe1 && marker !== 0xe2) kept.push(bytes.subarray(at, end));
    at = end;
  }
  if (!size) throw new PictureError("damaged JPEG: no segment gives its size");
  kept.push(new Uint8Array([0xff, 0xd9]));
  return decoded(kept, "image/jpeg", orientation, size);
}

const isMarker = (first, second) =>
  first === 0xff && second > 1 && second !== 0xff && !(second >= 0xd0 && second <= 0xd8);

// WebP (RFC 9649): keep the picture's own chunk, without transparency.
function readWebp(bytes) {
  const view = viewOf(bytes);
  let [picture, orientation] = [null, 1];
  for (let at = 12; at + 8 <= bytes.length; ) {
    const length = view.getUint32(at + 4, true);
    const body = bytes.subarray(at + 8, at + 8 + length);
    if (body.length < length) throw new PictureError("truncated WebP");
    const kind = text(bytes, at, 4);
    if (kind === "VP8X" && body[0] & 2) {
      throw new PictureError("an animated WebP; expected one picture");
    }
    if ((kind === "VP8 " || kind === "VP8L") && !picture) {
      picture = bytes.slice(at, at + 8 + length + (length % 2));
      if (kind === "VP8L") picture[12] &= ~0x10; // the bit that says that alpha is used
    }
    if (kind === "EXIF") {
      orientation = orientationIn(startsWith(body, "Exif\0\0") ? body.subarray(6) : body);
    }
    at += 8 + length + (length % 2);
  }
  if (!picture) throw new PictureError("damaged WebP: it holds no picture");
  const head = bytes.slice(0, 12);
  viewOf(head).setUint32(4, 4 + picture.length, true);
  return decoded([head, picture], "image/webp", orientation);
}

// EXIF's tag 0x0112 in a TIFF directory; 1 if it is absent or damaged.
function orientationIn(exif) {
  const little = startsWith(exif, "II*\0");
  if (!little && !startsWith(exif, "MM\0*")) return 1;
  const view = viewOf(exif);
  let found = 1;
  try {
    const start = view.getUint32(4, little);
    const count = view.getUint16(start, little);
    for (let i = 0; i < count; i++) {
      const at = start + 2 + 12 * i;
      const [tag, type] = [view.getUint16(at, little), view.getUint16(at + 2, little)];
      const many = view.getUint32(at + 4, little);
      if (type !== 3 && type !== 4) continue;
      const inside = many * (type === 3 ? 2 : 4) <= 4;
      const place = inside ? at + 8 : view.getUint32(at + 8, little);
      const value = type === 3 ? view.getUint16(place, little) : view.getUint32(place, little);
      if (tag === 0x0112) found = value;
    }
  } catch {
    return 1; // cut off
  }
  return found >= 1 && found <= 8 ? found : 1;
}

// ------------------------------------------------------------------------------------- PNG

const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }; // by colour type
const DEPTHS = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] };
// Adam7: first column, first row, steps across and down
const PASSES = [
  [0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2],
];

// Source: the PNG specification (W3C), third edition.
async function readPng(bytes) {
  const { header, palette, data, orientation } = pngChunks(bytes);
  const [width, height] = [header.getUint32(0), header.getUint32(4)];
  const [depth, colour, interlaced] = [header.getUint8(8), header.getUint8(9), header.getUint8(12)];
  if (!DEPTHS[colour]?.includes(depth)) throw new PictureError("damaged PNG: its colour type");
  checkSize(width, height);
  const packed = await inflate(data);
  const target = new Uint8Array(width * height * 3);
  const passes = interlaced ? PASSES : [[0, 0, 1, 1]];
  let at = 0;
  for (const [left, top, across, deep] of passes) {
    const wide = Math.ceil((width - left) / across);
    const tall = Math.ceil((height - top) / deep);
    if (wide <= 0 || tall <= 0) continue;
    const bits = CHANNELS[colour] * depth;
    const length = Math.ceil((wide * bits) / 8);
    const rows = packed.subarray(at, at + tall * (length + 1));
    if (rows.length < tall * (length + 1)) throw new PictureError("truncated PNG");
    at += rows.length;
    unfilter(rows, length, tall, Math.max(1, bits >> 3));
    for (let y = 0; y < tall; y++) {
      const row = rows.subarray(y * (length + 1) + 1, (y + 1) * (length + 1));
      const to = ((top + y * deep) * width + left) * 3;
      paint(row, wide, depth, colour, palette, target, to, across * 3);
    }
  }
  return upright(target, 3, width, height, orientation);
}

function pngChunks(bytes) {
  const view = viewOf(bytes);
  const found = { header: null, palette: null, data: [], orientation: 1 };
  for (let at = 8; ; ) {
    const end = at + 8 + (at + 12 > bytes.length ? Infinity : view.getUint32(at));
    if (end + 4 > bytes.length) throw new PictureError("truncated PNG");
    const kind = text(bytes, at + 4, 4);
    if (crc32(bytes.subarray(at + 4, end)) !== view.getUint32(end)) {
      throw new PictureError(`damaged PNG: the checksum of ${kind} is wrong`);
    }
    const body = bytes.subarray(at + 8, end);
    if (kind === "IHDR") found.header = viewOf(body);
    else if (!found.header) throw new PictureError("damaged PNG: no header");
    else if (kind === "PLTE") found.palette = body;
    else if (kind === "IDAT") found.data.push(body);
    else if (kind === "eXIf") found.orientation = orientationIn(body);
    else if (kind === "IEND") return found;
    at = end + 4;
  }
}

async function inflate(parts) {
  try {
    const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch {
    throw new PictureError("damaged PNG: it does not decode");
  }
}

// Undo the filters of rows that each begin with the filter's number; `step` bytes make a pixel.
function unfilter(rows, length, count, step) {
  for (let y = 0; y < count; y++) {
    const from = y * (length + 1) + 1;
    const filter = rows[from - 1];
    if (filter > 4) throw new PictureError("damaged PNG: an unknown filter");
    if (!filter) continue;
    for (let i = 0; i < length; i++) {
      const left = i < step ? 0 : rows[from + i - step];
      const above = y ? rows[from + i - length - 1] : 0;
      const corner = y && i >= step ? rows[from + i - length - 1 - step] : 0;
      const guesses = [0, left, above, (left + above) >> 1];
      rows[from + i] += filter === 4 ? paeth(left, above, corner) : guesses[filter];
    }
  }
}

function paeth(left, above, corner) {
  const [a, b, c] = [above - corner, left - corner, left + above - 2 * corner].map(Math.abs);
  if (a <= b && a <= c) return left;
  return b <= c ? above : corner;
}

// One row to RGB: grey repeated, transparency dropped, of 16 bits the upper 8.
function paint(row, count, depth, colour, palette, target, to, step) {
  const channels = CHANNELS[colour];
  const width = depth === 16 ? 2 : 1; // bytes
  const scale = colour === 3 || depth >= 8 ? 1 : 255 / (2 ** depth - 1);
  for (let x = 0; x < count; x++, to += step) {
    if (channels >= 3) {
      for (let c = 0; c < 3; c++) target[to + c] = row[(x * channels + c) * width];
      continue;
    }
    const bit = x * depth;
    const value = depth >= 8
      ? row[x * channels * width]
      : (row[bit >> 3] >> (8 - depth - (bit & 7))) & (2 ** depth - 1);
    for (let c = 0; c < 3; c++) {
      target[to + c] = colour === 3 ? palette?.[3 * value + c] ?? 0 : value * scale;
    }
  }
}

const CRC = new Uint32Array(256).map((_, byte) => {
  for (let i = 0; i < 8; i++) byte = byte & 1 ? 0xedb88320 ^ (byte >>> 1) : byte >>> 1;
  return byte;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) crc = CRC[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

// ------------------------------------------------------------------------------------ bytes

const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const text = (bytes, at, count) => String.fromCharCode(...bytes.subarray(at, at + count));

// "?" stands for any byte
function startsWith(bytes, start) {
  for (let i = 0; i < start.length; i++) {
    if (start[i] !== "?" && bytes[i] !== start.charCodeAt(i)) return false;
  }
  return true;
}

const refuse = (name) => () => {
  throw new PictureError(`${name}, which is not supported; convert it to JPEG or PNG`);
};
const KINDS = [
  { start: "\xff\xd8\xff", read: readJpeg },
  { start: "\x89PNG\r\n\x1a\n", read: readPng },
  { start: "RIFF????WEBP", read: readWebp },
  { start: "BM", read: (bytes) => decoded([bytes], "image/bmp", 1) },
  { start: "GIF8", read: refuse("a GIF") },
  { start: "????ftypavi", read: refuse("an AVIF") },
  { start: "????ftyp", read: refuse("an HEIC or a film") },
  { start: "II*\0", read: refuse("a TIFF") },
  { start: "MM\0*", read: refuse("a TIFF") },
];
