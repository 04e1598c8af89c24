// Parses manifest.json, the description of the folder, and checks it once, so that other modules can rely on it.

import { COPY_AGAIN, PlayerError } from "player/errors.js";

const NAME = "manifest.json";
const FORMAT = "maskvolume-web";
const VERSION = 1;
const MOST_LAYERS = 64;

/** Parse and check the manifest. */
export function parseManifest(text) {
  let manifest;
  try {
    manifest = JSON.parse(text);
  } catch {
    throw new PlayerError(`${NAME}: damaged or cut short. ${COPY_AGAIN}`);
  }
  if (manifest?.format !== FORMAT) throw new PlayerError(`${NAME}: not the manifest of an exported clip. ${COPY_AGAIN}`);
  if (manifest.version !== VERSION) {
    throw new PlayerError(
      `${NAME}: version ${manifest.version}, this player supports version ${VERSION}. Export the clip again.`,
    );
  }
  check(manifest);
  return manifest;
}

function check(manifest) {
  const { picture, mpi, layers, tile, view, limits = view?.limits, disparity, cameras } = manifest;
  require("fps", isPositive(manifest.fps));
  require("frames", isCount(manifest.frames));
  require("picture", isCount(picture?.width) && isCount(picture?.height));
  require("mpi", isCount(mpi?.width) && isCount(mpi?.height) && isCamera(mpi));
  require("layers", Array.isArray(layers) && layers.length >= 1 && layers.length <= MOST_LAYERS);
  require("layers", layers.every((layer) => isPositive(layer?.depth)));
  require("tile", isCount(tile?.size) && Number.isInteger(tile.gutter) && tile.gutter >= 0);
  require("view", isCamera(view) && isPositive(view.focus) && isNumbers(view.down, 3));
  require("view.limits", [limits?.x, limits?.y, limits?.z].every((value) => Number.isFinite(value) && value >= 0));
  require("disparity", isPositive(disparity?.near) && isPositive(disparity?.far) && disparity.near <= disparity.far);
  require("cameras", Array.isArray(cameras) && cameras.every((camera) => isCamera(camera) && isName(camera.name)));
  checkAtlas("static", manifest);
  if (manifest.dynamic !== null) checkAtlas("dynamic", manifest);
  require("bytes", manifest.bytes !== null && typeof manifest.bytes === "object");
}

function checkAtlas(key, { [key]: atlas, layers, tile, mpi }) {
  const slot = tile.size + 2 * tile.gutter;
  require(key, isName(atlas?.file) && isCount(atlas.width) && isCount(atlas.height) && isCount(atlas.columns));
  require(`${key}.columns`, atlas.columns * slot <= atlas.width && atlas.height % 2 === 0);
  const tiles = atlas.tiles;
  require(`${key}.tiles`, Array.isArray(tiles) && tiles.length % 3 === 0);
  const ends = [layers.length, Math.ceil(mpi.width / tile.size), Math.ceil(mpi.height / tile.size)];
  require(`${key}.tiles`, tiles.every((value, i) => Number.isInteger(value) && value >= 0 && value < ends[i % 3]));
  const rows = Math.ceil(tiles.length / 3 / atlas.columns);
  require(`${key}.height`, rows * slot <= atlas.height / 2);
}

function require(key, holds) {
  if (!holds) throw new PlayerError(`${NAME}: "${key}" is missing or wrong. ${COPY_AGAIN}`);
}

function isPositive(value) {
  return Number.isFinite(value) && value > 0;
}

function isCount(value) {
  return Number.isInteger(value) && value >= 1;
}

function isName(value) {
  return typeof value === "string" && value !== "";
}

function isNumbers(value, length) {
  return Array.isArray(value) && value.length === length && value.every(Number.isFinite);
}

function isCamera(value) {
  return isNumbers(value?.K, 9) && isNumbers(value.T_cam_world, 16) && isPositive(value.K[0]) && isPositive(value.K[4]);
}
