"""Renders a Blender scene with the cameras of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import bpy
import numpy as np
from mathutils import Matrix

from maskvolume.io.files import atomic_path
from maskvolume.runtime.errors import InputError

if TYPE_CHECKING:
    from scenes.make_example_rig import View

BOUND_PERCENTILES = (0.1, 99.9)
BOUND_SIZE = (72, 128)  # rows and columns of the rays that measure the bounds
MASK_SAMPLES = 16
# As soft as a camera's picture: sharper ones alias and need larger JPEG files.
SOFTNESS = 2.5


class Moving(Protocol):
    """The moving objects of a scene."""

    @property
    def objects(self) -> list[Any]:
        """All visible moving objects."""

    def pose(self, time: float) -> None:
        """Place everything at ``time`` (0..1, one round of the loop)."""


class Studio:
    """The scene in Blender's open file and its renderer.

    Args:
        movers: the moving objects, which are in the scene already.
        views: the cameras.
        size: (h, w) of the pictures.
        samples: light paths per pixel.
        frames: instants of the loop.
        softness: width of the pixel filter, in pixels.
    """

    def __init__(
        self,
        movers: Moving,
        views: Sequence[View],
        size: tuple[int, int],
        samples: int,
        frames: int,
        softness: float = SOFTNESS,
    ) -> None:
        self.scene = bpy.context.scene
        self.frames = frames
        self.samples = samples
        self.softness = softness
        self.movers = movers
        self.cameras = {view.name: self._camera(view) for view in views}
        self._settings(size)

    def _camera(self, view: View) -> bpy.types.Object:
        lens = bpy.data.cameras.new(view.name)
        lens.sensor_fit, lens.sensor_width, lens.lens = "HORIZONTAL", 36.0, 36.0 * view.focal
        lens.clip_start, lens.clip_end = 0.05, 100.0
        camera = bpy.data.objects.new(view.name, lens)
        right, down, forward, place = view.c2w.T
        pose = np.eye(4)
        pose[:3] = np.stack([right, -down, -forward, place], axis=1)
        camera.matrix_world = Matrix(pose.tolist())
        self.scene.collection.objects.link(camera)
        return camera

    def _settings(self, size: tuple[int, int]) -> None:
        render = self.scene.render
        render.engine = "CYCLES"
        cycles = self.scene.cycles
        render.resolution_y, render.resolution_x = size
        render.resolution_percentage = 100
        render.use_persistent_data = True
        render.dither_intensity = 0.0
        render.image_settings.file_format = "PNG"
        render.image_settings.compression = 30
        cycles.device = "CPU"
        cycles.samples = self.samples
        cycles.use_adaptive_sampling = True
        cycles.adaptive_threshold = 0.02
        cycles.use_denoising = True
        cycles.denoiser = "OPENIMAGEDENOISE"
        cycles.denoising_input_passes = "RGB_ALBEDO_NORMAL"
        cycles.denoising_prefilter = "FAST"
        cycles.max_bounces, cycles.diffuse_bounces, cycles.glossy_bounces = 2, 1, 1
        cycles.transmission_bounces = cycles.transparent_max_bounces = 0
        cycles.caustics_reflective = cycles.caustics_refractive = False
        cycles.sample_clamp_indirect = 4.0
        cycles.pixel_filter_type, cycles.filter_width = "BLACKMAN_HARRIS", self.softness
        # The same noise in every frame, so that static content looks the same in all.
        cycles.seed = 0
        self.scene.view_settings.view_transform = "AgX"
        self.scene.view_settings.look = "AgX - Base Contrast"
        self.scene.view_settings.exposure = 0.35

    def show_movers_only(self) -> None:
        """Render masks from now on: the movers' coverage as alpha, minus occlusions by the static scene."""
        moving = set(self.movers.objects)
        for thing in self.scene.objects:
            if thing.type == "MESH":
                thing.is_holdout = thing not in moving
        # Colours do not matter here, and textures take most of the time.
        bpy.context.view_layer.material_override = bpy.data.materials.new("plain")
        self.scene.render.film_transparent = True
        self.scene.render.image_settings.color_mode = "RGBA"
        cycles = self.scene.cycles
        cycles.use_denoising, cycles.use_adaptive_sampling = False, False
        cycles.samples, cycles.max_bounces = MASK_SAMPLES, 0

    def render(self, view: View, frame: int, path: Path) -> None:
        """Write the lossless picture of one view at one instant."""
        self.movers.pose(frame / self.frames)
        self.scene.camera = self.cameras[view.name]
        with atomic_path(path) as partial:
            self.scene.render.filepath = str(partial)
            try:
                bpy.ops.render.render(write_still=True)
            except RuntimeError as error:
                raise InputError(f"{path}: Blender cannot write the picture ({error}); is the disk full?") from None

    def cast(self, view: View, frame: int | None, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Cast a ray through each pixel centre of a view.

        Args:
            view: the camera.
            frame: the instant; None: without the movers.
            size: (h, w) of the picture.

        Returns:
            Depths along the view's axis ``[h, w]`` in metres, nan without a hit, and whether the ray hits a
            mover ``[h, w]``.
        """
        if frame is not None:
            self.movers.pose(frame / self.frames)
        for mover in self.movers.objects:
            mover.hide_viewport = frame is None
        bpy.context.view_layer.update()
        graph = bpy.context.evaluated_depsgraph_get()
        moving = {thing.name for thing in self.movers.objects}
        h, w = size
        depth, mask = np.full(size, np.nan), np.zeros(size, bool)
        rotation, place = view.c2w[:, :3], view.c2w[:, 3]
        for i in range(h):
            for j in range(w):
                ray = np.array([(j + 0.5 - w / 2) / (view.focal * w), (i + 0.5 - h / 2) / (view.focal * w), 1.0])
                hit, point, _, _, thing, _ = self.scene.ray_cast(graph, place, rotation @ ray)
                if hit:
                    depth[i, j] = rotation[:, 2] @ (np.asarray(point) - place)
                    mask[i, j] = thing.name in moving
        return depth, mask


def measure_bounds(studio: Studio, views: Sequence[View], frames: int) -> np.ndarray:
    """``[N, 2]`` nearest and farthest depth of each view over the clip, without the extreme 0.1 %."""
    bounds = []
    for view in views:
        depths = [studio.cast(view, t, BOUND_SIZE)[0] for t in range(0, frames, max(1, frames // 4))]
        bounds.append(np.nanpercentile(np.stack(depths), BOUND_PERCENTILES))
    return np.array(bounds)
