// The programs that run on the GPU. Row 0 of every frame buffer is the top row of the picture.

export const TILE_STILL = 0;
export const TILE_MOVING = 1;
export const CARD = 2; // the outline of a whole layer

export const TILES_VERTEX = `#version 300 es
precision highp float;
precision highp int;
layout(location = 0) in uvec4 tile; // layer, column, row, kind
layout(location = 1) in uint slot; // number of its slot in its atlas
uniform mat3 clipOfLayer[LAYERS]; // pixel of a layer to clip coordinates
uniform vec2 layerSize;
uniform float tileSize, gutter;
uniform vec2 columns; // of the atlases
flat out uint kind;
flat out uint layer;
out vec2 texel; // of the atlas; of the layer for a card
void main() {
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1);
  layer = tile.x;
  kind = tile.w;
  vec2 begin = vec2(tile.yz) * tileSize;
  vec2 point = kind == ${CARD}u ? corner * layerSize : min(begin + corner * tileSize, layerSize);
  uint across = uint(kind == ${TILE_MOVING}u ? columns.y : columns.x);
  vec2 inSlot = point - begin + gutter;
  texel = kind == ${CARD}u ? point : vec2(slot % across, slot / across) * (tileSize + 2.0 * gutter) + inSlot;
  vec3 clip = clipOfLayer[layer] * vec3(point, 1.0);
  gl_Position = vec4(clip.xy, 0.0, clip.z);
}`;

export const TILES_FRAGMENT = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
uniform sampler2D still, moving;
uniform vec2 stillSize, movingSize, layerSize;
uniform float values[LAYERS]; // disparity of each layer
uniform int mode; // 0 color, 1 disparity, 2 mask
flat in uint kind;
flat in uint layer;
in vec2 texel;
out vec4 premultiplied;
const vec3 MOVING = vec3(1.0, 0.55, 0.1);
vec4 look(sampler2D atlas, vec2 size) {
  vec2 at = texel / size;
  float opacity = textureLod(atlas, at + vec2(0.0, 0.5), 0.0).g;
  if (opacity < 0.002) discard; // most of a layer: skips the colour look-up and blending
  return vec4(textureLod(atlas, at, 0.0).rgb, opacity);
}
vec4 outline() {
  vec2 rim = min(texel, layerSize - texel) / fwidth(texel);
  float line = 1.0 - smoothstep(1.0, 2.0, min(rim.x, rim.y));
  return vec4(0.42, 0.52, 0.66, 1.0) * max(0.8 * line, 0.05);
}
void main() {
  if (kind == ${CARD}u) {
    premultiplied = outline();
    return;
  }
  vec4 seen = kind == ${TILE_MOVING}u ? look(moving, movingSize) : look(still, stillSize);
  vec3 color = seen.rgb;
  if (mode == 1) color = vec3(values[layer]);
  if (mode == 2) {
    float grey = dot(color, vec3(0.2126, 0.7152, 0.0722));
    color = kind == ${TILE_MOVING}u ? mix(color, MOVING, 0.45) : vec3(0.3 * grey);
  }
  premultiplied = vec4(color * seen.a, seen.a);
}`;

export const WHOLE_VERTEX = `#version 300 es
void main() {
  gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0.0, 1.0);
}`;

// A level of half the size: like avg_pool2d and the division in maskvolume/ops/filling.py, with repeated borders.
export const PULL_FRAGMENT = `#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D fine;
out vec4 half_;
void main() {
  ivec2 last = textureSize(fine, 0) - 1;
  ivec2 at = ivec2(gl_FragCoord.xy) * 2;
  vec4 sum = vec4(0.0);
  for (int i = 0; i < 4; i++) {
    vec4 value = texelFetch(fine, min(at + ivec2(i & 1, i >> 1), last), 0);
    sum += vec4(value.rgb, clamp(value.a, 0.0, 1.0));
  }
  float sure = min(sum.a, 1.0);
  half_ = vec4(sum.rgb / max(sum.a, 1e-6) * sure, sure);
}`;

// Missing pixels of a level come from the coarser one; those of the coarsest are its mean.
const FILL = `
uniform sampler2D level, coarser;
uniform bool coarsest;
vec4 fill(vec2 point) {
  ivec2 at = ivec2(point);
  vec4 value = texelFetch(level, at, 0);
  value.a = clamp(value.a, 0.0, 1.0);
  vec3 around = vec3(0.0);
  if (coarsest) {
    ivec2 size = textureSize(level, 0);
    vec4 sum = vec4(0.0);
    for (int y = 0; y < size.y; y++) {
      for (int x = 0; x < size.x; x++) {
        vec4 each = texelFetch(level, ivec2(x, y), 0);
        sum += vec4(each.rgb, clamp(each.a, 0.0, 1.0));
      }
    }
    sum /= float(size.x * size.y);
    around = sum.rgb / max(sum.a, 1e-6);
  } else {
    around = textureLod(coarser, point / (2.0 * vec2(textureSize(coarser, 0))), 0.0).rgb;
  }
  return vec4(value.rgb + (1.0 - value.a) * around, value.a);
}`;

export const PUSH_FRAGMENT = `#version 300 es
precision highp float;
precision highp sampler2D;
out vec4 filled;
${FILL}
void main() {
  filled = fill(gl_FragCoord.xy);
}`;

// OpenCV's "inferno" at 16 points, for disparities.
const INFERNO = [
  0x000004, 0x0c0826, 0x240c4f, 0x420a68, 0x5d126e, 0x781c6d, 0x932667, 0xae305c,
  0xc73e4c, 0xdd513a, 0xed6925, 0xf8850f, 0xfca50a, 0xfac62d, 0xf2e661, 0xfcffa4,
].map((color) => `vec3(${color >> 16}, ${(color >> 8) & 255}, ${color & 255})`);

export const OUTPUT_FRAGMENT = `#version 300 es
precision highp float;
precision highp sampler2D;
uniform bool colors, flips;
out vec4 color;
${FILL}
const vec3 INFERNO[16] = vec3[16](${INFERNO.join(", ")});
void main() {
  vec2 point = gl_FragCoord.xy;
  if (flips) point.y = float(textureSize(level, 0).y) - point.y;
  vec3 shown = fill(point).rgb;
  if (colors) {
    float at = clamp(shown.r, 0.0, 1.0) * 15.0;
    int below = min(int(at), 14);
    shown = mix(INFERNO[below], INFERNO[below + 1], at - float(below)) / 255.0;
  }
  color = vec4(shown, 1.0);
}`;
