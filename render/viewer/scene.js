// The tiles of the manifest as instances to draw, and the matrices that put layers into a picture.

import { clipOfPixels, multiply, planeHomography, scaleIntrinsics } from "player/camera.js";
import { CARD, TILE_MOVING, TILE_STILL } from "player/shaders.js";

const APART = { turn: 0.72, tilt: 0.24, depth: 1.5, distance: 3.1, focal: 2.2 }; // lengths in widths of a layer

export class Scene {
  /** @param manifest a checked manifest */
  constructor(manifest) {
    const { mpi, layers, tile, disparity } = manifest;
    this.mpi = mpi;
    this.width = mpi.width;
    this.height = mpi.height;
    this.tile = tile;
    this.picture = manifest.picture;
    this.still = manifest.static;
    this.moving = manifest.dynamic;
    this.depths = layers.map((layer) => layer.depth);
    const [low, high] = [1 / disparity.far, 1 / disparity.near];
    this.disparities = new Float32Array(this.depths.map((depth) => (1 / depth - low) / Math.max(high - low, 1e-12)));
    const tiles = [...listTiles(this.still, TILE_STILL), ...(this.moving ? listTiles(this.moving, TILE_MOVING) : [])];
    const cards = this.depths.map((_, layer) => [layer, 0, 0, CARD, 0]);
    this.instances = packed(tiles);
    this.cards = packed([...cards, ...tiles]);
  }

  /** The matrix of each layer from pixels to clip coordinates, for a camera with K at the picture's size. */
  clips({ T_cam_world, K }, width, height) {
    const target = { T_cam_world, K: scaleIntrinsics(K, width / this.picture.width, height / this.picture.height) };
    const clip = clipOfPixels(width, height);
    return this.depths.map((depth) => multiply(clip, planeHomography(this.mpi, target, depth)));
  }

  /** The same for separated layers: cards one behind the other, seen from the side; (x, y) in -1 to 1 rotates. */
  clipsApart([x, y], width, height) {
    const turn = APART.turn - 0.5 * x;
    const tilt = APART.tilt + 0.35 * y;
    const [ct, st, cp, sp] = [Math.cos(turn), Math.sin(turn), Math.cos(tilt), Math.sin(tilt)];
    const R = multiply([1, 0, 0, 0, cp, -sp, 0, sp, cp], [ct, 0, st, 0, 1, 0, -st, 0, ct]);
    const focal = Math.min(APART.focal, (APART.focal * width * 0.62) / height);
    const project = [focal, 0, 0, 0, (focal * width) / height, 0, 0, 0, 1];
    const last = Math.max(1, this.depths.length - 1);
    return this.depths.map((_, layer) => {
      const z = APART.depth * (0.5 - layer / last);
      const card = [1 / this.width, 0, -0.5, 0, 1 / this.width, -0.5 * (this.height / this.width), 0, 0, z];
      const turned = multiply(R, card);
      turned[8] += APART.distance;
      return multiply(project, turned);
    });
  }
}

function* listTiles({ tiles }, kind) {
  for (let i = 0; i < tiles.length; i += 3) yield [tiles[i], tiles[i + 1], tiles[i + 2], kind, i / 3];
}

// The farthest layer first; within a layer the card comes first; tiles don't overlap.
function packed(instances) {
  const order = [...instances].sort((a, b) => a[0] - b[0] || Number(b[3] === CARD) - Number(a[3] === CARD));
  return new Uint32Array(order.flat());
}
