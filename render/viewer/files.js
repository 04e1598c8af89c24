// Loads the files of the exported folder over HTTP or, for a page opened by a double click, from offline.js.

import { COPY_AGAIN, PlayerError } from "player/errors.js";

// Larger videos are streamed instead of loaded completely before the first picture.
const WHOLE = 48e6;

export class Files {
  /**
   * @param offline `window.maskvolumeOffline`, or undefined over HTTP
   * @param onProgress called with the bytes that have come so far, of all files
   */
  constructor(offline, onProgress = () => {}) {
    this.offline = offline;
    this.onProgress = onProgress;
    this.sizes = {}; // of the manifest: bytes by name
    this.received = 0;
  }

  /** A file as a Blob, with its size checked. */
  async blob(name, type = "") {
    const parts = this.offline ? this.#decode(name) : await this.#fetch(name);
    const blob = new Blob(parts, { type });
    const expected = this.sizes[name];
    if (expected !== undefined && blob.size !== expected) {
      const what = blob.size < expected ? "the file was cut short" : "it belongs to another export";
      throw new PlayerError(`${name}: ${blob.size} bytes where the manifest says ${expected}: ${what}. ${COPY_AGAIN}`);
    }
    return blob;
  }

  /** A file as text. */
  async text(name) {
    return (await this.blob(name)).text();
  }

  /** An address for a video element. */
  async videoAddress(name) {
    if (this.offline || (this.sizes[name] ?? 0) <= WHOLE) return URL.createObjectURL(await this.blob(name, "video/mp4"));
    return name;
  }

  #decode(name) {
    const encoded = this.offline.files[name];
    if (encoded === undefined) throw new PlayerError(`${name}: not in offline.js. ${COPY_AGAIN}`);
    const parts = [];
    const piece = 4 << 20; // characters, a multiple of 4
    for (let at = 0; at < encoded.length; at += piece) {
      const binary = atob(encoded.slice(at, at + piece));
      parts.push(Uint8Array.from(binary, (character) => character.charCodeAt(0)));
      this.#count(binary.length);
    }
    return parts;
  }

  async #fetch(name) {
    let response;
    try {
      response = await fetch(name, { cache: "no-cache" });
    } catch {
      throw new PlayerError(`${name}: can't be loaded; the server doesn't answer. Check that it runs, then reload the page.`);
    }
    if (!response.ok) throw new PlayerError(`${name}: missing (the server says ${response.status}). ${COPY_AGAIN}`);
    const reader = response.body.getReader();
    const parts = [];
    try {
      for (let next = await reader.read(); !next.done; next = await reader.read()) {
        parts.push(next.value);
        this.#count(next.value.length);
      }
    } catch {
      throw new PlayerError(`${name}: the connection broke off while it was loaded. Reload the page; ${COPY_AGAIN}`);
    }
    return parts;
  }

  #count(bytes) {
    this.received += bytes;
    this.onProgress(this.received);
  }
}
