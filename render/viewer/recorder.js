// Records a path of viewpoints, one pose per frame of the clip, as a file for the renderer.

import { pathText } from "player/camera.js";

export const FILE_NAME = "recorded_path.txt";
const LONGEST = 3600; // most poses with time frozen

/** Records while the clip plays (pose i belongs to frame i) or with time frozen. Event "done" at the end. */
export class Recorder extends EventTarget {
  constructor(player) {
    super();
    this.player = player;
    this.active = false;
    this.poses = [];
    player.addEventListener("drawn", () => this.#note());
    player.clock.addEventListener("state", () => this.#watch());
  }

  /** Begin; a playing clip restarts from its first frame. */
  async start() {
    const { clock } = this.player;
    this.active = true;
    this.poses = [];
    this.still = clock.playing ? null : clock.frame;
    if (this.still !== null) {
      this.#timer = setInterval(() => this.#noteStill(), 1000 / clock.fps);
      return;
    }
    this.#loops = clock.loop;
    this.#running = false;
    clock.pause();
    clock.setLoop(false);
    await clock.seek(0);
    if (!this.active) return;
    this.#running = true;
    this.#note();
    await clock.play();
  }

  /** End; the event "done" follows if anything was recorded. */
  stop() {
    if (!this.active) return;
    this.active = false;
    clearInterval(this.#timer);
    if (this.still === null) {
      this.player.clock.setLoop(this.#loops);
      this.#complete();
    }
    if (this.poses.length > 0) this.dispatchEvent(new Event("done"));
  }

  /** The text of the path file. */
  get text() {
    const { picture, view } = this.player.manifest;
    return pathText(this.poses, picture.width, picture.height, view.K[0]);
  }

  /** The command that renders the path. */
  get command() {
    const time = this.still === null ? "loop" : `fix:${this.still}`;
    const options = `--config render_video.txt --path ${FILE_NAME} --time ${time} --out_dir out/recorded`;
    return `python render/render_llff_video.py ${options}`;
  }

  #timer;
  #loops = true;
  #running = false;

  #note() {
    if (this.active && this.still === null && this.#running) {
      this.poses[this.player.clock.frame] = this.player.viewpoint.camera.T_cam_world;
    }
  }

  #noteStill() {
    this.poses.push(this.player.viewpoint.camera.T_cam_world);
    if (this.poses.length >= LONGEST) this.stop();
  }

  #watch() {
    const { clock } = this.player;
    if (!this.active) return;
    if (this.still !== null) {
      if (clock.playing) this.stop();
    } else if (this.#running && !clock.playing && clock.frame >= clock.frames - 1) {
      this.#note();
      this.stop();
    }
  }

  // A slow device skips frames; these get the pose of the previous one.
  #complete() {
    for (let i = 1; i < this.poses.length; i++) this.poses[i] ??= this.poses[i - 1];
  }
}
