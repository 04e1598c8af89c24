// Draws the tiles of all layers with WebGL2: one call for the tiles, then uncovered pixels are filled.

import { PlayerError } from "player/errors.js";
import * as shaders from "player/shaders.js";

const MODES = { color: 0, disparity: 1, mask: 2, layers: 0 };
const BACKDROP = [0.045, 0.053, 0.07];

export class Renderer {
  /**
   * @param canvas to draw to
   * @param scene the tiles, from scene.js
   * @param atlas decoded picture of the static tiles
   */
  constructor(canvas, scene, atlas) {
    const gl = canvas.getContext("webgl2", {
      alpha: false, antialias: false, depth: false, stencil: false, powerPreference: "high-performance",
    });
    if (!gl) throw noWebGL();
    this.gl = gl;
    this.canvas = canvas;
    this.scene = scene;
    this.uploadedBytes = 0; // of the latest frame of the video
    const floats = gl.getExtension("EXT_color_buffer_float") || gl.getExtension("EXT_color_buffer_half_float");
    this.format = floats ? "RGBA16F" : "RGBA8";
    this.#requireSize(scene.still);
    if (scene.moving) this.#requireSize(scene.moving);
    const constants = { LAYERS: scene.depths.length };
    this.tiles = this.#program(shaders.TILES_VERTEX, shaders.TILES_FRAGMENT, constants);
    this.pull = this.#program(shaders.WHOLE_VERTEX, shaders.PULL_FRAGMENT);
    this.push = this.#program(shaders.WHOLE_VERTEX, shaders.PUSH_FRAGMENT);
    this.output = this.#program(shaders.WHOLE_VERTEX, shaders.OUTPUT_FRAGMENT);
    this.whole = gl.createVertexArray();
    this.instances = this.#instances(scene.instances);
    this.cards = this.#instances(scene.cards);
    this.still = this.#texture();
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, atlas);
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.BROWSER_DEFAULT_WEBGL);
    this.moving = this.#texture();
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  }

  /** Upload a video's current frame, or a VideoFrame. */
  upload(video) {
    const { gl } = this;
    gl.bindTexture(gl.TEXTURE_2D, this.moving);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, video);
    this.uploadedBytes = 4 * (video.videoWidth ?? video.displayWidth) * (video.videoHeight ?? video.displayHeight);
  }

  /**
   * Draw to the canvas, at its size.
   *
   * @param clips the matrix of each layer from pixels to clip coordinates (3 x 3, row by row)
   * @param mode "color", "disparity", "mask" or "layers"
   */
  draw(clips, mode) {
    const { width, height } = this.canvas;
    if (this.targets?.width !== width || this.targets?.height !== height) {
      if (this.targets) this.#release(this.targets);
      this.targets = this.#newTargets(width, height);
    }
    this.#render(this.targets, clips, mode, null);
  }

  /** Draw off screen and return the pixels, RGBA, starting with the top row. */
  read(width, height, clips, mode) {
    const { gl } = this;
    const targets = this.#newTargets(width, height);
    const out = this.#newTarget(width, height, "RGBA8");
    this.#render(targets, clips, mode, out.buffer);
    const pixels = new Uint8ClampedArray(4 * width * height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, out.buffer);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
    this.#release(targets);
    this.#release({ levels: [out], filled: [] });
    return pixels;
  }

  #render(targets, clips, mode, into) {
    const { gl } = this;
    const [first] = targets.levels;
    const apart = mode === "layers";
    gl.bindFramebuffer(gl.FRAMEBUFFER, first.buffer);
    gl.viewport(0, 0, first.width, first.height);
    gl.clearColor(...(apart ? [...BACKDROP, 1] : [0, 0, 0, 0]));
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.#drawTiles(clips, MODES[mode], apart ? this.cards : this.instances);
    gl.disable(gl.BLEND);
    gl.bindVertexArray(this.whole);
    if (!apart) this.#fill(targets);
    this.#show(targets, into, mode === "disparity");
  }

  #drawTiles(clips, mode, instances) {
    const { gl, scene } = this;
    const { program, at } = this.tiles;
    gl.useProgram(program);
    gl.bindVertexArray(instances.array);
    this.#bind(0, this.still);
    this.#bind(1, this.moving);
    gl.uniform1i(at.still, 0);
    gl.uniform1i(at.moving, 1);
    const { still, moving } = scene;
    gl.uniform2f(at.stillSize, still.width, still.height);
    gl.uniform2f(at.movingSize, moving?.width ?? 1, moving?.height ?? 1);
    gl.uniform2f(at.columns, still.columns, moving?.columns ?? 1);
    gl.uniform2f(at.layerSize, scene.width, scene.height);
    gl.uniform1f(at.tileSize, scene.tile.size);
    gl.uniform1f(at.gutter, scene.tile.gutter);
    gl.uniform1i(at.mode, mode);
    gl.uniform1fv(at.values, scene.disparities);
    gl.uniformMatrix3fv(at.clipOfLayer, true, clips.flat());
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, instances.count);
  }

  #fill({ levels, filled }) {
    const { gl } = this;
    gl.useProgram(this.pull.program);
    gl.uniform1i(this.pull.at.fine, 0);
    for (let i = 1; i < levels.length; i++) {
      this.#bind(0, levels[i - 1].texture);
      this.#cover(levels[i]);
    }
    gl.useProgram(this.push.program);
    for (let i = levels.length - 1; i >= 1; i--) {
      this.#bindLevel(this.push, levels, filled, i);
      this.#cover(filled[i]);
    }
  }

  #show({ levels, filled, width, height }, into, colors) {
    const { gl } = this;
    const { program, at } = this.output;
    gl.useProgram(program);
    this.#bindLevel(this.output, levels, filled, 0);
    gl.uniform1i(at.colors, colors);
    gl.uniform1i(at.flips, into === null);
    this.#cover({ buffer: into, width, height });
  }

  #bindLevel({ at }, levels, filled, i) {
    const { gl } = this;
    this.#bind(0, levels[i].texture);
    this.#bind(1, (filled[i + 1] ?? levels[i]).texture);
    gl.uniform1i(at.level, 0);
    gl.uniform1i(at.coarser, 1);
    gl.uniform1i(at.coarsest, i === levels.length - 1);
  }

  #cover({ buffer, width, height }) {
    const { gl } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, buffer);
    gl.viewport(0, 0, width, height);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  #bind(unit, texture) {
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.activeTexture(gl.TEXTURE0);
  }

  // Levels of half the size each, down to a side of 2; `filled` has the same levels except the finest.
  #newTargets(width, height) {
    const levels = [this.#newTarget(width, height, this.format)];
    const filled = [null];
    while (Math.min(levels.at(-1).width, levels.at(-1).height) > 2) {
      const { width: w, height: h } = levels.at(-1);
      const size = [Math.ceil(w / 2), Math.ceil(h / 2)];
      levels.push(this.#newTarget(...size, this.format));
      filled.push(this.#newTarget(...size, this.format));
    }
    return { levels, filled, width, height };
  }

  #newTarget(width, height, format) {
    const { gl } = this;
    const texture = this.#texture();
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl[format], width, height);
    const buffer = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, buffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    return { texture, buffer, width, height };
  }

  #release({ levels, filled }) {
    for (const target of [...levels, ...filled]) {
      if (target === null) continue;
      this.gl.deleteFramebuffer(target.buffer);
      this.gl.deleteTexture(target.texture);
    }
  }

  #texture() {
    const { gl } = this;
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    for (const name of ["TEXTURE_MIN_FILTER", "TEXTURE_MAG_FILTER"]) gl.texParameteri(gl.TEXTURE_2D, gl[name], gl.LINEAR);
    for (const name of ["TEXTURE_WRAP_S", "TEXTURE_WRAP_T"]) gl.texParameteri(gl.TEXTURE_2D, gl[name], gl.CLAMP_TO_EDGE);
    return texture;
  }

  // Five numbers per instance: layer, column, row, kind, slot.
  #instances(data) {
    const { gl } = this;
    const array = gl.createVertexArray();
    gl.bindVertexArray(array);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    for (const [location, count] of [[0, 4], [1, 1]]) {
      gl.enableVertexAttribArray(location);
      gl.vertexAttribIPointer(location, count, gl.UNSIGNED_INT, 20, location * 16);
      gl.vertexAttribDivisor(location, 1);
    }
    gl.bindVertexArray(null);
    return { array, count: data.length / 5 };
  }

  #program(vertex, fragment, constants = {}) {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [type, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(type);
      const text = Object.entries(constants).reduce((all, [name, value]) => all.replaceAll(name, value), source);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      const logs = gl.getAttachedShaders(program).map((shader) => gl.getShaderInfoLog(shader));
      throw new PlayerError(
        `WebGL2: the graphics driver rejects a program (${[gl.getProgramInfoLog(program), ...logs].join(" ").trim()}). ` +
          "Update the browser and the driver, or use another browser.",
      );
    }
    const at = {};
    for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); i++) {
      const { name } = gl.getActiveUniform(program, i);
      at[name.replace("[0]", "")] = gl.getUniformLocation(program, name);
    }
    return { program, at };
  }

  #requireSize({ file, width, height }) {
    const most = this.gl.getParameter(this.gl.MAX_TEXTURE_SIZE);
    if (Math.max(width, height) > most) {
      throw new PlayerError(
        `${file}: ${width} x ${height} pixels, more than this device's limit of ${most}. ` +
          "Export the clip with a smaller --img_wh or fewer --layers.",
      );
    }
  }
}

function noWebGL() {
  return new PlayerError(
    "WebGL2 is missing: this browser can't draw 3D graphics. Turn on hardware acceleration in its settings, " +
      "update it, or use another browser.",
  );
}
