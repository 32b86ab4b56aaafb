// The page of kvae.widgets.explore: sliders, the plane of two latents, and the decoded image.
"use strict";

begin((model) => {
  const [low, high] = model.ranges;
  const names = model.names.map((name) => name.split(/\s{2,}/)[0]);
  const z = [...model.z];
  let dims = [...model.dims];
  const sliders = new Map();
  const plane = element("plane");
  const hasPlane = dims.length === 2;

  const redraw = eachFrame(() => {
    const values = decoded(model, z);
    paint(element("image"), model.image, values);
    const brightness = values.reduce((total, value) => total + value, 0) / values.length;
    const shown = model.latents.map((latent) => `${names[latent]} ${text(z[latent])}`).join(", ");
    element("image").setAttribute("aria-label", `The image of ${shown}. Its mean brightness is ${text(brightness)}.`);
    for (const [latent, { input, output }] of sliders) {
      if (Math.abs(input.value - z[latent]) > input.step / 2) input.value = z[latent];
      output.textContent = text(z[latent]);
      input.setAttribute("aria-valuetext", text(z[latent]));
    }
    if (hasPlane) drawPlane();
  });

  function set(changes, words) {
    for (const [latent, value] of changes) z[latent] = value;
    redraw();
    if (words) say(words);
  }

  // Sliders

  for (const latent of model.latents) {
    const row = document.createElement("div");
    row.className = "slider";
    const [name, ...details] = model.names[latent].split(/\s{2,}/);
    row.innerHTML = `<label></label><input type="range"><output></output>`;
    const [label, input, output] = row.children;
    label.append(name, Object.assign(document.createElement("small"), { textContent: details.join(" ") }));
    const step = (high[latent] - low[latent]) / 200;
    Object.assign(input, { id: `z${latent}`, min: low[latent], max: high[latent], step, value: z[latent] });
    label.htmlFor = output.htmlFor = input.id;
    input.addEventListener("input", () => set([[latent, Number(input.value)]]));
    sliders.set(latent, { input, output });
    element("sliders").append(row);
  }
  const others = names.length - model.latents.length;
  if (model.codes) element("order").textContent = "the most used first";
  if (others) element("order").textContent += `; the other ${others} stay as they are`;

  // Buttons

  let next = 0;
  element("code").hidden = !model.codes;
  element("code").addEventListener("click", () => {
    next = (next + 1) % model.codes.length;
    set([...model.codes[next].entries()], `The code of image ${next + 1} of ${model.codes.length}.`);
  });
  element("middle").addEventListener("click", () =>
    set(low.map((value, latent) => [latent, (value + high[latent]) / 2]), "The middle of all sliders."),
  );
  element("random").addEventListener("click", () =>
    set(
      low.map((value, latent) => [latent, (value + high[latent]) / 2 + (normal() * (high[latent] - value)) / 6]),
      "A random code.",
    ),
  );

  // The plane

  if (!hasPlane) {
    element("plane-section").remove();
    redraw();
    return;
  }
  element("dots").textContent = model.codes ? `The dots are the codes of ${model.codes.length} images. ` : "";
  if (model.ring) element("dots").textContent += "The dashed ring holds 95 % of the prior.";
  const selects = ["across", "up"].map(element);
  selects.forEach((select, axis) => {
    names.forEach((name, latent) => select.add(new Option(name, latent)));
    select.value = dims[axis];
    select.addEventListener("change", () => {
      const chosen = Number(select.value);
      if (chosen === dims[1 - axis]) dims.reverse();
      else dims[axis] = chosen;
      selects.forEach((each, i) => (each.value = dims[i]));
      redraw();
    });
  });

  const margin = { left: 46, right: 10, top: 10, bottom: 40 };
  const box = () => {
    const width = plane.clientWidth, height = plane.clientHeight;
    return { ...margin, width: width - margin.left - margin.right, height: height - margin.top - margin.bottom };
  };
  function place(code) {
    const { left, top, width, height } = box();
    const [x, y] = dims.map((latent) => (code[latent] - low[latent]) / (high[latent] - low[latent]));
    return [left + x * width, top + (1 - y) * height];
  }

  function drawPlane() {
    const scale = devicePixelRatio || 1;
    const { left, top, width, height } = box();
    [plane.width, plane.height] = [plane.clientWidth * scale, plane.clientHeight * scale];
    const pen = plane.getContext("2d");
    pen.scale(scale, scale);
    pen.fillStyle = color("ground");
    pen.fillRect(left, top, width, height);
    [pen.strokeStyle, pen.fillStyle, pen.font] = [color("line"), color("faint"), "13px system-ui, sans-serif"];
    dims.forEach((latent, axis) => {
      for (const tick of ticks(low[latent], high[latent])) {
        const point = [...z];
        point[latent] = tick;
        const [x, y] = place(point);
        pen.beginPath();
        if (axis === 0) {
          pen.moveTo(x, top), pen.lineTo(x, top + height);
          pen.textAlign = "center";
          pen.fillText(text(tick, 1), x, top + height + 16);
        } else {
          pen.moveTo(left, y), pen.lineTo(left + width, y);
          pen.textAlign = "right";
          pen.fillText(text(tick, 1), left - 5, y + 4);
        }
        pen.stroke();
      }
    });
    pen.fillStyle = color("ink");
    pen.textAlign = "center";
    pen.fillText(names[dims[0]], left + width / 2, top + height + 34);
    pen.save();
    pen.translate(13, top + height / 2);
    pen.rotate(-Math.PI / 2);
    pen.fillText(names[dims[1]], 0, 0);
    pen.restore();
    pen.save();
    pen.beginPath();
    pen.rect(left, top, width, height);
    pen.clip();
    [pen.fillStyle, pen.globalAlpha] = [color("dot"), 0.6];
    for (const code of model.codes ?? []) {
      pen.beginPath();
      pen.arc(...place(code), 2.6, 0, 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
    if (model.ring) drawRing(pen);
    pen.restore();
    const at = place(z).map((value, axis) => clipped(value, 0, axis ? plane.clientHeight : plane.clientWidth));
    for (const [radius, thickness, name] of [[8, 6, "ground"], [8, 3, "ink"]]) {
      pen.beginPath();
      [pen.strokeStyle, pen.lineWidth] = [color(name), thickness];
      pen.arc(...at, radius, 0, 7);
      pen.stroke();
    }
    const where = dims.map((latent) => `${names[latent]} ${text(z[latent])}`);
    plane.setAttribute("aria-label", `The plane of ${names[dims[0]]} and ${names[dims[1]]}, now at ${where.join(", ")}`);
  }

  // The ellipse with 95 % of the prior.
  function drawRing(pen) {
    const [center, radii] = model.ring;
    const [left, top] = place(center.map((value, latent) => value - radii[latent]));
    const [right, bottom] = place(center.map((value, latent) => value + radii[latent]));
    [pen.strokeStyle, pen.lineWidth] = [color("ink"), 1.5];
    pen.setLineDash([6, 4]);
    pen.beginPath();
    pen.ellipse((left + right) / 2, (top + bottom) / 2, (right - left) / 2, Math.abs(bottom - top) / 2, 0, 0, 7);
    pen.stroke();
    pen.setLineDash([]);
  }

  function ticks(start, end) {
    const size = 10 ** Math.floor(Math.log10((end - start) / 4));
    const step = [1, 2, 5, 10].map((factor) => factor * size).find((each) => (end - start) / each <= 7);
    const first = Math.ceil(start / step);
    return Array.from({ length: Math.floor(end / step) - first + 1 }, (_, i) => (first + i) * step);
  }

  const follow = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const { left, top, width, height } = box();
    const shares = [(event.offsetX - left) / width, 1 - (event.offsetY - top) / height];
    set(dims.map((latent, axis) => [latent, low[latent] + clipped(shares[axis], 0, 1) * (high[latent] - low[latent])]));
  };
  plane.addEventListener("pointerdown", (event) => {
    plane.setPointerCapture(event.pointerId);
    follow(event);
  });
  plane.addEventListener("pointermove", follow);
  plane.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowUp: [1, 1], ArrowDown: [1, -1] };
    const [axis, sign] = moves[event.key] ?? [];
    if (axis === undefined) return;
    event.preventDefault();
    const latent = dims[axis];
    const step = ((high[latent] - low[latent]) * (event.shiftKey ? 5 : 1)) / 60;
    const value = clipped(z[latent] + sign * step, low[latent], high[latent]);
    set([[latent, value]], `${names[latent]} ${text(value)}`);
  });
  new ResizeObserver(redraw).observe(plane);
  onThemeChange(redraw);
  redraw();
});
