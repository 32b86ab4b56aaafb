// Runs Keras networks in a browser, from the description that kvae/widgets/network.py writes.
// A tensor is {shape, values}: one example without the batch axis, in float32.
"use strict";

const elementwise = {
  linear: (x) => x,
  relu: (x) => Math.max(x, 0),
  relu6: (x) => Math.min(Math.max(x, 0), 6),
  leaky_relu: (x) => (x < 0 ? 0.2 * x : x),
  elu: (x) => (x < 0 ? Math.expm1(x) : x),
  selu: (x) => 1.0507009873554805 * (x < 0 ? 1.6732632423543772 * Math.expm1(x) : x),
  gelu: (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)),
  silu: (x) => x * sigmoid(x),
  sigmoid: (x) => sigmoid(x),
  hard_sigmoid: (x) => Math.min(Math.max(x / 6 + 0.5, 0), 1),
  tanh: Math.tanh,
  softplus: (x) => softplus(x),
  softsign: (x) => x / (1 + Math.abs(x)),
  exponential: Math.exp,
  exp: Math.exp,
  log1p: Math.log1p,
  abs: Math.abs,
  square: (x) => x * x,
};

function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

function softplus(x) {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}

// Abramowitz and Stegun 7.1.26, exact to 1.5e-7.
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - series * Math.exp(-x * x));
}

const product = (shape) => shape.reduce((a, b) => a * b, 1);

function activated(shape, numbers, name = "linear") {
  const values = new Float32Array(numbers);
  if (name === "softmax") {
    const size = shape[shape.length - 1];
    for (let start = 0; start < values.length; start += size) {
      const row = values.subarray(start, start + size);
      const largest = Math.max(...row);
      const total = row.reduce((sum, x) => sum + Math.exp(x - largest), 0);
      row.forEach((x, i) => (row[i] = Math.exp(x - largest) / total));
    }
  } else if (name === "relu") {
    for (let i = 0; i < values.length; i++) if (values[i] < 0) values[i] = 0;
  } else if (name !== "linear") {
    const f = elementwise[name];
    for (let i = 0; i < values.length; i++) values[i] = f(values[i]);
  }
  return { shape, values };
}

// The inner loop of all layers: sums[at + j] += x[n] * weights[starts[n] + j] for j < size and n < count.
function addProducts(sums, at, size, x, starts, count, weights) {
  if (size < 4) {
    for (let j = 0; j < size; j++) {
      let sum = 0;
      for (let n = 0; n < count; n++) sum += x[n] * weights[starts[n] + j];
      sums[at + j] += sum;
    }
    return;
  }
  let n = 0;
  for (; n + 4 <= count; n += 4) {
    const a = x[n], b = x[n + 1], c = x[n + 2], d = x[n + 3];
    const i = starts[n], k = starts[n + 1], l = starts[n + 2], m = starts[n + 3];
    for (let j = 0; j < size; j++)
      sums[at + j] += a * weights[i + j] + b * weights[k + j] + c * weights[l + j] + d * weights[m + j];
  }
  for (; n < count; n++) for (let j = 0; j < size; j++) sums[at + j] += x[n] * weights[starts[n] + j];
}

function startAtBias(length, bias) {
  const sums = new Float64Array(length);
  const size = bias.values.length;
  for (let i = 0; i < length; i++) sums[i] = bias.values[size === 1 ? 0 : i % size];
  return sums;
}

// For each row (or column) of a convolution's outputs, the pairs [of the kernel, of the inputs] that add to it.
function sidePairs(length, size, stride, padding) {
  const before = (outputs) => Math.floor(Math.max((outputs - 1) * stride + size - length, 0) / 2);
  const outputs = padding === "same" ? Math.ceil(length / stride) : Math.floor((length - size) / stride) + 1;
  const start = padding === "same" ? before(outputs) : 0;
  const all = Array.from({ length: size }, (_, i) => i);
  const pairs = (output) => all.map((i) => [i, output * stride + i - start]);
  return Array.from({ length: outputs }, (_, output) => pairs(output).filter(([, y]) => y >= 0 && y < length));
}

function transposedSidePairs(length, size, stride, padding) {
  const outputs = padding === "same" ? length * stride : length * stride + Math.max(size - stride, 0);
  const start = padding === "same" ? Math.floor(Math.max(size - stride, 0) / 2) : 0;
  const pairs = Array.from({ length: outputs }, () => []);
  for (let y = 0; y < length; y++)
    for (let i = 0; i < size; i++) pairs[y * stride + i - start]?.push([i, y]);
  return pairs;
}

// kernel: (tall, wide, channels, filters)
function convolved(x, kernel, bias, activation, rows, columns) {
  const [, width, channels] = x.shape;
  const [tall, wide, , filters] = kernel.shape;
  const shape = [rows.length, columns.length, filters];
  const sums = startAtBias(product(shape), bias);
  const factors = new Float64Array(tall * wide * channels), starts = new Int32Array(factors.length);
  let at = 0;
  for (const row of rows)
    for (const column of columns) {
      let count = 0;
      for (const [i, y] of row)
        for (const [j, z] of column) {
          const from = (y * width + z) * channels, start = (i * wide + j) * channels;
          for (let k = 0; k < channels; k++) {
            const value = x.values[from + k];
            if (value === 0) continue; // half of a ReLU's outputs
            factors[count] = value;
            starts[count++] = (start + k) * filters;
          }
        }
      addProducts(sums, at, filters, factors, starts, count, kernel.values);
      at += filters;
    }
  return activated(shape, sums, activation);
}

