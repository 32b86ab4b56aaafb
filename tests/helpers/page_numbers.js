// Computes what pages compute: node page_numbers.js SCRIPT ... < jobs > results, both JSON. A job has a page's "model"
// and "weights", and one of "inputs" of the first network, "codes" to decode, or "pairs" of an image and noise to score.
"use strict";
const { readFileSync } = require("node:fs");
const vm = require("node:vm");

process.argv.slice(2).forEach((path) => vm.runInThisContext(readFileSync(path, "utf8")));

async function numbers({ model, weights, inputs, codes, pairs }) {
  await withWeights(model, weights);
  if (inputs) return inputs.map((example) => run(model.networks[0], ...example).map(({ values }) => [...values]));
  if (codes) return codes.map((z) => [...decoded(model, z)]);
  return pairs.map(([x, eps]) => {
    const { kl, loss, z, image } = scored(model, Float32Array.from(x), eps);
    return { kl, loss, z: [...z], image: [...image] };
  });
}

Promise.all(JSON.parse(readFileSync(0, "utf8")).map(numbers)).then((results) => console.log(JSON.stringify(results)));
