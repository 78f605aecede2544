// The arithmetic of OpenCV's resize for 8-bit pictures, so that a network sees here what it sees in
// Python.  Source: OpenCV 4.9, modules/imgproc/src/resize.cpp.
//
// A view is { pixels, width, height, start, right, down }: the value c of the pixel (x, y) is
// pixels[start + x * right + y * down + c].  Results are Uint8Array, rows of RGB.

const { round, fround, floor, ceil, min, max, abs } = Math;
const ONE = 2048; // weights have 11 bits

// To the nearest whole number, of two equally near ones the even one.
export function nearest(value) {
  const low = floor(value);
  const rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

const toByte = (value) => min(255, max(0, nearest(value)));

// Bilinear: INTER_LINEAR.  `part` is the rectangle of the resized picture that is returned.
export function linear(view, width, height, part = { left: 0, top: 0, width, height }) {
  if (width === view.width && height === view.height) return cut(view, part);
  if (view.width === 2 * width && view.height === 2 * height) return halved(view, part);
  const columns = linearTable(view.width, width, part.left, part.width, true);
  const rows = linearTable(view.height, height, part.top, part.height, false);
  const { pixels, start, right, down } = view;
  const length = part.width * 3;
  const result = new Uint8Array(length * part.height);
  const sums = new Map(); // rows of the picture that are shrunk sideways already
  const shrink = (y) => {
    let sum = sums.get(y);
    if (sum) return sum;
    sum = new Int32Array(length);
    for (let x = 0; x < part.width; x++) {
      const a = start + y * down + columns.first[x] * right;
      const b = start + y * down + columns.second[x] * right;
      const [one, other] = [columns.weights[2 * x], columns.weights[2 * x + 1]];
      for (let c = 0; c < 3; c++) sum[3 * x + c] = pixels[a + c] * one + pixels[b + c] * other;
    }
    sums.set(y, sum);
    return sum;
  };
  for (let y = 0; y < part.height; y++) {
    const above = shrink(rows.first[y]);
    const below = shrink(rows.second[y]);
    const [one, other] = [rows.weights[2 * y], rows.weights[2 * y + 1]];
    for (let i = 0; i < length; i++) {
      const sum = ((one * (above[i] >> 4)) >> 16) + ((other * (below[i] >> 4)) >> 16);
      result[y * length + i] = (sum + 2) >> 2;
    }
    for (const key of sums.keys()) if (key < rows.first[y]) sums.delete(key);
  }
  return result;
}

// Both neighbours of each place and their weights.  Beyond the border OpenCV takes the outermost
// pixel: sideways with weight one, up and down twice.
function linearTable(from, to, skipped, count, sideways) {
  const scale = 1 / (to / from);
  const first = new Int32Array(count);
  const second = new Int32Array(count);
  const weights = new Int32Array(2 * count);
  for (let i = 0; i < count; i++) {
    const place = fround((i + skipped + 0.5) * scale - 0.5);
    let whole = floor(place);
    let part = fround(place - whole);
    if (sideways && whole < 0) [whole, part] = [0, 0];
    if (sideways && whole >= from - 1) [whole, part] = [from - 1, 0];
    first[i] = min(max(whole, 0), from - 1);
    second[i] = min(max(whole + 1, 0), from - 1);
    weights[2 * i] = nearest(fround(1 - part) * ONE);
    weights[2 * i + 1] = nearest(part * ONE);
  }
  return { first, second, weights };
}

function cut(view, part) {
  const { pixels, start, right, down } = view;
  const result = new Uint8Array(part.width * part.height * 3);
  let to = 0;
  for (let y = 0; y < part.height; y++) {
    for (let x = 0; x < part.width; x++) {
      const from = start + (y + part.top) * down + (x + part.left) * right;
      for (let c = 0; c < 3; c++) result[to++] = pixels[from + c];
    }
  }
  return result;
}

// The mean of 2 x 2 pixels, which OpenCV takes for INTER_LINEAR, too, at exactly half the size.
function halved(view, part) {
  const { pixels, start, right, down } = view;
  const result = new Uint8Array(part.width * part.height * 3);
  let to = 0;
  for (let y = 0; y < part.height; y++) {
    for (let x = 0; x < part.width; x++) {
      const at = start + 2 * (y + part.top) * down + 2 * (x + part.left) * right;
      for (let c = at; c < at + 3; c++) {
        const sum = pixels[c] + pixels[c + right] + pixels[c + down] + pixels[c + right + down];
        result[to++] = (sum + 2) >> 2;
      }
    }
  }
  return result;
}

// The mean of the area that each pixel covers: INTER_AREA, to shrink.
export function area(view, width, height) {
  const scales = [1 / (width / view.width), 1 / (height / view.height)];
  const whole = scales.map(nearest);
  if (scales.every((scale, i) => abs(scale - whole[i]) < Number.EPSILON)) {
    if (whole[0] === 2 && whole[1] === 2) return halved(view, { left: 0, top: 0, width, height });
    return wholeAreas(view, width, height, ...whole);
  }
  const columns = areaTable(view.width, width, scales[0]);
  const rows = areaTable(view.height, height, scales[1]);
  const { pixels, start, right, down } = view;
  const length = width * 3;
  const result = new Uint8Array(length * height);
  const row = new Float32Array(length); // float32 after every step, as in OpenCV
  const sum = new Float32Array(length);
  for (let j = 0; j < rows.count; j++) {
    row.fill(0);
    const line = start + rows.from[j] * down;
    for (let k = 0; k < columns.count; k++) {
      const from = line + columns.from[k] * right;
      const to = 3 * columns.to[k];
      const share = columns.shares[k];
      row[to] += fround(pixels[from] * share);
      row[to + 1] += fround(pixels[from + 1] * share);
      row[to + 2] += fround(pixels[from + 2] * share);
    }
    const share = rows.shares[j];
    for (let i = 0; i < length; i++) sum[i] += fround(share * row[i]);
    if (j + 1 === rows.count || rows.to[j + 1] !== rows.to[j]) {
      for (let i = 0; i < length; i++) result[rows.to[j] * length + i] = toByte(sum[i]);
      sum.fill(0);
    }
  }
  return result;
}

// Which pixel contributes to which, and its share of the area.
function areaTable(from, to, scale) {
  const [source, target, shares] = [[], [], []];
  const add = (i, pixel, share) => {
    source.push(pixel);
    target.push(i);
    shares.push(share);
  };
  for (let i = 0; i < to; i++) {
    const begin = i * scale;
    const end = begin + scale;
    const cell = min(scale, from - begin);
    const last = min(floor(end), from - 1);
    const first = min(ceil(begin), last);
    if (first - begin > 1e-3) add(i, first - 1, (first - begin) / cell);
    for (let pixel = first; pixel < last; pixel++) add(i, pixel, 1 / cell);
    if (end - last > 1e-3) add(i, last, min(end - last, 1, cell) / cell);
  }
  return {
    count: shares.length,
    from: Int32Array.from(source),
    to: Int32Array.from(target),
    shares: Float32Array.from(shares),
  };
}

function wholeAreas(view, width, height, across, deep) {
  const { pixels, start, right, down } = view;
  const share = fround(1 / (across * deep));
  const result = new Uint8Array(width * height * 3);
  let to = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let v = 0; v < deep; v++) {
          const line = start + (y * deep + v) * down + x * across * right + c;
          for (let u = 0; u < across; u++) sum += pixels[line + u * right];
        }
        result[to++] = toByte(fround(sum * share));
      }
    }
  }
  return result;
}