const operations = {
  dense({ kernel, bias, activation }, [x]) {
    const [size, units] = kernel.shape;
    const rows = x.values.length / size;
    const sums = startAtBias(rows * units, bias);
    for (let row = 0; row < rows; row++) {
      const used = Array.from({ length: size }, (_, i) => i).filter((i) => x.values[row * size + i] !== 0);
      const factors = Float64Array.from(used, (i) => x.values[row * size + i]);
      addProducts(sums, row * units, units, factors, Int32Array.from(used, (i) => i * units), used.length, kernel.values);
    }
    return activated([...x.shape.slice(0, -1), units], sums, activation);
  },

  convolution({ kernel, bias, strides, padding, activation }, [x]) {
    const [rows, columns] = [0, 1].map((axis) => sidePairs(x.shape[axis], kernel.shape[axis], strides[axis], padding));
    return convolved(x, kernel, bias, activation, rows, columns);
  },

  convolution_transposed(step, [x]) {
    const { kernel, bias, strides, padding, activation } = step;
    const [rows, columns] = [0, 1].map((axis) =>
      transposedSidePairs(x.shape[axis], kernel.shape[axis], strides[axis], padding),
    );
    step.swapped ??= lastAxesSwapped(kernel); // Keras has the filters ahead of the channels here
    return convolved(x, step.swapped, bias, activation, rows, columns);
  },

  reshape({ shape }, [x]) {
    const known = product(shape.filter((size) => size !== -1));
    return { shape: shape.map((size) => (size === -1 ? x.values.length / known : size)), values: x.values };
  },

  crop({ cropping: [[top, bottom], [left, right]] }, [x]) {
    const [height, width, channels] = x.shape;
    const shape = [height - top - bottom, width - left - right, channels];
    const values = new Float32Array(product(shape));
    for (let r = 0; r < shape[0]; r++) {
      const start = ((r + top) * width + left) * channels;
      values.set(x.values.subarray(start, start + shape[1] * channels), r * shape[1] * channels);
    }
    return { shape, values };
  },

  average({ keep }, [x]) {
    const channels = x.shape[2];
    const sums = new Float64Array(channels);
    x.values.forEach((value, i) => (sums[i % channels] += value));
    const pixels = x.values.length / channels;
    return activated(keep ? [1, 1, channels] : [channels], sums.map((sum) => sum / pixels));
  },

  affine({ scale, offset }, [x]) {
    const at = (numbers, i) => numbers.values[i % numbers.values.length];
    return { shape: x.shape, values: x.values.map((value, i) => at(scale, i) * value + at(offset, i)) };
  },

  concatenate(step, parts) {
    const sizes = parts.map((part) => part.shape[part.shape.length - 1]);
    const rows = parts[0].values.length / sizes[0], size = sizes.reduce((a, b) => a + b);
    const values = new Float32Array(rows * size);
    for (let row = 0, at = 0; row < rows; row++)
      parts.forEach((part, k) => {
        values.set(part.values.subarray(row * sizes[k], (row + 1) * sizes[k]), at);
        at += sizes[k];
      });
    return { shape: [...parts[0].shape.slice(0, -1), size], values };
  },

  add: (step, [x, ...others]) => ({
    shape: x.shape,
    values: x.values.map((value, i) => others.reduce((sum, other) => sum + other.values[i], value)),
  }),

  relu: ({ slope, limit }, [x]) => ({
    shape: x.shape,
    values: x.values.map((value) => (value < 0 ? slope * value : Math.min(value, limit ?? Infinity))),
  }),

  activation: ({ activation }, [x]) => activated(x.shape, x.values, activation),
};

function lastAxesSwapped({ shape: [tall, wide, a, b], values }) {
  const swapped = new Float32Array(values.length);
  for (let tap = 0; tap < tall * wide; tap++)
    for (let i = 0; i < a; i++)
      for (let j = 0; j < b; j++) swapped[(tap * b + j) * a + i] = values[(tap * a + i) * b + j];
  return { shape: [tall, wide, b, a], values: swapped };
}

// The outputs of a network for one example: arrays of numbers in, tensors out.
function run(network, ...inputs) {
  const tensors = new Map();
  network.inputs.forEach((name, i) =>
    tensors.set(name, { shape: network.shapes[i], values: new Float32Array(inputs[i]) }),
  );
  for (const step of network.steps)
    tensors.set(step.to, operations[step.op](step, step.from.map((name) => tensors.get(name))));
  return network.outputs.map((name) => tensors.get(name));
}

// Weights: numbers of two bytes, all low bytes ahead of the high ones, compressed, in base64.
async function unpacked(text) {
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = bytes.length / 2;
  return Uint16Array.from({ length: count }, (_, i) => (bytes[count + i] << 8) | bytes[i]);
}

const powers = Array.from({ length: 32 }, (_, exponent) => 2 ** ((exponent || 1) - 25));
function half(pattern) {
  const exponent = (pattern >> 10) & 31;
  const size = ((pattern & 1023) | (exponent ? 1024 : 0)) * powers[exponent];
  return pattern & 32768 ? -size : size;
}

// Puts the weights into the description of a page's model, in place of their indices.
async function withWeights(description, text) {
  const patterns = await unpacked(text);
  let start = 0;
  const next = (shape) => patterns.subarray(start, (start += product(shape)));
  // Multiples of a step, or without one float16: each number in one part, or the sum of two.
  const tensors = description.weights.map(([parts, step, ...shape]) => {
    const values = Float32Array.from(next(shape), step ? (pattern) => ((pattern << 16) >> 16) * step : half);
    if (parts === 2) next(shape).forEach((pattern, i) => (values[i] += half(pattern)));
    return { shape, values };
  });
  const parts = description.networks.flatMap((network) => network.steps);
  for (const part of [...parts, description.likelihood ?? {}])
    for (const name of ["kernel", "bias", "scale", "offset", "log_var"])
      if (Number.isInteger(part[name])) part[name] = tensors[part[name]];
  return description;
}
