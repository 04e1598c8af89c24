// Time: which frame of the clip is shown. It runs by the video of what moves, or by itself where nothing does.

import { COPY_AGAIN, PlayerError } from "player/errors.js";

const H264 = 'video/mp4; codecs="avc1.640028"';
const SETTLE = 400; // milliseconds that the picture of a finished jump is waited for
const NUDGE = 1500; // milliseconds after which a video that doesn't load by itself is started for a moment
const PATIENCE = 20000; // milliseconds in which a video has to show its first picture

/** A video element that never sounds and stays in the page. */
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
      () => reject(new PlayerError(`${name}: no picture came within ${PATIENCE / 1000} s. Reload the page. ${COPY_AGAIN}`)),
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
  const reasons = { 2: "the connection broke off", 3: "it is damaged", 4: "missing, damaged or of an unknown codec" };
  return reasons[video.error?.code] ?? "unknown reason";
}

/** What both clocks share: state, and who is told. Events: "frame" (a frame is there), "state" (anything else). */
class Clock extends EventTarget {
  constructor(fps, frames) {
    super();
    this.fps = fps;
    this.frames = frames;
    this.frame = 0; // the one that is there
    this.playing = false;
    this.speed = 1;
    this.loop = true;
  }

  /** The nearest frame that there is. */
  within(frame) {
    return Math.max(0, Math.min(this.frames - 1, Math.round(frame)));
  }

  toggle() {
    return this.playing ? this.pause() : this.play();
  }

  tell(what) {
    this.dispatchEvent(new Event(what));
  }
}

/** Time by a video, whose frame i is frame i of the clip. */
export class VideoClock extends Clock {
  /** @param video an element that `loadVideo` has loaded */
  constructor(video, fps, frames, name) {
    super(fps, frames);
    this.video = video;
    this.picture = null; // while a frame is told: its picture, where it is certain
    this.error = null;
    video.loop = this.loop;
    video.addEventListener("ended", () => this.#stopped());
    video.addEventListener("pause", () => this.#stopped());
    video.addEventListener("error", () => {
      this.error = new PlayerError(`${name}: playing stopped (${reasonOf(video)}). Reload the page. ${COPY_AGAIN}`);
      this.tell("state");
    });
    this.#listen();
  }

  async play() {
    if (this.playing) return;
    if (this.frame === this.frames - 1 && !this.loop) await this.seek(0);
    this.playing = true;
    this.tell("state");
    try {
      await this.video.play();
    } catch {
      this.#stopped();
    }
  }

  pause() {
    this.playing = false;
    this.video.pause();
    this.tell("state");
    // Where it stands is between two frames for all but a moment; from now on it is in the middle of one.
    if (this.#jump === null) this.seek(this.frame);
  }

  setSpeed(speed) {
    this.speed = speed;
    this.video.playbackRate = speed;
    this.tell("state");
  }

  setLoop(loop) {
    this.loop = this.video.loop = loop;
    this.tell("state");
  }

  /** Show a frame; the promise holds when it is there. Of several jumps at once the last one is made. */
  seek(frame) {
    this.#wanted = this.within(frame);
    this.#jump ??= this.#follow();
    return this.#jump;
  }

  #wanted = null;
  #jump = null;
  #arrived = () => {};

  async #follow() {
    await null; // so that this jump is known before it may end
    while (this.#wanted !== null) {
      const frame = this.#wanted;
      const time = (frame + 0.5) / this.fps;
      if (this.frame !== frame || Math.abs(this.video.currentTime - time) > 0.01 / this.fps) {
        const seeked = new Promise((resolve) => this.video.addEventListener("seeked", resolve, { once: true }));
        const shown = new Promise((resolve) => {
          this.#arrived = (there) => there === frame && resolve();
        });
        this.video.currentTime = time;
        await seeked;
        // Not every browser tells that a picture is there which was there before.
        await Promise.race([shown, new Promise((resolve) => setTimeout(resolve, this.frame === frame ? 0 : SETTLE))]);
        if (!this.playing) this.#show(frame); // again, as the picture may have come later than the word of it
      }
      if (this.#wanted === frame) this.#wanted = null;
    }
    this.#jump = null;
  }

  #stopped() {
    // Of a last picture that comes late or as the video ends not every browser tells.
    if (this.#isAtEnd() && this.frame !== this.frames - 1) this.#show(this.frames - 1);
    if (!this.playing || !(this.video.ended || this.video.paused)) return;
    this.playing = false;
    this.tell("state");
  }

  #isAtEnd() {
    return this.video.ended && this.#jump === null;
  }

  #show(frame) {
    this.frame = this.within(frame);
    this.#arrived(this.frame);
    this.tell("frame");
  }

  /**
   * The frame that is there at a time of the video: its own time, or after a jump, in some browsers, the jump's.
   * Where a video is repeated some browsers begin again with the time, others go on counting.
   */
  #frameAt(seconds) {
    return Math.floor(seconds * this.fps + 0.25) % this.frames;
  }

  /**
   * The picture that is there, with its own time; null where the browser doesn't tell that. On a busy machine the
   * callback of a frame comes when the video is farther already.
   */
  #stampedPicture(mediaTime) {
    if (!globalThis.VideoFrame || this.video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return null;
    const picture = new VideoFrame(this.video);
    this.#stamps ||= mediaTime > 0 && Math.abs(picture.timestamp / 1e6 - mediaTime) < 1e-3;
    if (this.#stamps) return picture;
    picture.close();
    return null;
  }

  #stamps = false; // whether pictures have the times of their frames, as in Chromium; elsewhere it is another time

  #listen() {
    if (this.video.requestVideoFrameCallback) {
      const next = (now, { mediaTime }) => {
        this.picture = this.#stampedPicture(mediaTime);
        const time = this.picture ? this.picture.timestamp / 1e6 : mediaTime;
        this.#show(this.#isAtEnd() ? this.frames - 1 : this.#frameAt(time)); // the one before may be told late
        this.picture?.close();
        this.picture = null;
        this.video.requestVideoFrameCallback(next);
      };
      this.video.requestVideoFrameCallback(next);
      return;
    }
    const look = () => {
      if (this.playing) {
        const frame = this.within(Math.floor(this.video.currentTime * this.fps));
        if (frame !== this.frame) this.#show(frame);
      }
      requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  }
}

/** Time of a clip in which nothing moves. */
export class TimerClock extends Clock {
  #began = 0; // milliseconds at which frame 0 was or would have been shown

  async play() {
    if (this.playing) return;
    if (this.frame === this.frames - 1 && !this.loop) this.frame = 0;
    this.playing = true;
    this.#begin();
    this.tell("state");
    requestAnimationFrame(() => this.#tick());
  }

  pause() {
    this.playing = false;
    this.tell("state");
  }

  setSpeed(speed) {
    this.speed = speed;
    this.#begin();
    this.tell("state");
  }

  setLoop(loop) {
    this.loop = loop;
    this.tell("state");
  }

  async seek(frame) {
    this.frame = this.within(frame);
    this.#begin();
    this.tell("frame");
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
        this.tell("state");
      }
    }
    if (frame !== this.frame) {
      this.frame = frame;
      this.tell("frame");
    }
    requestAnimationFrame(() => this.#tick());
  }
}
