// What the pages share: the model, images on a canvas, one picture a frame, and words for screen readers.
"use strict";

const element = (id) => document.getElementById(id);
const text = (value, digits = 2) => value.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "\u2212");
const clipped = (value, low, high) => Math.min(Math.max(value, low), high);
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);

// Reads the page's model, then calls start(model). A browser that can't is told so on the page.
async function begin(start) {
  try {
    const description = JSON.parse(element("model").textContent);
    start(await withWeights(description, element("weights").textContent));
  } catch (error) {
    const message = document.createElement("p");
    message.className = "error";
    message.setAttribute("role", "alert");
    message.textContent = `This page can't run here (${error.message}). It needs a browser of 2023 or later.`;
    document.querySelector("header").append(message);
    throw error;
  }
}

// Draws numbers in [0, 1] of an image (height, width, 1 or 3) on a canvas with a pixel for each.
function paint(canvas, [height, width, channels], values) {
  [canvas.width, canvas.height] = [width, height];
  const picture = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) picture.data[4 * i + c] = 255 * clipped(values[i * channels + (c % channels)], 0, 1) + 0.5;
    picture.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

// A function that calls draw() with the next frame, once however often it is called before.
function eachFrame(draw) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  };
}

// Tells screen readers, once nothing has changed for a while.
let saying;
function say(words) {
  clearTimeout(saying);
  saying = setTimeout(() => (element("said").textContent = words), 400);
}

// Independent draws of N(0, 1), the same ones after each loading of the page (mulberry32, Box and Muller).
let state = 1;
function uniform() {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}
const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());

function onThemeChange(draw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}