// INTER_CUBIC, to enlarge, computed exactly.  OpenCV's wheels for Intel processors take Intel's
// library instead, which rounds a few values in a picture the other way.
export function cubic(view, width, height) {
  const columns = cubicTable(view.width, width);
  const rows = cubicTable(view.height, height);
  const { pixels, start, right, down } = view;
  const length = width * 3;
  const wide = new Float64Array(length * view.height);
  for (let y = 0; y < view.height; y++) {
    for (let x = 0; x < width; x++) {
      for (let k = 0; k < 4; k++) {
        const from = start + y * down + columns.from[4 * x + k] * right;
        for (let c = 0; c < 3; c++) {
          wide[y * length + 3 * x + c] += pixels[from + c] * columns.weights[4 * x + k];
        }
      }
    }
  }
  const result = new Uint8Array(length * height);
  for (let y = 0; y < height; y++) {
    const [a, b, c, d] = [0, 1, 2, 3].map((k) => rows.from[4 * y + k] * length);
    const [p, q, r, s] = [0, 1, 2, 3].map((k) => rows.weights[4 * y + k]);
    for (let i = 0; i < length; i++) {
      result[y * length + i] =
        toByte(p * wide[a + i] + q * wide[b + i] + r * wide[c + i] + s * wide[d + i]);
    }
  }
  return result;
}

function cubicTable(from, to) {
  const scale = 1 / (to / from);
  const [source, weights] = [new Int32Array(4 * to), new Float64Array(4 * to)];
  for (let i = 0; i < to; i++) {
    const place = (i + 0.5) * scale - 0.5;
    const whole = floor(place);
    const x = place - whole;
    const near = (d) => 1.25 * d ** 3 - 2.25 * d ** 2 + 1; // the kernel with a = -0.75
    const far = (d) => -0.75 * (d ** 3 - 5 * d ** 2 + 8 * d - 4);
    [far(x + 1), near(x), near(1 - x), far(2 - x)].forEach((weight, k) => {
      weights[4 * i + k] = weight;
      source[4 * i + k] = min(max(whole - 1 + k, 0), from - 1);
    });
  }
  return { from: source, weights };
}

// What a classifier sees: the shorter side resized, the centre cropped.
export function centreCrop(view, size, ratio) {
  const shorter = ceil(round((size / ratio) * 1e6) / 1e6);
  const { width, height } = view;
  const wide = height > width ? shorter : floor((shorter * width) / height);
  const tall = height > width ? floor((shorter * height) / width) : shorter;
  const left = floor((wide - size) / 2);
  const top = floor((tall - size) / 2);
  if (max(wide, tall) > 32767) {
    throw new Error(`the picture is too narrow: ${width} x ${height} pixels`);
  }
  return linear(view, wide, tall, { left, top, width: size, height: size });
}

// What a detector sees: the whole picture, its aspect ratio not kept.
export function stretched(view, size) {
  const { width, height } = view;
  if (size > height && size > width) return cubic(view, size, size);
  if (size < height && size < width) return area(view, size, size);
  return linear(view, size, size);
}
