// Schedules drawing and chooses the size of the canvas.

import { reachOf } from "player/camera.js";

export const MODES = ["color", "disparity", "layers", "mask"];
const SHARPEST = 1.5; // most canvas pixels per pixel of the picture
const LONGEST_STEP = 0.1; // seconds; avoids jumps after a pause

// If drawing is slow, the resolution is reduced in motion and restored at rest.
const LATE = 60; // milliseconds after which a picture is late
const PATIENCE = 250; // milliseconds of accumulated delay in consecutive pictures before the resolution drops
const COARSER = [0.5, 0.8]; // largest and smallest reduction in one step
const COARSEST = 0.3; // lowest resolution
const REST = 350; // milliseconds without motion before the resolution is restored

/** Draws when there is something new. Events: "drawn"; "view" (viewpoint or mode changed); "lost" (graphics were reset). */
export class Player extends EventTarget {
  constructor({ manifest, scene, renderer, clock, viewpoint, frame }) {
    super();
    Object.assign(this, { manifest, scene, renderer, clock, viewpoint, frame });
    this.mode = "color";
    this.drives = []; // functions of the elapsed seconds that move the viewpoint and return whether they continue
    this.stats = { framesPerSecond: 0, uploadBytesPerFrame: 0, firstPictureMs: null, firstPictureBytes: null };
    this.stats.frameBuffer = renderer.format;
    clock.addEventListener("frame", () => this.#takeFrame());
    new ResizeObserver(() => this.fit()).observe(frame.parentElement);
    matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener("change", () => this.fit());
    renderer.canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault();
      this.lost = true;
      this.dispatchEvent(new Event("lost"));
    });
  }

  setMode(mode) {
    if (!MODES.includes(mode)) throw new RangeError(`mode ${mode}: choose from ${MODES.join(", ")}`);
    this.mode = mode;
    this.changed();
  }

  /** Report a change of the viewpoint or mode. */
  changed() {
    this.dispatchEvent(new Event("view"));
    this.schedule();
  }

  /** Draw with the next animation frame. */
  schedule() {
    this.#request ??= requestAnimationFrame((now) => this.#step(now));
  }

  /** Adapt the canvas's resolution to its size in the page. */
  fit() {
    const { width, height } = this.manifest.picture;
    this.frame.style.setProperty("--aspect", width / height);
    const sharp = Math.min((this.frame.clientWidth / width) * devicePixelRatio, SHARPEST) * (this.#rests ? 1 : this.#coarse);
    const { canvas } = this.renderer;
    const [w, h] = [Math.max(1, Math.round(width * sharp)), Math.max(1, Math.round(height * sharp))];
    if (canvas.width !== w || canvas.height !== h) {
      [canvas.width, canvas.height] = [w, h];
      this.draw();
    }
  }

  draw() {
    if (this.lost) return;
    const { canvas } = this.renderer;
    this.renderer.draw(this.#clips(canvas.width, canvas.height), this.mode);
    this.#count();
    this.dispatchEvent(new Event("drawn"));
  }

  /** The current view at another size, rendered off screen: a PNG as a data URL. */
  picture(width, height) {
    const pixels = this.renderer.read(width, height, this.#clips(width, height), this.mode);
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
    return canvas.toDataURL("image/png");
  }

  #request = null;
  #last = null;
  #drawn = [];
  #rests = true;
  #resting;
  #coarse = 1; // relative resolution in motion
  #late = 0; // milliseconds
  #stepped = null;

  #clips(width, height) {
    const { scene, viewpoint } = this;
    if (this.mode !== "layers") return scene.clips(viewpoint.camera, width, height);
    const share = viewpoint.offset.map((value, axis) => (viewpoint.limits[axis] > 0 ? value / viewpoint.limits[axis] : 0));
    const most = Math.max(1, reachOf(viewpoint.offset, viewpoint.limits)[0]);
    return scene.clipsApart([share[0] / most, share[1] / most], width, height);
  }

  #takeFrame() {
    if (this.clock.video && !this.lost) {
      this.renderer.upload(this.clock.picture ?? this.clock.video);
      this.stats.uploadBytesPerFrame = this.renderer.uploadedBytes;
    }
    this.schedule();
  }

  #step(now) {
    this.#request = null;
    const seconds = this.#last === null ? 1 / 60 : Math.min((now - this.#last) / 1000, LONGEST_STEP);
    this.#pace(now);
    const driven = this.drives.map((drive) => drive(seconds)).some(Boolean);
    const moved = this.viewpoint.step(seconds);
    this.draw();
    if (moved) this.dispatchEvent(new Event("view"));
    this.#last = moved || driven ? now : null;
    if (moved || driven) this.schedule();
  }

  #pace(now) {
    const due = this.#last !== null ? 0 : this.clock.playing ? 1000 / (this.clock.fps * this.clock.speed) : null;
    if (due === null) {
      this.#stepped = null;
      return;
    }
    clearTimeout(this.#resting);
    this.#resting = setTimeout(() => {
      this.#rests = true;
      this.fit();
    }, REST + due);
    const delay = this.#stepped === null ? 0 : now - this.#stepped - due;
    this.#late = delay > LATE ? this.#late + delay - LATE : 0;
    this.#stepped = now;
    const coarser = this.#late > PATIENCE && this.#coarse > COARSEST;
    if (coarser) {
      const [most, least] = COARSER;
      this.#coarse = Math.max(COARSEST, this.#coarse * Math.min(least, Math.max(most, Math.sqrt(LATE / delay))));
      this.#late = 0;
    }
    if (coarser || this.#rests) {
      this.#rests = false;
      this.fit();
    }
  }

  #count() {
    const now = performance.now();
    this.#drawn = this.#drawn.filter((time) => now - time < 1000);
    this.#drawn.push(now);
    this.stats.framesPerSecond = this.#drawn.length;
  }
}
