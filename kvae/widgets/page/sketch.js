// The page of kvae.widgets.sketch: draw x, see q(z|x), a draw of z, p(x|z), and the two terms of the bound.
"use strict";

begin((model) => {
  const [height, width, channels] = model.image;
  const examples = model.examples.map((packed) => Float32Array.from(atob(packed), (c) => c.charCodeAt(0) / 255));
  const x = Float32Array.from(examples[0]);
  const background = commonest(examples[0]);
  let eps = Array.from({ length: model.latent_dim }, normal);
  const canvas = element("x");
  const cursor = [height >> 1, width >> 1];
  let cursorShown = false;

  // The corner's color that most corners have
  function commonest(image) {
    const corners = [0, width - 1, (height - 1) * width, height * width - 1];
    const colors = corners.map((i) => Array.from(image.subarray(i * channels, (i + 1) * channels)));
    const count = (one) => colors.filter((other) => String(other) === String(one)).length;
    return colors.reduce((best, each) => (count(each) > count(best) ? each : best));
  }

  const redraw = eachFrame(() => {
    const isMean = element("mean").getAttribute("aria-pressed") === "true";
    const result = scored(model, x, isMean ? eps.map(() => 0) : eps);
    paint(canvas, model.image, x);
    if (cursorShown) drawCursor();
    paint(element("reconstruction"), model.image, result.image);
    rows.forEach((row, i) => {
      const numbers = [result.mean[i], result.sigma[i], result.z[i]];
      numbers.forEach((value, k) => (row.cells[k + 1].textContent = text(value)));
      drawBar(row.querySelector("canvas"), ...numbers);
    });
    element("loss").textContent = text(result.loss);
    element("kl").textContent = text(result.kl);
    element("elbo").textContent = text(-result.loss - result.kl);
    element("grey").hidden = model.likelihood.kind !== "bernoulli" || x.every((value) => value === 0 || value === 1);
    say(
      `Reconstruction loss ${text(result.loss, 1)}, KL ${text(result.kl, 1)}, ` +
        `bound ${text(-result.loss - result.kl, 1)} nats.`,
    );
  });

  // The table of latents

  const rows = Array.from({ length: model.latent_dim }, (_, i) => {
    const row = element("rows").insertRow();
    row.innerHTML = '<th scope="row"></th><td class="number"></td><td class="number"></td><td class="number"></td>';
    row.cells[0].textContent = `z${i}`;
    row.insertAdjacentHTML("beforeend", '<td class="bar" aria-hidden="true"><canvas></canvas></td>');
    return row;
  });

  function drawBar(bar, mean, sigma, z) {
    const scale = devicePixelRatio || 1, wide = bar.clientWidth, tall = bar.clientHeight;
    [bar.width, bar.height] = [wide * scale, tall * scale];
    const pen = bar.getContext("2d");
    pen.scale(scale, scale);
    const at = (value) => ((clipped(value, -4, 4) + 4) / 8) * (wide - 10) + 5;
    const span = (start, end, thickness, name) => {
      pen.fillStyle = color(name);
      pen.fillRect(at(start), (tall - thickness) / 2, Math.max(at(end) - at(start), 2), thickness);
    };
    span(-2, 2, tall - 2, "ground");
    span(0, 0, tall - 2, "line");
    span(mean - 2 * sigma, mean + 2 * sigma, 6, "dot");
    pen.fillStyle = color("warm");
    pen.beginPath();
    pen.arc(at(z), tall / 2, 4, 0, 7);
    pen.fill();
  }

  // Drawing

  const brushColor = background.map((value) => (value < 0.5 ? 1 : 0));
  if (channels === 3) {
    element("color").hidden = false;
    const hex = (value) => Math.round(255 * value).toString(16).padStart(2, "0");
    element("color").value = "#" + brushColor.map(hex).join("");
    element("color").addEventListener("input", (event) => {
      [1, 3, 5].forEach((i, c) => (brushColor[c] = parseInt(event.target.value.slice(i, i + 2), 16) / 255));
    });
  }
  const size = element("size"), erase = element("erase");
  const side = Math.min(height, width);
  Object.assign(size, { min: 0.5, max: Math.max(side / 8, 1), step: 0.1, value: Math.max(side / 24, 0.6) });

  // Paints a dot around the point (row, column) in pixels: full within the brush, soft for a pixel around it.
  function dot(row, column) {
    const radius = Number(size.value);
    const target = erase.getAttribute("aria-pressed") === "true" ? background : brushColor;
    for (let r = Math.max(Math.floor(row - radius - 1), 0); r < Math.min(row + radius + 1, height); r++)
      for (let c = Math.max(Math.floor(column - radius - 1), 0); c < Math.min(column + radius + 1, width); c++) {
        const distance = Math.hypot(r + 0.5 - row, c + 0.5 - column);
        const share = model.binary ? Number(distance <= radius + 0.2) : clipped(radius + 0.5 - distance, 0, 1);
        for (let k = 0; k < channels; k++) {
          const i = (r * width + c) * channels + k;
          const mixed = x[i] + share * (target[k] - x[i]);
          const further = Math.abs(mixed - target[k]) < Math.abs(x[i] - target[k]);
          if (further) x[i] = mixed;
        }
      }
  }

  let last;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = undefined;
    stroke(event);
  });
  canvas.addEventListener("pointermove", (event) => event.buttons && stroke(event));
  function stroke(event) {
    const { width: wide, height: tall } = canvas.getBoundingClientRect();
    for (const each of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) {
      const point = [((each.offsetY ?? 0) / tall) * height, ((each.offsetX ?? 0) / wide) * width];
      const from = last ?? point;
      const steps = Math.ceil(2 * Math.hypot(point[0] - from[0], point[1] - from[1])) || 1;
      for (let i = 1; i <= steps; i++) dot(...from.map((start, axis) => start + ((point[axis] - start) * i) / steps));
      last = point;
    }
    redraw();
  }

  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], " ": [0, 0] };
    if (!(event.key in moves)) return;
    event.preventDefault();
    cursorShown = true;
    const [down, right] = moves[event.key];
    cursor[0] = clipped(cursor[0] + down, 0, height - 1);
    cursor[1] = clipped(cursor[1] + right, 0, width - 1);
    if (event.key === " " || event.shiftKey) dot(cursor[0] + 0.5, cursor[1] + 0.5);
    label();
    redraw();
  });
  canvas.addEventListener("blur", () => {
    cursorShown = false;
    redraw();
  });

  function label() {
    const where = `row ${cursor[0] + 1} of ${height}, column ${cursor[1] + 1} of ${width}`;
    canvas.setAttribute("aria-label", `The image x, to draw on. The marked pixel is at ${where}.`);
  }

  // The pixel of the keyboard
  function drawCursor() {
    const i = (cursor[0] * width + cursor[1]) * channels;
    const pen = canvas.getContext("2d");
    pen.fillStyle = x[i] < 0.5 ? "#ffa36c" : "#b3440e";
    pen.fillRect(cursor[1], cursor[0], 1, 1);
  }

  // Buttons

  const toggle = (id) =>
    element(id).addEventListener("click", ({ currentTarget }) => {
      currentTarget.setAttribute("aria-pressed", String(currentTarget.getAttribute("aria-pressed") !== "true"));
      redraw();
    });
  toggle("erase");
  toggle("mean");
  element("clear").addEventListener("click", () => {
    x.forEach((_, i) => (x[i] = background[i % channels]));
    redraw();
  });
  element("noise").addEventListener("click", () => {
    eps = eps.map(normal);
    element("mean").setAttribute("aria-pressed", "false");
    redraw();
  });
  examples.forEach((example, i) => {
    const button = document.createElement("button");
    button.setAttribute("aria-label", `Image ${i + 1}`);
    const picture = button.appendChild(Object.assign(document.createElement("canvas"), { className: "image" }));
    paint(picture, model.image, example);
    button.addEventListener("click", () => {
      x.set(example);
      redraw();
    });
    element("examples").append(button);
  });

  label();
  new ResizeObserver(redraw).observe(element("rows"));
  onThemeChange(redraw);
  redraw();
});
