// Camera geometry, in float64 and independent of the page: poses, homographies, limits of viewpoints, path files.
//
// Convention: as in maskvolume/: OpenCV axes (x right, y down, z forward), T_dst_src maps source to destination, K in
// pixels, pixel centres at +0.5. Matrices are flat arrays, row by row: 9 numbers (3 x 3) or 16 (4 x 4).

// How far a viewpoint can be dragged beyond its limit, as a share of the limit.
const GIVE = 0.12;

/** The product of two n x n matrices. */
export function multiply(A, B) {
  const n = Math.sqrt(A.length);
  const product = new Array(n * n).fill(0);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      for (let k = 0; k < n; k++) product[i * n + j] += A[i * n + k] * B[k * n + j];
    }
  }
  return product;
}

/** The inverse of a rotation and translation, 4 x 4. */
export function invertRigid(T) {
  const [a, b, c, x, d, e, f, y, g, h, i, z] = T;
  return [
    a, d, g, -(a * x + d * y + g * z),
    b, e, h, -(b * x + e * y + h * z),
    c, f, i, -(c * x + f * y + i * z),
    0, 0, 0, 1,
  ];
}

/** The inverse of upper triangular intrinsics. */
export function invertIntrinsics(K) {
  const [fx, skew, cx, , fy, cy] = K;
  return [1 / fx, -skew / (fx * fy), (skew * cy - cx * fy) / (fx * fy), 0, 1 / fy, -cy / fy, 0, 0, 1];
}

/** Intrinsics of the same view at another picture size: scaled per axis. */
export function scaleIntrinsics(K, sx, sy) {
  return [K[0] * sx, K[1] * sx, K[2] * sx, K[3] * sy, K[4] * sy, K[5] * sy, K[6], K[7], K[8]];
}

/** The pose `T_center_cam` at an offset in the centre's frame that looks at the point (0, 0, focus) of that frame. */
export function lookAt(offset, focus, down) {
  const z = normalize([-offset[0], -offset[1], focus - offset[2]]);
  const x = normalize(cross(down, z));
  const y = cross(z, x);
  return [
    x[0], y[0], z[0], offset[0],
    x[1], y[1], z[1], offset[1],
    x[2], y[2], z[2], offset[2],
    0, 0, 0, 1,
  ];
}

/**
 * `H_target_mpi`: a pixel of a plane z = depth of the MPI's camera to one of the target.
 *
 * K_t (R + t n^T / depth) K_mpi^-1 with n = (0, 0, 1). The third homogeneous coordinate of a mapped pixel (x, y, 1) is
 * its depth in the target divided by `depth`: positive in front of it.
 */
export function planeHomography(mpi, target, depth) {
  const T = multiply(target.T_cam_world, invertRigid(mpi.T_cam_world));
  const M = [
    T[0], T[1], T[2] + T[3] / depth,
    T[4], T[5], T[6] + T[7] / depth,
    T[8], T[9], T[10] + T[11] / depth,
  ];
  return multiply(target.K, multiply(M, invertIntrinsics(mpi.K)));
}

/** The matrix from pixels of a width x height picture to clip coordinates; row 0 of the picture is at y = -1. */
export function clipOfPixels(width, height) {
  return [2 / width, 0, -1, 0, 2 / height, -1, 0, 0, 1];
}

/** Clamp an offset to its limits: an ellipse in x and y, and the same distance ahead and back. */
export function withinLimits(offset, limits) {
  return limited(offset, limits, (r) => Math.min(r, 1));
}

/** Compress an offset beyond its limits with growing resistance, for display while the user drags. */
export function softLimits(offset, limits) {
  return limited(offset, limits, (r) => (r <= 1 ? r : 1 + GIVE * (1 - Math.exp((1 - r) / GIVE))));
}

/** Clamp an offset to `most` times the limits, so that the way back is short. */
export function boundedPull(offset, limits, most = 1.5) {
  return limited(offset, limits, (r) => Math.min(r, most));
}

/** Distance of an offset from the middle, 1 at the limits: in x and y, and in z. */
export function reachOf(offset, limits) {
  const share = offset.map((value, axis) => (limits[axis] > 0 ? value / limits[axis] : 0));
  return [Math.hypot(share[0], share[1]), Math.abs(share[2])];
}

function limited(offset, limits, map) {
  const [flat, deep] = reachOf(offset, limits).map((r) => (r > 0 ? map(r) / r : 1));
  return [offset[0] * flat, offset[1] * flat, offset[2] * deep].map((value, axis) => (limits[axis] > 0 ? value : 0));
}

/** The unit quaternion (w, x, y, z) of the rotation of a 4 x 4 pose. */
export function quaternionOf(T) {
  const [a, b, c, , d, e, f, , g, h, i] = T;
  const trace = a + e + i;
  let q;
  if (trace > 0) {
    q = [1 + trace, h - f, c - g, d - b];
  } else if (a >= e && a >= i) {
    q = [h - f, 1 + a - e - i, b + d, c + g];
  } else if (e >= i) {
    q = [c - g, b + d, 1 - a + e - i, f + h];
  } else {
    q = [d - b, c + g, f + h, 1 - a - e + i];
  }
  const norm = Math.hypot(...q);
  return q.map((value) => value / norm);
}

/** The 4 x 4 pose with the rotation of a unit quaternion. */
export function rotationOf([w, x, y, z]) {
  return [
    1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), 0,
    2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x), 0,
    2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y), 0,
    0, 0, 0, 1,
  ];
}

/** Interpolate between two unit quaternions. */
export function slerp(from, to, share) {
  let dot = from.reduce((sum, value, i) => sum + value * to[i], 0);
  const sign = dot < 0 ? -1 : 1;
  dot = Math.min(1, Math.abs(dot));
  const angle = Math.acos(dot);
  const weight = (part) => (angle < 1e-6 ? part : Math.sin(part * angle) / Math.sin(angle));
  const [a, b] = [weight(1 - share), weight(share)];
  const mixed = from.map((value, i) => a * value + b * sign * to[i]);
  const norm = Math.hypot(...mixed);
  return mixed.map((value) => value / norm);
}

/** The position of a camera in the centre's frame. */
export function placeOf(T_cam_world, T_center_world) {
  const T = multiply(T_center_world, invertRigid(T_cam_world));
  return [T[3], T[7], T[11]];
}

/** Index of the position nearest to an offset; -1 if there is none. */
export function nearestPlace(offset, places) {
  let best = -1;
  let least = Infinity;
  places.forEach((place, index) => {
    const distance = Math.hypot(place[0] - offset[0], place[1] - offset[1], place[2] - offset[2]);
    if (distance < least) [best, least] = [index, distance];
  });
  return best;
}

/**
 * The text of a path file: the number of poses, then 15 numbers per line, column by column, camera to world:
 * [right, up, back, t, (height, width, focal length)].
 */
export function pathText(poses, width, height, focal) {
  const lines = poses.map((T_cam_world) => {
    const T = invertRigid(T_cam_world);
    const numbers = [T[0], T[4], T[8], -T[1], -T[5], -T[9], -T[2], -T[6], -T[10], T[3], T[7], T[11]];
    numbers.push(height, width, focal);
    return numbers.map((value) => String(value + 0)).join(" "); // avoids -0
  });
  return [String(poses.length), ...lines].join("\n") + "\n";
}

function cross(a, b) {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}

function normalize(a) {
  const norm = Math.hypot(...a);
  return a.map((value) => value / norm);
}
