// Buttons, sliders, dialogs and their texts.

import { followKeys, followPointers, Tilt } from "player/controls.js";
import { setIcon } from "player/icons.js";
import { FILE_NAME } from "player/recorder.js";

const IDLE = 2600; // milliseconds after which controls fade while the clip plays
const SAID = 2600; // milliseconds for which an announcement is visible
const SPEEDS = [0.1, 0.25, 0.5, 1, 2];

const element = (id) => document.getElementById(id);

export class Interface {
  constructor({ player, compare, recorder, address }) {
    Object.assign(this, { player, compare, recorder, address });
    const { manifest } = player;
    element("title").textContent = manifest.title ?? "";
    document.title = manifest.title ? `${manifest.title} · maskvolume` : "maskvolume";
    for (const name of ["loop", "tilt", "link", "fullscreen", "help"]) setIcon(element(name), name);
    this.#bindTime();
    this.#bindView();
    this.#bindRecorder();
    this.#bindRest();
    this.#bindKeys();
    this.#fade();
    this.#showTime();
    this.#showFrame();
    this.#showView();
  }

  /** Announce something briefly, also to screen readers. */
  say(text) {
    element("announce").textContent = text;
    element("announce").classList.add("shown");
    clearTimeout(this.#saying);
    this.#saying = setTimeout(() => element("announce").classList.remove("shown"), SAID);
  }

  /** Move to a camera's exact pose; -1 is the centre. */
  goTo(index) {
    const { player, compare } = this;
    const camera = player.manifest.cameras[index];
    if (index >= 0 && !camera) return;
    if (compare.camera && camera?.video) {
      this.#startCompare(camera);
      return;
    }
    compare.stop();
    if (camera) player.viewpoint.moveToPose(camera);
    else player.viewpoint.moveTo([0, 0, 0]);
    player.changed();
    this.say(camera ? camera.name : "Centre");
  }

  #saying;

  #bindTime() {
    const { clock } = this.player;
    const scrub = element("scrub");
    scrub.max = clock.frames - 1;
    scrub.addEventListener("input", () => {
      clock.pause();
      clock.seek(scrub.valueAsNumber);
    });
    element("play").addEventListener("click", () => clock.toggle());
    element("loop").addEventListener("click", () => clock.setLoop(!clock.loop));
    element("speed").addEventListener("change", (event) => clock.setSpeed(Number(event.target.value)));
    clock.addEventListener("state", () => this.#showTime());
    clock.addEventListener("frame", () => this.#showFrame());
  }

  #showTime() {
    const { clock } = this.player;
    const play = element("play");
    setIcon(play, clock.playing ? "pause" : "play");
    play.setAttribute("aria-label", clock.playing ? "Pause" : "Play");
    play.title = clock.playing ? "Pause (space)" : "Play (space)";
    element("loop").setAttribute("aria-pressed", clock.loop);
    const speed = element("speed");
    if (![...speed.options].some((option) => Number(option.value) === clock.speed)) {
      speed.add(new Option(`${clock.speed}×`, clock.speed));
    }
    speed.value = clock.speed;
    this.address.touch();
  }

  #showFrame() {
    const { clock } = this.player;
    const scrub = element("scrub");
    if (!scrub.matches(":active")) scrub.value = clock.frame; // while it is dragged, it is ahead of the video
    scrub.style.setProperty("--share", `${(100 * clock.frame) / Math.max(1, clock.frames - 1)}%`);
    scrub.setAttribute("aria-valuetext", `frame ${clock.frame} of ${clock.frames - 1}`);
    const narrow = matchMedia("(max-width: 720px)").matches;
    element("time").textContent = narrow
      ? `${clock.frame} / ${clock.frames - 1}`
      : `${(clock.frame / clock.fps).toFixed(2)} s · ${clock.frame} / ${clock.frames - 1}`;
    if (!clock.playing) this.address.touch();
  }

