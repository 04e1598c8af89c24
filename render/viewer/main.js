// Starts the player: files, clock, renderer, controls, in this order, and reports what is missing.

import { TimerClock, VideoClock, loadVideo, newVideo } from "player/clock.js";
import { Compare } from "player/compare.js";
import { COPY_AGAIN, PlayerError } from "player/errors.js";
import { Files } from "player/files.js";
import { Interface } from "player/interface.js";
import { parseManifest } from "player/manifest.js";
import { Player } from "player/player.js";
import { Recorder } from "player/recorder.js";
import { Renderer } from "player/renderer.js";
import { Scene } from "player/scene.js";
import { Address, parse } from "player/share.js";
import { Viewpoint } from "player/viewpoint.js";

const element = (id) => document.getElementById(id);

function fail(error) {
  const text = error instanceof PlayerError ? error.message : `The player stopped: ${error?.message ?? error}. Reload the page.`;
  window.playerFailed(text);
}

async function loadAtlas(files, { file, width, height }) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(await files.blob(file, typeOf(file)), {
      premultiplyAlpha: "none", colorSpaceConversion: "none",
    });
  } catch (error) {
    if (error instanceof PlayerError) throw error;
    throw new PlayerError(`${file}: damaged, it can't be decoded as a picture. ${COPY_AGAIN}`);
  }
  requireSize(file, bitmap, width, height);
  return bitmap;
}

function typeOf(name) {
  return name.endsWith(".png") ? "image/png" : "image/webp";
}

function requireSize(name, actual, width, height) {
  if (actual.width !== width || actual.height !== height) {
    throw new PlayerError(
      `${name}: ${actual.width} x ${actual.height} pixels, but ${width} x ${height} in the manifest: it belongs to ` +
        `another export. ${COPY_AGAIN}`,
    );
  }
}

async function openClock(manifest, files) {
  const { fps, frames, dynamic } = manifest;
  if (dynamic === null) return new TimerClock(fps, frames);
  const video = newVideo();
  await loadVideo(video, await files.videoAddress(dynamic.file), dynamic.file);
  requireSize(dynamic.file, { width: video.videoWidth, height: video.videoHeight }, dynamic.width, dynamic.height);
  return new VideoClock(video, fps, frames, dynamic.file);
}

function showProgress(files, manifest) {
  const names = [manifest.static.file, manifest.dynamic?.file].filter(Boolean);
  const total = names.reduce((sum, name) => sum + (files.sizes[name] ?? 0), 0);
  const receivedBefore = files.received;
  files.onProgress = (received) => {
    const share = total > 0 ? Math.min(1, (received - receivedBefore) / total) : 0;
    element("progress").value = share;
    element("progress-text").textContent = `Loading ${Math.round(share * 100)} % of ${(total / 1e6).toFixed(1)} MB`;
  };
}

async function applyState(state, { player, compare }, { atOnce }) {
  const { clock, viewpoint, manifest } = player;
  const camera = manifest.cameras.find(({ name }) => name === state.camera);
  if (camera) viewpoint.moveToPose(camera, { atOnce });
  else viewpoint.moveTo(state.offset, { atOnce });
  player.setMode(state.mode);
  clock.setSpeed(state.speed);
  clock.setLoop(state.loop);
  if (clock.playing && !state.playing) clock.pause();
  await clock.seek(state.frame);
  if (state.compare === null || state.mode === "layers") {
    compare.stop();
  } else {
    compare.setShare(state.compare);
    const compared = camera?.video ? camera : compare.nearest;
    if (compared) compare.start(compared, { atOnce });
  }
  if (state.playing) clock.play();
}

function openToTests({ player, compare, recorder }) {
  const { clock, viewpoint, manifest } = player;
  return {
    async seek(frame) {
      clock.pause();
      await clock.seek(frame);
      player.draw();
    },
    play: () => clock.play(),
    pause: () => clock.pause(),
    setOffset(x, y, z) {
      viewpoint.moveTo([x, y, z], { atOnce: true });
      player.changed();
      player.draw();
    },
    setPose(T_cam_world, K = null) {
      viewpoint.moveToPose({ T_cam_world, K }, { atOnce: true });
      player.changed();
      player.draw();
    },
    setMode: (mode) => player.setMode(mode),
    render: async (width, height) => player.picture(width, height),
    compared: () => compare.ready,
    recorder,
    manifest,
    stats: player.stats,
    get state() {
      return {
        frame: clock.frame,
        playing: clock.playing,
        speed: clock.speed,
        loop: clock.loop,
        mode: player.mode,
        offset: [...viewpoint.offset],
        target: [...viewpoint.target],
        camera: viewpoint.preset,
        pose: viewpoint.camera,
        compare: compare.camera?.name ?? null,
        divider: compare.share,
        recording: recorder.active,
      };
    },
  };
}

async function start() {
  const files = new Files(window.maskvolumeOffline);
  const manifest = parseManifest(await files.text("manifest.json"));
  files.sizes = manifest.bytes;
  showProgress(files, manifest);
  const frame = element("frame");
  const viewpoint = new Viewpoint(manifest.view);
  viewpoint.eases = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  const [atlas, clock] = await Promise.all([loadAtlas(files, manifest.static), openClock(manifest, files)]);
  const scene = new Scene(manifest);
  const renderer = new Renderer(element("view"), scene, atlas);
  if (clock.video) renderer.upload(clock.video);
  const player = new Player({ manifest, scene, renderer, clock, viewpoint, frame });
  player.addEventListener("lost", () =>
    fail(new PlayerError("The graphics device was reset and the picture is lost. Reload the page.")),
  );
  clock.addEventListener("state", () => clock.error && fail(clock.error));
  const compare = new Compare(player, files, {
    layer: element("compared"), divider: element("divider"), sides: element("sides"), sideName: element("side-camera"),
  });
  const recorder = new Recorder(player);
  const state = parse(location.hash);
  await applyState({ ...state, playing: false }, { player, compare }, { atOnce: true });
  player.fit();
  player.draw();
  player.stats.firstPictureMs = performance.now();
  player.stats.firstPictureBytes = files.received;
  element("poster").style.opacity = 0;
  document.body.classList.remove("loading");
  const address = new Address(() => ({
    frame: clock.frame,
    offset: viewpoint.target,
    camera: viewpoint.preset,
    mode: player.mode,
    speed: clock.speed,
    loop: clock.loop,
    playing: clock.playing,
    compare: compare.camera ? compare.share : null,
  }));
  new Interface({ player, compare, recorder, address });
  address.onVisit((visited) => applyState(visited, { player, compare }, { atOnce: false }));
  if (state.playing) clock.play();
  window.player = openToTests({ player, compare, recorder });
  window.playerStarted(window.player);
}

window.addEventListener("unhandledrejection", (event) => {
  if (event.reason instanceof PlayerError) {
    event.preventDefault();
    fail(event.reason);
  }
});
start().catch(fail);
