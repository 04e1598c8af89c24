"""The options of random worlds, and the samples rendered from them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from maskvolume.data.samples import MovingBatch


@dataclass(frozen=True)
class WorldOptions:
    """The distribution of random worlds and rigs.

    Ranges are (low, high). Lengths in a picture are fractions of its width unless stated otherwise.

    Attributes:
        size: (h, w) of the source pictures.
        target_size: (h, w) of the target picture; None for that of the sources.
        num_sources: source views V; view 0 is the reference.
        moving: add movers to the worlds, and render backgrounds and mattes.
        near: depth of the nearest point, in scene units.
        far_ratio: depth of the backdrop, in units of ``near``.
        disparity: shift of a thing at ``near`` between neighbouring sources.
        focal: focal length.
        rotation: largest rotation of a camera relative to the reference about each axis, in degrees.
        between_share: share of targets between the sources. Most of the others are outside, by up to one baseline;
            some are anywhere near, also in front of or behind the sources.
        num_things: number of static things, not counting backdrop and floor.
        num_movers: number of movers.
        mover_size: largest extent of a mover.
        shadow_share: share of movers that shade the static world around them. A shadow is visible in the images
            and the target, but not in the backgrounds or the matte.
        instants: number of instants T; movers move in straight lines.
        mover_step: displacement of a mover per instant.
        plain_share: share of nearly textureless surfaces, whose depth follows only from their surroundings.
        brightness: desired mean of the pictures, which determines the exposure of the scene.
        gain: largest relative difference of exposure between cameras.
        white_balance: the same for each colour.
        blur: largest standard deviation of the blur of the sources, in pixels.
        noise: largest standard deviation of the noise of the sources, for read and shot noise each.
        block_noise_share: share of source pictures quantized as in JPEG.
        calibration: largest standard deviation of the errors in the source intrinsics, in pixels: of the principal
            point, and of the focal length at the picture edge. Only the intrinsics in the sample are wrong, not the
            rendering.
        rays_per_side: rays per pixel along each axis.
        source_depth: include the depth of the source views.
        texture_seed: seed of the texture bank.
        num_textures: number of textures in the bank.
    """

    size: tuple[int, int] = (144, 192)
    target_size: tuple[int, int] | None = None
    num_sources: int = 2
    moving: bool = False
    near: tuple[float, float] = (0.5, 2.0)
    far_ratio: tuple[float, float] = (4.0, 60.0)
    disparity: tuple[float, float] = (0.02, 0.2)
    focal: tuple[float, float] = (0.7, 1.5)
    rotation: float = 1.5
    between_share: float = 0.55
    num_things: tuple[int, int] = (8, 25)
    num_movers: tuple[int, int] = (1, 4)
    mover_size: tuple[float, float] = (0.08, 0.45)
    shadow_share: float = 0.5
    instants: int = 1
    mover_step: tuple[float, float] = (0.01, 0.06)
    plain_share: float = 0.0
    brightness: tuple[float, float] = (0.28, 0.52)
    gain: float = 0.03
    white_balance: float = 0.015
    blur: float = 0.45
    noise: float = 0.012
    block_noise_share: float = 0.3
    calibration: float = 0.0
    rays_per_side: int = 2
    source_depth: bool = False
    texture_seed: int = 0
    num_textures: int = 192

    def __post_init__(self) -> None:
        ranges = ("near", "far_ratio", "disparity", "focal", "num_things", "num_movers", "mover_size", "mover_step")
        for name in (*ranges, "brightness"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name}: 0 < low <= high expected, got {(low, high)}")
        for name in ("size", "target_size"):
            size = getattr(self, name)
            if size is not None and min(size) < 8:
                raise ValueError(f"{name}: at least 8 x 8 expected, got {size}")
        for name in ("num_sources", "instants", "rays_per_side", "num_textures"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: at least 1 expected, got {getattr(self, name)}")
        if self.instants > 1 and not self.moving:
            raise ValueError(f"instants: 1 expected where nothing moves, got {self.instants}")
        for name in ("rotation", "gain", "white_balance", "blur", "noise", "calibration", "plain_share"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: 0 or more expected, got {getattr(self, name)}")

    def to_train_on(self) -> WorldOptions:
        """Return these options with plain surfaces, and cameras without laboratory calibration, for training."""
        return replace(self, plain_share=0.35, gain=0.06, white_balance=0.03, calibration=0.4)


@dataclass(frozen=True)
class SyntheticSample(MovingBatch):
    """A batch of B worlds, each seen by V sources and a target.

    The source views have camera effects; the target has none and uses the exposure of the scene. The backgrounds are
    the source views without the movers, with the same exposure and blur but different noise. ``near`` is 0.9 of the
    nearest depth in the source views, ``far`` is twice the farthest.

    Attributes:
        target_background: ``[B, 3, h, w]`` the target image without the movers, in 0..1.
        target_depth: ``[B, 1, h, w]`` depth along the z axis of the target; at edges, of the nearest thing.
        target_background_depth: ``[B, 1, h, w]`` the same without the movers.
        source_mattes: ``[B, T, V, 1, H, W]`` share of each source pixel that movers cover, at each instant.
        source_depth: ``[B, V, 1, H, W]`` depth of the source views, or None.
    """

    target_background: Tensor
    target_depth: Tensor
    target_background_depth: Tensor
    source_mattes: Tensor
    source_depth: Tensor | None = None
