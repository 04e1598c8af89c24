// Controls of the viewpoint: mouse, touch, wheel, keys and device tilt.

const DRAG = 1.3; // a drag across the picture moves this many times the distance from border to border
const WHEEL = 1 / 500; // share of the range ahead per pixel of the wheel
const PINCH = 1.6; // share of the range ahead when fingers move apart by a factor of e
const KEY = 0.9; // share of the limits per second while a key is held
const TILT = 18; // degrees of tilt from the middle to the border
const TAP = { pixels: 6, milliseconds: 350 };
const RELEASE = 180; // milliseconds after the last turn of the wheel

/** Dragging, pinching and the wheel on the picture; a tap calls `onTap`. `enabled` returns whether input moves the view. */
export function followPointers(player, { onTap, enabled }) {
  const { frame, viewpoint } = player;
  const [lx, ly, lz] = viewpoint.limits;
  const fingers = new Map();
  let began = null;
  let releaseTimer;

  const centre = () => {
    const points = [...fingers.values()];
    const x = points.reduce((sum, point) => sum + point.x, 0) / points.length;
    const y = points.reduce((sum, point) => sum + point.y, 0) / points.length;
    const spread = points.length > 1 ? Math.hypot(points[0].x - points[1].x, points[0].y - points[1].y) : null;
    return { x, y, spread };
  };
  const release = () => {
    viewpoint.held = false;
    player.schedule();
  };

  frame.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !enabled() || event.target.closest("[role=slider]")) return;
    frame.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    began = { x: event.clientX, y: event.clientY, time: event.timeStamp, moved: fingers.size > 1 };
  });
  frame.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return;
    const before = centre();
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const after = centre();
    began.moved ||= Math.hypot(event.clientX - began.x, event.clientY - began.y) > TAP.pixels;
    if (!began.moved) return;
    frame.classList.add("dragging");
    viewpoint.held = true;
    const ahead = before.spread ? lz * PINCH * Math.log(Math.max(after.spread, 1) / Math.max(before.spread, 1)) : 0;
    const { clientWidth, clientHeight } = frame;
    viewpoint.moveBy(
      (-2 * lx * DRAG * (after.x - before.x)) / clientWidth,
      (-2 * ly * DRAG * (after.y - before.y)) / clientHeight,
      ahead,
    );
    player.changed();
  });
  const lift = (event) => {
    if (!fingers.delete(event.pointerId)) return;
    if (fingers.size > 0) return;
    frame.classList.remove("dragging");
    release();
    if (event.type === "pointerup" && !began.moved && event.timeStamp - began.time < TAP.milliseconds) onTap();
  };
  frame.addEventListener("pointerup", lift);
  frame.addEventListener("pointercancel", lift);

  frame.addEventListener(
    "wheel",
    (event) => {
      if (event.ctrlKey || !enabled()) return; // ctrl is the page's zoom
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 20 : 1);
      viewpoint.held = true;
      viewpoint.moveBy(0, 0, -pixels * WHEEL * lz);
      player.changed();
      clearTimeout(releaseTimer);
      releaseTimer = setTimeout(release, RELEASE);
    },
    { passive: false },
  );
}

const MOVES = {
  ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowUp: [0, -1, 0], ArrowDown: [0, 1, 0],
  "+": [0, 0, 1], "=": [0, 0, 1], "-": [0, 0, -1], _: [0, 0, -1],
};

/** Keys that move while they are held; `actions` maps the names of other keys to their actions. */
export function followKeys(player, { actions, enabled }) {
  const { viewpoint } = player;
  const held = new Map(); // by key code, since the key name changes with shift

  const release = () => {
    if (held.size === 0) return;
    held.clear();
    viewpoint.held = false;
    player.schedule();
  };
  player.drives.push((seconds) => {
    for (const move of held.values()) {
      viewpoint.moveBy(...move.map((value, axis) => value * KEY * viewpoint.limits[axis] * seconds));
    }
    return held.size > 0;
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    // After a dialog closes, its focused element keeps the focus for a moment.
    if (!event.target.closest("dialog") && isTaken(event.target, name)) return;
    if (name in MOVES) {
      event.preventDefault();
      if (!enabled() || held.has(event.code)) return;
      held.set(event.code, MOVES[name]);
      viewpoint.held = true;
      player.changed();
      return;
    }
    const action = actions[name];
    if (!action) return;
    event.preventDefault();
    if (!event.repeat || action.repeats) action.run(event);
  });
  document.addEventListener("keyup", (event) => {
    if (held.delete(event.code) && held.size === 0) {
      viewpoint.held = false;
      player.schedule();
    }
  });
  window.addEventListener("blur", release);
}

// Keys that the focused element needs itself.
function isTaken(element, name) {
  if (element.closest("[role=slider]")) return name.startsWith("Arrow") || name === "Home" || name === "End";
  const isSlider = element.matches("input[type=range]");
  if (isSlider) return name.startsWith("Arrow") || ["Home", "End", "PageUp", "PageDown"].includes(name);
  if (element.matches("select, textarea")) return true;
  return element.matches("button, a") && (name === " " || name === "Enter");
}

/** Looks around by tilting a phone. */
export class Tilt {
  constructor(player, enabled) {
    this.player = player;
    this.enabled = enabled;
    this.active = false;
  }

  /** Whether the device may have a tilt sensor. */
  static get exists() {
    return "DeviceOrientationEvent" in window && matchMedia("(pointer: coarse)").matches;
  }

  /** Start; returns the reason why it can't, or null. */
  async start() {
    if (!window.isSecureContext) return "Tilting needs a page served over https or from this device.";
    if (DeviceOrientationEvent.requestPermission) {
      const answer = await DeviceOrientationEvent.requestPermission().catch(() => "denied");
      if (answer !== "granted") return "The browser doesn't allow this page to use the tilt sensor.";
    }
    this.active = true;
    this.#first = null;
    window.addEventListener("deviceorientation", this.#follow);
    return null;
  }

  stop() {
    this.active = false;
    window.removeEventListener("deviceorientation", this.#follow);
  }

  #first = null;

  #follow = ({ beta, gamma }) => {
    if (beta === null || gamma === null || !this.enabled()) return;
    const { viewpoint } = this.player;
    // The rotation of the screen: held sideways, the axes swap.
    const turned = ((screen.orientation?.angle ?? 0) * Math.PI) / 180;
    const across = gamma * Math.cos(turned) + beta * Math.sin(turned);
    const along = beta * Math.cos(turned) - gamma * Math.sin(turned);
    this.#first ??= { across, along, offset: viewpoint.target };
    const [lx, ly] = viewpoint.limits;
    const { offset } = this.#first;
    const x = offset[0] + (lx * (across - this.#first.across)) / TILT;
    const y = offset[1] + (ly * (along - this.#first.along)) / TILT;
    viewpoint.moveTo([x, y, viewpoint.target[2]]);
    this.player.changed();
  };
}
