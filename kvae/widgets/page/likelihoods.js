// p(x|z) of a decoder's outputs, as kvae/likelihoods has it: the mean, and log p(x|z) in nats. What a model makes of z
// and of x: `decoded` and `scored`.
"use strict";

const sum = (count, term) => {
  let total = 0;
  for (let i = 0; i < count; i++) total += term(i);
  return total;
};

const likelihoods = {
  none: { mean: (p, [x]) => x.values },

  bernoulli: {
    mean: (p, [logits]) => logits.values.map(sigmoid),
    logProb: (p, [{ values }], x) => sum(x.length, (i) => x[i] * values[i] - softplus(values[i])),
  },

  continuous_bernoulli: {
    mean: (p, [logits]) =>
      logits.values.map((l) => (Math.abs(l) < 0.02 ? 0.5 + l / 12 : -1 / Math.expm1(-l) - 1 / l)),
    logProb: (p, [{ values }], x) => sum(x.length, (i) => x[i] * values[i] - logNormalizer(values[i])),
  },

  gaussian: {
    mean: (p, [mean]) => mean.values,
    logProb(p, [mean, logVar], x) {
      const floored = (l) => Math.min(Math.log(p.floor) + softplus(l - Math.log(p.floor)), 40);
      const fixed = p.log_var?.values;
      return sum(x.length, (i) => {
        const l = fixed ? fixed[fixed.length === 1 ? 0 : i] : floored(logVar.values[i]);
        return -0.5 * ((x[i] - mean.values[i]) ** 2 * Math.exp(-l) + l + Math.log(2 * Math.PI));
      });
    },
  },

  counts: { mean: (p, [raw]) => raw.values.map(softplus) },

  levels: {
    mean({ levels }, [{ values }]) {
      const mean = new Float32Array(values.length / levels);
      return mean.map((_, i) => {
        const probabilities = softmax(values.subarray(i * levels, (i + 1) * levels));
        return probabilities.reduce((total, probability, k) => total + probability * k, 0) / (levels - 1);
      });
    },
    logProb: ({ levels }, [{ values }], x) =>
      sum(x.length, (i) => {
        const logits = values.subarray(i * levels, (i + 1) * levels);
        return logits[Math.round(x[i] * (levels - 1))] - logSumExp(logits);
      }),
  },

  logistics: {
    mean({ levels, components }, [{ shape, values }]) {
      return eachChannel(shape, values, components, (weights, mean, logScale) => {
        let total = 0;
        for (let k = 0; k < components; k++) {
          const steepness = 1 / scaleInLevels(logScale(k), levels);
          const start = mean(k) * (levels - 1) + 0.5;
          for (let j = 1; j < levels; j++) total += (weights[k] * sigmoid((start - j) * steepness)) / (levels - 1);
        }
        return total;
      });
    },
    logProb({ levels, components }, [{ shape, values }], x) {
      const channels = channelsOf(shape, components);
      const terms = Array.from({ length: components }, () => new Float64Array(x.length));
      let at = 0;
      eachChannel(shape, values, components, (weights, mean, logScale) => {
        const level = Math.round(x[at] * (levels - 1));
        for (let k = 0; k < components; k++) {
          const steepness = 1 / scaleInLevels(logScale(k), levels), center = mean(k) * (levels - 1);
          const below = -softplus(-(level + 0.5 - center) * steepness);
          const above = -softplus(-(center - level + 0.5) * steepness);
          const ends = level === 0 || level === levels - 1;
          terms[k][at] = level === 0 ? below : level === levels - 1 ? above : below + above;
          if (!ends) terms[k][at] += Math.log(-Math.expm1(-steepness));
        }
        at++;
      });
      return sum(x.length / channels, (pixel) => {
        const start = (pixel * values.length * channels) / x.length;
        const logits = values.subarray(start, start + components);
        const joint = Array.from(logits, (logit, k) => logit + sum(channels, (c) => terms[k][pixel * channels + c]));
        return logSumExp(joint) - logSumExp(logits);
      });
    },
  },
};

// log((exp(l) - 1) / l)
function logNormalizer(l) {
  if (Math.abs(l) < 0.02) return l / 2 + l ** 2 / 24 - l ** 4 / 2880;
  return Math.max(l, 0) + Math.log(-Math.expm1(-Math.abs(l)) / Math.abs(l));
}

function logSumExp(numbers) {
  const largest = Math.max(...numbers);
  return largest + Math.log(numbers.reduce((total, x) => total + Math.exp(x - largest), 0));
}

function softmax(numbers) {
  const total = logSumExp(numbers);
  return Float64Array.from(numbers, (x) => Math.exp(x - total));
}

const scaleInLevels = (logScale, levels) => Math.exp(Math.min(Math.max(logScale, -8), 8)) * (levels - 1);
const channelsOf = (shape, components) => (shape[shape.length - 1] / components - 1) / 2;

// f(weights, mean(k), log scale(k)) for each channel of each pixel of a mixture of logistics.
function eachChannel(shape, values, components, f) {
  const size = shape[shape.length - 1], channels = channelsOf(shape, components);
  const result = new Float32Array((values.length / size) * channels);
  return result.map((_, i) => {
    const start = Math.floor(i / channels) * size, channel = i % channels;
    const means = start + components * (1 + channel), scales = means + components * channels;
    const weights = softmax(values.subarray(start, start + components));
    return f(weights, (k) => 0.5 + values[means + k], (k) => values[scales + k] - 2);
  });
}

// The mean of p(x|z). The decoder is the last of a model's networks.
function decoded(model, z) {
  return likelihoods[model.likelihood.kind].mean(model.likelihood, run(model.networks.at(-1), z));
}

// q(z|x) of an image, z = mean + sigma eps, the mean of p(x|z), and both terms of the bound in nats.
function scored(model, x, eps) {
  const [mean, outputs] = run(model.networks[0], x).map((tensor) => tensor.values);
  const logVar = outputs.map((value) => Math.min(Math.max(value, -40), 40));
  const sigma = logVar.map((value) => Math.exp(value / 2));
  const z = mean.map((mu, i) => mu + sigma[i] * eps[i]);
  const kl = sum(z.length, (i) => 0.5 * (mean[i] ** 2 + Math.expm1(logVar[i]) - logVar[i]));
  const decoderOutputs = run(model.networks.at(-1), z);
  const { mean: imageOf, logProb } = likelihoods[model.likelihood.kind];
  const loss = -logProb(model.likelihood, decoderOutputs, x);
  return { mean, sigma, z, kl, loss, image: imageOf(model.likelihood, decoderOutputs) };
}
