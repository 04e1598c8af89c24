// The clock: which frame of the clip is current. It follows the video of the moving tiles, or a timer if nothing moves.

import { COPY_AGAIN, PlayerError } from "player/errors.js";

const H264 = 'video/mp4; codecs="avc1.640028"';
const SETTLE = 400; // milliseconds to wait for the picture after a seek
const NUDGE = 1500; // milliseconds after which a video that doesn't load is played briefly
const PATIENCE = 20000; // milliseconds to wait for a video's first picture

/** A muted video element that plays inline. */
export function newVideo() {
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  video.preload = "auto";
  video.disablePictureInPicture = true;
  return video;
}

/** Wait until a video has its first picture. */
export async function loadVideo(video, address, name) {
  if (!video.canPlayType(H264)) {
    throw new PlayerError(
      `${name}: this browser can't play H.264 videos. Use one that can, such as Chrome, Edge, Firefox or Safari ` +
        "(builds without patented codecs can't).",
    );
  }
  await new Promise((resolve, reject) => {
    const late = setTimeout(
      () => reject(new PlayerError(`${name}: no picture within ${PATIENCE / 1000} s. Reload the page. ${COPY_AGAIN}`)),
      PATIENCE,
    );
    const nudge = setTimeout(() => video.play().then(() => video.pause()).catch(() => {}), NUDGE);
    const settle = (finish) => (event) => {
      clearTimeout(late);
      clearTimeout(nudge);
      finish(event);
    };
    video.addEventListener("loadeddata", settle(resolve), { once: true });
    video.addEventListener(
      "error",
      settle(() => reject(new PlayerError(`${name}: can't be played (${reasonOf(video)}). ${COPY_AGAIN}`))),
      { once: true },
    );
    video.src = address;
    video.load();
  });
}

function reasonOf(video) {
  const reasons = { 2: "the connection was lost", 3: "it is damaged", 4: "missing, damaged or in an unknown codec" };
  return reasons[video.error?.code] ?? "unknown reason";
}

/** The base of both clocks: state and events. Events: "frame" (the current frame changed), "state" (anything else). */
class Clock extends EventTarget {
  constructor(fps, frames) {
    super();
    this.fps = fps;
    this.frames = frames;
    this.frame = 0; // the current one
    this.playing = false;
    this.speed = 1;
    this.loop = true;
  }

  /** The nearest existing frame. */
  within(frame) {
    return Math.max(0, Math.min(this.frames - 1, Math.round(frame)));
  }

  toggle() {
    return this.playing ? this.pause() : this.play();
  }

  notify(type) {
    this.dispatchEvent(new Event(type));
  }
}

/** A clock that follows a video, whose frame i is frame i of the clip. */
export class VideoClock extends Clock {
  /** @param video an element loaded by `loadVideo` */
  constructor(video, fps, frames, name) {
    super(fps, frames);
    this.video = video;
    this.picture = null; // during a "frame" event: the frame's picture, if it is certain
    this.error = null;
    video.loop = this.loop;
    video.addEventListener("ended", () => this.#stopped());
    video.addEventListener("pause", () => this.#stopped());
    video.addEventListener("error", () => {
      this.error = new PlayerError(`${name}: playing stopped (${reasonOf(video)}). Reload the page. ${COPY_AGAIN}`);
      this.notify("state");
    });
    this.#listen();
  }

  async play() {
    if (this.playing) return;
    if (this.frame === this.frames - 1 && !this.loop) await this.seek(0);
    this.playing = true;
    this.notify("state");
    try {
      await this.video.play();
    } catch {
      this.#stopped();
    }
  }

  pause() {
    this.playing = false;
    this.video.pause();
    this.notify("state");
    // The video may have stopped between two frames; seek to the middle of the current one.
    if (this.#jump === null) this.seek(this.frame);
  }

  setSpeed(speed) {
    this.speed = speed;
    this.video.playbackRate = speed;
    this.notify("state");
  }

  setLoop(loop) {
    this.loop = this.video.loop = loop;
    this.notify("state");
  }

  /** Show a frame; the promise resolves when it is visible. Of several concurrent seeks only the last one counts. */
  seek(frame) {
    this.#target = this.within(frame);
    this.#jump ??= this.#follow();
    return this.#jump;
  }

  #target = null;
  #jump = null;
  #arrived = () => {};

  async #follow() {
    await null; // so that #jump is set before it can end
    while (this.#target !== null) {
      const frame = this.#target;
      const time = (frame + 0.5) / this.fps;
      if (this.frame !== frame || Math.abs(this.video.currentTime - time) > 0.01 / this.fps) {
        const seeked = new Promise((resolve) => this.video.addEventListener("seeked", resolve, { once: true }));
        const shown = new Promise((resolve) => {
          this.#arrived = (arrived) => arrived === frame && resolve();
        });
        this.video.currentTime = time;
        await seeked;
        // Not every browser reports a picture that was visible before.
        await Promise.race([shown, new Promise((resolve) => setTimeout(resolve, this.frame === frame ? 0 : SETTLE))]);
        if (!this.playing) this.#show(frame); // again, as the picture may arrive after its callback
      }
      if (this.#target === frame) this.#target = null;
    }
    this.#jump = null;
  }

  #stopped() {
    // Not every browser reports the last picture if it comes late or as the video ends.
    if (this.#isAtEnd() && this.frame !== this.frames - 1) this.#show(this.frames - 1);
    if (!this.playing || !(this.video.ended || this.video.paused)) return;
    this.playing = false;
    this.notify("state");
  }

  #isAtEnd() {
    return this.video.ended && this.#jump === null;
  }

  #show(frame) {
    this.frame = this.within(frame);
    this.#arrived(this.frame);
    this.notify("frame");
  }

  /**
   * The frame at a time of the video: the frame's own time, or after a seek, in some browsers, the seek's.
   * When a video loops, some browsers restart the time, others continue counting.
   */
  #frameAt(seconds) {
    return Math.floor(seconds * this.fps + 0.25) % this.frames;
  }

