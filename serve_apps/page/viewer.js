// The map: an image with the coarse map on one side of a handle and the refined one on the other; zoom and pan.

const MAX_SCALE = 32; // screen pixels per map pixel

export class Viewer {
  constructor(box) {
    this.box = box;
    this.canvas = box.querySelector("canvas");
    this.handle = box.querySelector(".swipe");
    this.layers = { image: null, coarse: null, refined: null, uncertainty: null };
    this.size = null;
    this.split = 0.5;
    this.opacity = 0.65;
    this.showUncertainty = false;
    this.heatOpacity = 0.6;
    this.view = { scale: 1, x: 0, y: 0 };
    this.pointers = new Map();
    this.listen();
    new ResizeObserver(() => { this.resize(); }).observe(box);
  }

  // Nothing is shown any more.
  clear() {
    this.begin(1, 1);
    this.size = null;
    for (const id of ["left-label", "right-label"]) this.box.querySelector(`#${id}`).hidden = true;
    this.draw();
  }

  // A new map of so many pixels; nothing of the old one stays.
  begin(width, height) {
    this.size = { width, height };
    for (const name of Object.keys(this.layers)) this.layers[name] = null;
    this.handle.hidden = true;
    this.fit();
  }

  set(name, picture) {
    this.layers[name] = picture;
    this.handle.hidden = !(this.layers.coarse && this.layers.refined);
    for (const [id, layer] of [["left-label", "coarse"], ["right-label", "refined"]]) {
      this.box.querySelector(`#${id}`).hidden = this.handle.hidden || !this.layers[layer];
    }
    this.draw();
  }

  // What the label of a side says.
  name(layer, text) {
    this.box.querySelector(layer === "coarse" ? "#left-label" : "#right-label").textContent = text;
  }

  fit() {
    if (!this.size) return;
    const { clientWidth: width, clientHeight: height } = this.box;
    const scale = Math.min(width / this.size.width, height / this.size.height) * 0.96;
    this.view = { scale, x: (width - this.size.width * scale) / 2, y: (height - this.size.height * scale) / 2 };
    this.draw();
  }

  zoom(factor, x = this.box.clientWidth / 2, y = this.box.clientHeight / 2) {
    if (!this.size) return;
    const minScale = Math.min(this.box.clientWidth / this.size.width, this.box.clientHeight / this.size.height) / 4;
    const scale = Math.min(MAX_SCALE, Math.max(minScale, this.view.scale * factor));
    const ratio = scale / this.view.scale;
    this.view = { scale, x: x - (x - this.view.x) * ratio, y: y - (y - this.view.y) * ratio };
    this.draw();
  }

  pan(x, y) {
    this.view.x += x;
    this.view.y += y;
    this.draw();
  }

  moveSplit(share) {
    this.split = Math.min(1, Math.max(0, share));
    this.handle.style.left = `${this.split * 100}%`;
    this.handle.setAttribute("aria-valuenow", Math.round(this.split * 100));
    this.draw();
  }

  resize() {
    const density = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(this.box.clientWidth * density);
    this.canvas.height = Math.round(this.box.clientHeight * density);
    this.fit();
  }

  draw() {
    const context = this.canvas.getContext("2d");
    const density = this.canvas.width / Math.max(1, this.box.clientWidth);
    context.setTransform(density, 0, 0, density, 0, 0);
    context.clearRect(0, 0, this.box.clientWidth, this.box.clientHeight);
    if (!this.size) return;
    const { width, height } = this.box.getBoundingClientRect();
    const { coarse, refined, image, uncertainty } = this.layers;
    this.paint(context, image, 1);
    const line = width * this.split;
    const both = coarse && refined;
    for (const [layer, from, to] of [[coarse, 0, both ? line : width], [refined, both ? line : 0, width]]) {
      if (!layer) continue;
      context.save();
      context.beginPath();
      context.rect(from, 0, to - from, height);
      context.clip();
      this.paint(context, layer, image ? this.opacity : 1);
      context.restore();
    }
    if (this.showUncertainty) this.paint(context, uncertainty, this.heatOpacity);
  }

  paint(context, picture, alpha) {
    if (!picture) return;
    const { scale, x, y } = this.view;
    context.globalAlpha = alpha;
    context.imageSmoothingEnabled = scale < 1;
    context.drawImage(picture, x, y, this.size.width * scale, this.size.height * scale);
    context.globalAlpha = 1;
  }

  listen() {
    const { canvas, handle } = this;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = canvas.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY * 0.0015), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event);
    });
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    canvas.addEventListener("dblclick", () => this.fit());
    canvas.addEventListener("keydown", (event) => this.key(event));
    handle.addEventListener("pointerdown", (event) => handle.setPointerCapture(event.pointerId));
    handle.addEventListener("pointermove", (event) => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      const box = this.box.getBoundingClientRect();
      this.moveSplit((event.clientX - box.left) / box.width);
    });
    handle.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: this.split - 0.02, ArrowRight: this.split + 0.02, Home: 0, End: 1 };
      if (!(event.key in moves)) return;
      event.preventDefault();
      this.moveSplit(moves[event.key]);
    });
  }

  drag(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const others = [...this.pointers.values()].filter((other) => other.pointerId !== event.pointerId);
    if (others.length === 0) {
      this.pan(event.clientX - before.clientX, event.clientY - before.clientY);
    } else { // two fingers
      const still = others[0];
      const reach = (one) => Math.hypot(one.clientX - still.clientX, one.clientY - still.clientY);
      const box = this.canvas.getBoundingClientRect();
      this.zoom(reach(event) / Math.max(1, reach(before)), still.clientX - box.left, still.clientY - box.top);
    }
    this.pointers.set(event.pointerId, event);
  }

  key(event) {
    const step = 40;
    const keys = {
      ArrowLeft: () => this.pan(step, 0), ArrowRight: () => this.pan(-step, 0),
      ArrowUp: () => this.pan(0, step), ArrowDown: () => this.pan(0, -step),
      "+": () => this.zoom(1.25), "=": () => this.zoom(1.25), "-": () => this.zoom(0.8), 0: () => this.fit(),
    };
    if (!(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  }
}

// Grey 0 (sure) to 254 (unsure) as transparent yellow to opaque red; nodata stays clear.
export async function asHeat(blob) {
  const grey = await createImageBitmap(blob);
  const canvas = new OffscreenCanvas(grey.width, grey.height);
  const context = canvas.getContext("2d");
  context.drawImage(grey, 0, 0);
  const pixels = context.getImageData(0, 0, grey.width, grey.height);
  const data = pixels.data;
  for (let i = 0; i < data.length; i += 4) {
    const unsure = data[i + 3] === 0 ? 0 : Math.min(1, (data[i] / 254) * 2); // beyond a half no class has a majority
    data[i] = 245 - 51 * unsure;
    data[i + 1] = 200 - 176 * unsure;
    data[i + 2] = 35 + 56 * unsure;
    data[i + 3] = 255 * Math.sqrt(unsure) * 0.9;
  }
  context.putImageData(pixels, 0, 0);
  return createImageBitmap(canvas);
}
