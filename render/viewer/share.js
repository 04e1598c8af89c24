// Stores the state of the player in the address of the page, so that a link shows the same view.

import { MODES } from "player/player.js";

const QUIET = 400; // milliseconds without a change before the address is updated

/** The fragment of an address for a state. */
export function describe({ frame, offset, camera, mode, speed, loop, playing, compare }) {
  const parts = new URLSearchParams();
  if (frame > 0) parts.set("frame", frame);
  if (camera) parts.set("camera", camera);
  else if (offset.some((value) => value !== 0)) parts.set("at", offset.map((value) => Number(value.toPrecision(6))).join(","));
  if (mode !== "color") parts.set("show", mode);
  if (speed !== 1) parts.set("speed", speed);
  if (!loop) parts.set("loop", "0");
  if (playing) parts.set("play", "1");
  if (compare !== null) parts.set("compare", Math.round(compare * 100));
  return parts.toString().replaceAll("%2C", ",");
}

/** The state in the fragment of an address; missing or invalid parts have their initial values. */
export function parse(hash) {
  const parts = new URLSearchParams(hash.replace(/^#/, ""));
  const number = (name, otherwise) => (parts.has(name) && Number.isFinite(+parts.get(name)) ? +parts.get(name) : otherwise);
  const offset = (parts.get("at") ?? "").split(",").map(Number);
  return {
    frame: number("frame", 0),
    offset: offset.length === 3 && offset.every(Number.isFinite) ? offset : [0, 0, 0],
    camera: parts.get("camera"),
    mode: MODES.includes(parts.get("show")) ? parts.get("show") : "color",
    speed: Math.max(0.1, Math.min(4, number("speed", 1))),
    loop: parts.get("loop") !== "0",
    playing: parts.get("play") === "1",
    compare: parts.has("compare") ? Math.max(0, Math.min(100, number("compare", 50))) / 100 : null,
  };
}

/** Keeps the address of the page in sync with the state. */
export class Address {
  /** @param state a function that returns the current state */
  constructor(state) {
    this.state = state;
    this.#last = location.hash.slice(1);
  }

  get link() {
    const hash = describe(this.state());
    return location.href.replace(/#.*$/, "") + (hash && `#${hash}`);
  }

  /** Report a change; the address is updated once changes stop. */
  touch() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#write(), QUIET);
  }

  /** Call `apply` with the state of an address that the user entered or went back to. */
  onVisit(apply) {
    window.addEventListener("hashchange", () => {
      if (location.hash.slice(1) === this.#last) return;
      this.#last = location.hash.slice(1);
      apply(parse(location.hash));
    });
  }

  #timer;
  #last;

  #write() {
    const { playing, ...state } = this.state();
    const hash = describe({ ...state, playing: false }); // a reload shows the paused view
    if (playing || hash === this.#last) return;
    this.#last = hash;
    history.replaceState(null, "", `#${hash}`);
  }
}