  /**
   * The visible picture with its own time; null if the browser doesn't provide that. On a busy machine the callback of
   * a frame comes when the video has already advanced.
   */
  #stampedPicture(mediaTime) {
    if (!globalThis.VideoFrame || this.video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return null;
    const picture = new VideoFrame(this.video);
    this.#stamps ||= mediaTime > 0 && Math.abs(picture.timestamp / 1e6 - mediaTime) < 1e-3;
    if (this.#stamps) return picture;
    picture.close();
    return null;
  }

  #stamps = false; // whether pictures have the times of their frames, as in Chromium; elsewhere the times differ

  #listen() {
    if (this.video.requestVideoFrameCallback) {
      const next = (now, { mediaTime }) => {
        this.picture = this.#stampedPicture(mediaTime);
        const time = this.picture ? this.picture.timestamp / 1e6 : mediaTime;
        this.#show(this.#isAtEnd() ? this.frames - 1 : this.#frameAt(time)); // the callback before may be late
        this.picture?.close();
        this.picture = null;
        this.video.requestVideoFrameCallback(next);
      };
      this.video.requestVideoFrameCallback(next);
      return;
    }
    const poll = () => {
      if (this.playing) {
        const frame = this.within(Math.floor(this.video.currentTime * this.fps));
        if (frame !== this.frame) this.#show(frame);
      }
      requestAnimationFrame(poll);
    };
    requestAnimationFrame(poll);
  }
}

/** A clock for a clip in which nothing moves. */
export class TimerClock extends Clock {
  #began = 0; // milliseconds at which frame 0 was or would have been visible

  async play() {
    if (this.playing) return;
    if (this.frame === this.frames - 1 && !this.loop) this.frame = 0;
    this.playing = true;
    this.#begin();
    this.notify("state");
    requestAnimationFrame(() => this.#tick());
  }

  pause() {
    this.playing = false;
    this.notify("state");
  }

  setSpeed(speed) {
    this.speed = speed;
    this.#begin();
    this.notify("state");
  }

  setLoop(loop) {
    this.loop = loop;
    this.notify("state");
  }

  async seek(frame) {
    this.frame = this.within(frame);
    this.#begin();
    this.notify("frame");
  }

  #begin() {
    this.#began = performance.now() - (this.frame / (this.fps * this.speed)) * 1000;
  }

  #tick() {
    if (!this.playing) return;
    let frame = Math.floor(((performance.now() - this.#began) / 1000) * this.fps * this.speed);
    if (frame >= this.frames) {
      if (this.loop) {
        frame = 0;
        this.#began = performance.now();
      } else {
        frame = this.frames - 1;
        this.playing = false;
        this.notify("state");
      }
    }
    if (frame !== this.frame) {
      this.frame = frame;
      this.notify("frame");
    }
    requestAnimationFrame(() => this.#tick());
  }
}
