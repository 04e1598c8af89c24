// The viewpoint: an offset from the rig's centre within limits, or the exact pose of a camera.

import {
  boundedPull, invertRigid, lookAt, multiply, placeOf, quaternionOf, rotationOf, slerp, softLimits, withinLimits,
} from "player/camera.js";

const LOOKING_AT = [1, 0, 0, 0]; // no rotation relative to looking at the focus point
const EASING = 0.09; // seconds in which the distance to the target shrinks to 1 / e
const TURNING = 0.22; // the same for a rotation
const ARRIVED = 1e-4; // relative to the limits, and in radians

export class Viewpoint {
  /** @param view the manifest's `view` */
  constructor(view) {
    this.K0 = view.K;
    this.T_center_world = view.T_cam_world;
    this.T_world_center = invertRigid(view.T_cam_world);
    this.focus = view.focus;
    this.down = view.down;
    this.limits = [view.limits.x, view.limits.y, view.limits.z];
    this.scale = Math.max(...this.limits, 1e-9);
    this.held = false; // while the user drags, it can exceed the limits a little
    this.eases = true;
    this.#aim([0, 0, 0], LOOKING_AT, this.K0, null);
    this.#arrive();
  }

  /** The current camera: world to camera, and K at the picture's size. */
  get camera() {
    const T_center_cam = multiply(lookAt(this.offset, this.focus, this.down), rotationOf(this.rotation));
    return { T_cam_world: invertRigid(multiply(this.T_world_center, T_center_cam)), K: this.K };
  }

  /** The offset that it moves to, in scene units. */
  get target() {
    return this.#goal.offset;
  }

  /** Name of the camera whose pose it has or moves to; null for any other viewpoint. */
  get preset() {
    return this.#goal.name;
  }

  /** Move by a distance, in scene units; leaves a camera's pose. */
  moveBy(x, y, z) {
    const { offset } = this.#goal;
    this.#aim(boundedPull([offset[0] + x, offset[1] + y, offset[2] + z], this.limits), LOOKING_AT, this.K0, null);
  }

  /** Move to an offset. */
  moveTo(offset, { atOnce = false } = {}) {
    this.#aim(withinLimits(offset, this.limits), LOOKING_AT, this.K0, null);
    if (atOnce) this.#arrive();
  }

  /** Move to an exact pose, which may be outside the limits. */
  moveToPose({ T_cam_world, K, name = null }, { atOnce = false } = {}) {
    const offset = placeOf(T_cam_world, this.T_center_world);
    const T_cam_center = multiply(T_cam_world, this.T_world_center);
    const residual = multiply(invertRigid(lookAt(offset, this.focus, this.down)), invertRigid(T_cam_center));
    this.#aim(offset, quaternionOf(residual), K ?? this.K0, name, true);
    if (atOnce) this.#arrive();
  }

  /** Advance by a number of seconds; returns whether anything moved. */
  step(seconds) {
    const goal = this.#goal;
    if (!goal.isPose && !this.held) goal.offset = withinLimits(goal.offset, this.limits);
    const target = goal.isPose ? goal.offset : softLimits(goal.offset, this.limits);
    const distance = Math.hypot(...target.map((value, axis) => value - this.offset[axis])) / this.scale;
    const angle = 2 * Math.acos(Math.min(1, Math.abs(this.rotation.reduce((sum, q, i) => sum + q * goal.rotation[i], 0))));
    const zoom = Math.max(...this.K.map((value, i) => Math.abs(value - goal.K[i])));
    if (distance === 0 && zoom === 0 && this.rotation === goal.rotation) return false;
    if (!this.eases || (distance < ARRIVED && angle < ARRIVED && zoom < 0.01)) {
      [this.offset, this.rotation, this.K] = [target, goal.rotation, goal.K];
      return true;
    }
    const near = 1 - Math.exp(-seconds / EASING);
    const turned = 1 - Math.exp(-seconds / TURNING);
    this.offset = this.offset.map((value, axis) => value + (target[axis] - value) * near);
    this.rotation = slerp(this.rotation, goal.rotation, turned);
    this.K = this.K.map((value, i) => value + (goal.K[i] - value) * turned);
    return true;
  }

  #goal;

  #aim(offset, rotation, K, name, isPose = false) {
    this.#goal = { offset, rotation, K, name, isPose };
  }

  #arrive() {
    [this.offset, this.rotation, this.K] = [this.#goal.offset, this.#goal.rotation, this.#goal.K];
  }
}