  #bindView() {
    const { player, compare } = this;
    const preset = element("preset");
    preset.add(new Option("Free view", "free"));
    preset.add(new Option("Centre", "-1"));
    player.manifest.cameras.forEach((camera, index) => preset.add(new Option(camera.name, index)));
    preset.options[0].hidden = true;
    preset.addEventListener("change", () => this.goTo(Number(preset.value)));
    for (const button of document.querySelectorAll("[data-mode]")) {
      button.addEventListener("click", () => this.#toggleMode(button.dataset.mode));
    }
    const button = element("compare");
    button.hidden = compare.cameras.length === 0;
    button.addEventListener("click", () => this.#toggleCompare());
    compare.addEventListener("change", () => this.#showView());
    compare.addEventListener("failed", () => this.say(compare.error.message));
    player.addEventListener("view", () => this.#showView());
  }

  #showView() {
    const { player, compare } = this;
    for (const button of document.querySelectorAll("[data-mode]")) {
      button.setAttribute("aria-pressed", button.dataset.mode === player.mode);
    }
    element("compare").setAttribute("aria-pressed", compare.camera !== null);
    const { preset, target } = player.viewpoint;
    const index = player.manifest.cameras.findIndex((camera) => camera.name === preset);
    const isCentre = index < 0 && target.every((value) => value === 0);
    element("preset").value = index >= 0 ? String(index) : isCentre ? "-1" : "free";
    this.address.touch();
  }

  #toggleMode(mode) {
    const { player, compare } = this;
    const next = player.mode === mode ? "color" : mode;
    if (next === "layers") compare.stop();
    player.setMode(next);
    const names = { color: "Picture", disparity: "Disparity: near is bright", layers: "Layers apart", mask: "Mask: moving objects" };
    this.say(names[next]);
  }

  #toggleCompare() {
    if (this.compare.camera) this.compare.stop();
    else if (this.compare.nearest) this.#startCompare(this.compare.nearest);
  }

