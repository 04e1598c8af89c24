"""A random static world that arbitrary cameras can view, for videos with true depth."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from maskvolume.data.synthetic.options import WorldOptions
from maskvolume.data.synthetic.raycast import RayCaster, start_layer
from maskvolume.data.synthetic.rigs import draw_rig
from maskvolume.data.synthetic.sampling import (
    EXPOSURES,
    NUM_CUTS,
    resolve_depth,
    to_device,
)
from maskvolume.data.synthetic.textures import texture_bank
from maskvolume.data.synthetic.worlds import STATIC_SHADES, STATIC_SLOTS, draw_things
from maskvolume.geometry.cameras import Camera

NEAR_CLIP = 0.02  # relative to the near depth of the world; cameras may approach things this closely


class StaticWorld:
    """One random static world around a camera at the origin that looks along +z.

    The world is closed, so that every ray hits something. Cameras may move and turn moderately. Depths at the origin
    are at least ``near``; from elsewhere things may be nearer, and are rendered as well.

    Args:
        options: the distribution of the world; ``size`` is the intended picture size.
        seed: seed of the world; equal seeds give equal bits on the same device and version of torch.
        device: device of the rendering.

    Attributes:
        near, far: the range of depths of the world, in scene units.
        focal: the intended focal length, in pixels of a picture of ``options.size``.
    """

    def __init__(self, options: WorldOptions, seed: int, device: torch.device | str = "cpu") -> None:
        self.options = options
        self.device = torch.device(device)
        rng, rig_rng = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
        rig = draw_rig(rig_rng, options)
        self.near, self.far, self.focal = rig.near, rig.far, rig.focal
        self._bank = texture_bank(options.texture_seed, options.num_textures, NUM_CUTS, self.device)
        self._things = to_device(draw_things([rng], [rng], [rig], self._bank, options)[0], self.device)
        self._exposure = 1.0
        mean_brightness = float(self.render(self.camera(torch.eye(4)[None]))[0].mean())
        self._exposure = float(np.clip(rng.uniform(*options.brightness) / mean_brightness, *EXPOSURES))

    def camera(
        self,
        T_cam_world: Tensor,  # [V, 4, 4]
    ) -> Camera:
        """Return cameras ``[V]`` with the focal length and picture size of the world and a centred principal point."""
        h, w = self.options.size
        K = torch.tensor([[self.focal, 0, w / 2], [0, self.focal, h / 2], [0, 0, 1]])
        return Camera(T_cam_world.float(), K.expand(len(T_cam_world), 3, 3), (h, w))

    def render(
        self,
        cameras: Camera,  # [V]
        rays_per_side: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Render views.

        Args:
            cameras: ``[V]`` cameras.
            rays_per_side: rays per pixel along each axis; None for the value in the options.

        Returns:
            Pictures ``[V, 3, H, W]`` in 0..1 at one exposure, and depth ``[V, 1, H, W]`` along z, on the CPU.
        """
        rays_along_axis = rays_per_side or self.options.rays_per_side
        batched_cameras = cameras[None].to(self.device)
        layer = start_layer(batched_cameras, rays_along_axis)
        near = torch.tensor([NEAR_CLIP * self.near], device=self.device)
        caster = RayCaster(self._things, batched_cameras, self._bank, near, rays_along_axis)
        caster.cast(layer, STATIC_SLOTS)
        caster.shade(layer, STATIC_SHADES)
        pictures = (layer.color.mean(2) * self._exposure).clamp(0, 1).transpose(0, 1)
        return pictures.cpu(), resolve_depth(layer.depth).cpu()
