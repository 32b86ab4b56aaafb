// A picture that says where it was clicked, as shares of its width and height, and has a ring at a point.
function render({ model, el }) {
  const frame = document.createElement("div");
  frame.style.cssText = "position: relative; display: inline-block; cursor: crosshair; line-height: 0";
  const picture = document.createElement("img");
  picture.alt = "the plane of two latents: click to decode a point";
  picture.title = "Click to decode a point";
  picture.className = "kvae-plane";
  picture.draggable = false;
  picture.style.cssText = "margin: 0; max-width: none";
  const ring = document.createElement("div");
  ring.style.cssText =
    "position: absolute; width: 12px; height: 12px; margin: -8px 0 0 -8px; border: 2px solid black; " +
    "border-radius: 50%; box-shadow: 0 0 0 2px white; box-sizing: content-box; pointer-events: none";
  const draw = () => {
    picture.src = "data:image/png;base64," + model.get("picture");
  };
  const move = () => {
    const [x, y] = model.get("point");
    ring.style.left = `${100 * x}%`;
    ring.style.top = `${100 * y}%`;
  };
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    model.set("clicked", [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
    model.save_changes();
  });
  model.on("change:picture", draw);
  model.on("change:point", move);
  draw();
  move();
  frame.append(picture, ring);
  el.append(frame);
}
export default { render };