  #startCompare(camera) {
    if (this.player.mode === "layers") this.player.setMode("color");
    this.compare.start(camera);
    this.say(`The picture of ${camera.name} is left of the divider`);
  }

  #bindRecorder() {
    const { recorder } = this;
    const button = element("record");
    const note = element("note");
    const show = () => {
      button.setAttribute("aria-pressed", recorder.active);
      button.textContent = recorder.active ? "Stop recording" : "Record path";
      note.hidden = !recorder.active;
      note.classList.toggle("recording", recorder.active);
      note.textContent = recorder.still === null ? "Recording through the clip" : "Recording with time frozen";
    };
    button.addEventListener("click", async () => {
      if (recorder.active) recorder.stop();
      else await Promise.all([recorder.start(), show()]);
      show();
    });
    recorder.addEventListener("done", () => {
      show();
      this.#showPath();
    });
    element("path-copy").addEventListener("click", () => this.#copy(element("path-text"), "Path file copied"));
    element("path-download").addEventListener("click", () => {
      const address = URL.createObjectURL(new Blob([recorder.text], { type: "text/plain" }));
      Object.assign(document.createElement("a"), { href: address, download: FILE_NAME }).click();
      setTimeout(() => URL.revokeObjectURL(address), 10_000);
    });
  }

  #showPath() {
    const { recorder } = this;
    const count = `${recorder.poses.length} pose${recorder.poses.length === 1 ? "" : "s"}`;
    element("path-summary").textContent =
      recorder.still === null
        ? `${count}: pose i belongs to frame i.`
        : `${count}, with time frozen at frame ${recorder.still}: render it with --time fix:${recorder.still}.`;
    element("path-command").value = recorder.command;
    element("path-text").value = recorder.text;
    element("path-dialog").showModal();
  }

  async #copy(field, done) {
    try {
      await navigator.clipboard.writeText(field.value);
    } catch {
      // Without https the clipboard only works through a selection.
      field.select();
      if (!document.execCommand("copy")) {
        this.say("The browser doesn't allow copying: the text is selected, press Ctrl+C");
        return;
      }
    }
    this.say(done);
  }

  async #copyLink() {
    const field = Object.assign(document.createElement("textarea"), { value: this.address.link });
    document.body.append(field);
    await this.#copy(field, "Link copied");
    field.remove();
  }

  #bindRest() {
    const { player } = this;
    const helpDialog = element("help-dialog");
    element("help").addEventListener("click", () => this.#showHelp());
    for (const dialog of document.querySelectorAll("dialog")) {
      dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    }
    document.addEventListener("keydown", (event) => {
      if (helpDialog.open && ["?", "h", "H"].includes(event.key)) helpDialog.close();
    });
    element("link").addEventListener("click", () => this.#copyLink());
    const fullscreen = element("fullscreen");
    fullscreen.hidden = !document.fullscreenEnabled;
    fullscreen.addEventListener("click", () => this.#toggleFullscreen());
    const tilt = new Tilt(player, () => !this.compare.camera);
    const button = element("tilt");
    button.hidden = !Tilt.exists;
    button.addEventListener("click", async () => {
      const problem = tilt.active ? tilt.stop() : await tilt.start();
      button.setAttribute("aria-pressed", tilt.active);
      this.say(problem ?? (tilt.active ? "Tilt the device to look around" : "Tilting is off"));
    });
    const enabled = () => !this.compare.camera;
    followPointers(player, { onTap: () => player.clock.toggle(), enabled });
  }

  #toggleFullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.documentElement.requestFullscreen?.().catch(() => this.say("The browser doesn't allow full screen here"));
  }

  #showHelp() {
    const { manifest, stats, renderer } = this.player;
    const { width, height } = renderer.canvas;
    element("stats").textContent =
      `${manifest.layers.length} layers, ${(manifest.static.tiles.length / 3).toLocaleString("en")} static and ` +
      `${((manifest.dynamic?.tiles.length ?? 0) / 3).toLocaleString("en")} moving tiles, drawn at ${width} × ${height} ` +
      `in ${stats.frameBuffer === "RGBA16F" ? "half floats" : "8 bits (this device has no float textures)"}; ` +
      `first picture after ${Math.round(stats.firstPictureMs)} ms and ${(stats.firstPictureBytes / 1e6).toFixed(2)} MB.`;
    element("help-dialog").showModal();
  }

  #bindKeys() {
    const { player, recorder } = this;
    const { clock } = player;
    const step = (by) => {
      clock.pause();
      clock.seek(clock.frame + by);
    };
    const jump = (frame) => clock.seek(frame);
    const speed = (by) => {
      const near = SPEEDS.filter((value) => (by > 0 ? value > clock.speed : value < clock.speed));
      const next = by > 0 ? near[0] : near.at(-1);
      if (next === undefined) return;
      clock.setSpeed(next);
      this.say(`Speed ${next}×`);
    };
    const next = (by) => {
      const { cameras } = player.manifest;
      const index = cameras.findIndex((camera) => camera.name === player.viewpoint.preset);
      const from = index < 0 && by < 0 ? 0 : index; // from a free view to the first or the last camera
      if (cameras.length > 0) this.goTo((from + by + cameras.length) % cameras.length);
    };
    const escape = () => {
      if (recorder.active) recorder.stop();
      else if (this.compare.camera) this.compare.stop();
    };
    const actions = {
      " ": { run: () => clock.toggle() },
      k: { run: () => clock.toggle() },
      ",": { run: () => step(-1), repeats: true },
      ".": { run: () => step(1), repeats: true },
      Home: { run: () => jump(0) },
      End: { run: () => jump(clock.frames - 1) },
      "[": { run: () => speed(-1) },
      "]": { run: () => speed(1) },
      l: { run: () => element("loop").click() },
      0: { run: () => this.goTo(-1) },
      n: { run: () => next(1) },
      p: { run: () => next(-1) },
      d: { run: () => this.#toggleMode("disparity") },
      e: { run: () => this.#toggleMode("layers") },
      m: { run: () => this.#toggleMode("mask") },
      c: { run: () => this.#toggleCompare() },
      r: { run: () => element("record").click() },
      u: { run: () => this.#copyLink() },
      f: { run: () => this.#toggleFullscreen() },
      h: { run: () => this.#showHelp() },
      "?": { run: () => this.#showHelp() },
      Escape: { run: escape },
    };
    for (let i = 1; i <= 9; i++) actions[i] = { run: () => this.goTo(i - 1) };
    followKeys(player, { actions, enabled: () => !this.compare.camera });
  }

  #fade() {
    let timer;
    const wake = () => {
      document.body.classList.remove("idle");
      clearTimeout(timer);
      timer = setTimeout(sleep, IDLE);
    };
    const sleep = () => {
      const busy = document.querySelector("dialog[open], #controls :focus-visible, #controls:hover");
      const beside = matchMedia("(max-width: 720px)").matches; // on narrow screens the controls cover nothing
      if (this.player.clock.playing && !busy && !beside && !this.recorder.active) document.body.classList.add("idle");
    };
    for (const name of ["pointermove", "pointerdown", "keydown", "focusin"]) document.addEventListener(name, wake);
    this.player.clock.addEventListener("state", wake);
    wake();
  }
}
