// Compares a camera's video with the view from its position: a wipe with a divider.

import { nearestPlace, placeOf } from "player/camera.js";
import { loadVideo, newVideo } from "player/clock.js";

const KEY_STEP = 0.04; // share of the width
const MAX_LOADED = 3; // cameras whose videos stay loaded; phones decode few at once

/** Compares with one camera at a time. Events: "change"; "failed" (see `error`): its video can't be shown. */
export class Compare extends EventTarget {
  constructor(player, files, elements) {
    super();
    Object.assign(this, { player, files, ...elements });
    this.cameras = player.manifest.cameras.filter((camera) => camera.video);
    this.camera = null; // the compared camera
    this.share = 0.5;
    this.error = null;
    this.ready = Promise.resolve();
    player.clock.addEventListener("frame", () => this.#follow());
    player.clock.addEventListener("state", () => this.#follow());
    this.#followDivider();
  }

  /** The camera with a video nearest to the target viewpoint; undefined if there is none. */
  get nearest() {
    const { viewpoint } = this.player;
    const places = this.cameras.map(({ T_cam_world }) => placeOf(T_cam_world, viewpoint.T_center_world));
    return this.cameras[nearestPlace(viewpoint.target, places)];
  }

  /** Move to a camera and show its video. */
  start(camera, { atOnce = false } = {}) {
    this.camera = camera;
    this.player.viewpoint.moveToPose(camera, { atOnce });
    this.player.changed();
    this.setShare(this.share);
    this.sideName.textContent = camera.name;
    this.ready = this.#show(camera).catch((error) => {
      if (this.camera === camera) this.stop();
      this.error = error;
      this.dispatchEvent(new Event("failed"));
    });
    this.dispatchEvent(new Event("change"));
  }

  stop() {
    if (!this.camera) return;
    this.camera = null;
    this.#video?.pause();
    this.#video = null;
    for (const element of [this.layer, this.divider, this.sides]) element.hidden = true;
    this.dispatchEvent(new Event("change"));
  }

  /** The position of the divider, 0 to 1 from the left. */
  setShare(share) {
    this.share = Math.max(0, Math.min(1, share));
    this.player.frame.style.setProperty("--divider", `${this.share * 100}%`);
    this.divider.setAttribute("aria-valuenow", Math.round(this.share * 100));
    this.dispatchEvent(new Event("change"));
  }

  #videos = new Map();
  #video = null;

  async #show(camera) {
    let video = this.#videos.get(camera.name);
    if (!video) {
      const loaded = newVideo();
      await loadVideo(loaded, await this.files.videoAddress(camera.video), camera.video);
      video = this.#videos.get(camera.name) ?? loaded; // another call may have been faster
      if (video !== loaded) unload(loaded);
    }
    this.#keep(camera.name, video);
    if (this.camera !== camera) return;
    this.#video?.pause();
    this.#video = video;
    this.layer.replaceChildren(video);
    for (const element of [this.layer, this.divider, this.sides]) element.hidden = false;
    this.#follow();
  }

  /** Keep only the latest videos and the visible one. */
  #keep(name, video) {
    this.#videos.delete(name);
    this.#videos.set(name, video);
    for (const [old, kept] of this.#videos) {
      if (this.#videos.size <= MAX_LOADED) break;
      if (kept === this.#video) continue;
      this.#videos.delete(old);
      unload(kept);
    }
  }

  #follow() {
    const video = this.#video;
    if (!video) return;
    const { clock } = this.player;
    let late = Math.abs(video.currentTime - (clock.frame + 0.5) / clock.fps) * clock.fps; // frames
    if (clock.playing && clock.loop) late = Math.min(late, Math.abs(clock.frames - late)); // one has started over
    video.loop = clock.loop;
    video.playbackRate = clock.speed;
    if (clock.playing && video.paused) video.play().catch(() => {});
    if (!clock.playing && !video.paused) video.pause();
    if (late > (clock.playing ? 1.5 : 0.4) && !(clock.playing && video.seeking)) {
      video.currentTime = (clock.frame + 0.5) / clock.fps;
    }
  }

  #followDivider() {
    const { frame } = this.player;
    let grabbed = false;
    const move = (event) => {
      const { left, width } = frame.getBoundingClientRect();
      this.setShare((event.clientX - left) / width);
    };
    frame.addEventListener("pointerdown", (event) => {
      if (!this.camera || event.button !== 0) return;
      grabbed = true;
      frame.setPointerCapture(event.pointerId);
      move(event);
    });
    frame.addEventListener("pointermove", (event) => grabbed && move(event));
    for (const name of ["pointerup", "pointercancel"]) frame.addEventListener(name, () => (grabbed = false));
    document.addEventListener("keydown", (event) => {
      if (!this.camera || document.querySelector("dialog[open]") || event.target.matches("input, select, textarea")) return;
      const steps = { ArrowLeft: -KEY_STEP, ArrowRight: KEY_STEP, Home: -1, End: 1 };
      const onDivider = event.target === this.divider;
      if (!(event.key in steps) || (!onDivider && !event.key.startsWith("Arrow"))) return;
      event.preventDefault();
      this.setShare(this.share + steps[event.key]);
    });
  }
}

function unload(video) {
  URL.revokeObjectURL(video.src);
  video.removeAttribute("src");
  video.load();
}
