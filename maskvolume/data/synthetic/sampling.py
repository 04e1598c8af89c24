"""Samples of random worlds: sources, backgrounds, target, matte and depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from maskvolume.data.synthetic.effects import CameraEffects, apply_effects, draw_effects
from maskvolume.data.synthetic.options import SyntheticSample, WorldOptions
from maskvolume.data.synthetic.raycast import Layer, RayCaster, start_layer
from maskvolume.data.synthetic.rigs import draw_rig, rig_cameras
from maskvolume.data.synthetic.shapes import Things
from maskvolume.data.synthetic.textures import TextureBank, texture_bank
from maskvolume.data.synthetic.worlds import (
    MOVER_SHADES,
    MOVER_SLOTS,
    STATIC_SHADES,
    STATIC_SLOTS,
    draw_things,
)
from maskvolume.geometry.cameras import Camera

Held = TypeVar("Held", Things, CameraEffects)

NUM_CUTS = 64
NEAR_CLIP = 0.5  # relative to the near depth of a rig, for targets in front of the sources
EXPOSURES = (0.5, 2.2)  # lowest and highest gain towards the desired brightness


def sample_worlds(
    options: WorldOptions,
    batch: int,
    *,
    generator: torch.Generator | int,
    device: torch.device | str,
) -> SyntheticSample:
    """Build ``batch`` random worlds and render them on ``device``.

    Args:
        options: the distribution of the worlds.
        batch: number of worlds, B.
        generator: a seed, or a generator that draws one. Equal seeds give equal bits on the same device and
            version of torch.
        device: device of the rendering and of the sample.

    Returns:
        The sample; its docstring lists the shapes.

    Raises:
        ValueError: ``batch`` is below 1.
    """
    if batch < 1:
        raise ValueError(f"batch: at least 1 expected, got {batch}")
    device = torch.device(device)
    if isinstance(generator, torch.Generator):
        generator = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    # Separate random streams: the number of draws from one does not change the others.
    streams = [seed.spawn(6) for seed in np.random.SeedSequence(generator).spawn(batch)]
    rig_rngs, thing_rngs, effect_rngs, picture_rngs, step_rngs, calibration_rngs = (
        [np.random.default_rng(seeds[i]) for seeds in streams] for i in range(6)
    )
    noise = torch.Generator(device).manual_seed(int(picture_rngs[0].integers(2**62)))

    bank = texture_bank(options.texture_seed, options.num_textures, NUM_CUTS, device)
    rigs = [draw_rig(rng, options) for rng in rig_rngs]
    sources, target = rig_cameras(rigs, options)
    things, step = draw_things(thing_rngs, step_rngs, rigs, bank, options)
    effects = draw_effects(effect_rngs, options)
    brightness = torch.tensor([rng.uniform(*options.brightness) for rng in picture_rngs]).float()
    near = torch.tensor([rig.near for rig in rigs])
    T_world = torch.from_numpy(np.stack([_random_pose(rng) for rng in picture_rngs])).float()

    things, effects = to_device(things, device), to_device(effects, device)
    sources, target = sources.to(device), target.to(device)
    near, brightness, T_world, step = near.to(device), brightness.to(device), T_world.to(device), step.to(device)

    instants = [replace(things, center=things.center + t * step) for t in range(options.instants)]
    source_layers, target_layers = _render_all(instants, sources, target, bank, near, options)
    mean_brightness = source_layers[0].color.unflatten(1, (batch, -1)).mean((0, 2, 3, 4, 5))
    exposure = (brightness / mean_brightness).clamp(*EXPOSURES)
    first = 1 if options.moving else 0
    depth = torch.stack([layer.depth.unflatten(0, (batch, -1)) for layer in source_layers[first:]], dim=1)
    images, backgrounds = (_resolve(source_layers[i], exposure) for i in (first, 0))
    pictures = [_resolve(layer, exposure)[:, 0].clamp(0, 1) for layer in target_layers]
    mattes, source_mattes = (
        [(layer.depth < layers[0].depth).float().mean(1, keepdim=True) for layer in layers[first:]]
        for layers in (target_layers, source_layers)
    )
    images, backgrounds = apply_effects(images, effects, noise), apply_effects(backgrounds, effects, noise)
    later_views = {}
    if options.instants > 1:
        later_images = [apply_effects(_resolve(layer, exposure), effects, noise) for layer in source_layers[2:]]
        later_views = {
            "later_images": torch.stack(later_images, dim=1),
            "later_target_images": torch.stack(pictures[2:], dim=1),
            "later_mattes": torch.stack(mattes[1:], dim=1),
        }
    return SyntheticSample(
        images=images,
        backgrounds=backgrounds,
        sources=replace(
            sources,
            T_cam_world=sources.T_cam_world @ T_world[:, None],
            K=sources.K + _calibration_errors(calibration_rngs, options, sources.K).to(device),
        ),
        target=replace(target, T_cam_world=target.T_cam_world @ T_world),
        target_image=pictures[first],
        target_background=pictures[0],
        matte=mattes[0],
        target_depth=resolve_depth(target_layers[first].depth),
        target_background_depth=resolve_depth(target_layers[0].depth),
        source_mattes=torch.stack([matte.unflatten(0, (batch, -1)) for matte in source_mattes], dim=1),
        near=0.9 * depth.amin((1, 2, 3, 4, 5)),
        far=2.0 * depth.amax((1, 2, 3, 4, 5)),
        source_depth=resolve_depth(source_layers[first].depth).unflatten(0, (batch, -1))
        if options.source_depth
        else None,
        **later_views,
    )


def to_device(value: Held, device: torch.device) -> Held:
    """Return a copy with all tensors on ``device``."""
    return replace(
        value,
        **{
            field.name: getattr(value, field.name).to(device)
            for field in fields(value)
            if isinstance(getattr(value, field.name), Tensor)
        },
    )


def _calibration_errors(rngs: list[np.random.Generator], options: WorldOptions, K: Tensor) -> Tensor:
    """Draw errors ``[B, V, 3, 3]`` of the source intrinsics, in pixels."""
    errors = np.zeros(K.shape)
    for error, rng, intrinsics in zip(errors, rngs, K.cpu().numpy(), strict=True):
        x, y, edge = rng.normal(0, options.calibration * rng.uniform(), (3, options.num_sources))
        focal = edge / (0.5 * options.size[1])  # the relative error that moves the picture edge by ``edge``
        error[:, 0, 2], error[:, 1, 2] = x, y
        error[:, 0, 0] = error[:, 1, 1] = focal * intrinsics[:, 0, 0]
    return torch.from_numpy(errors).float()


def _random_pose(rng: np.random.Generator) -> np.ndarray:
    """Draw a rigid ``[4, 4]`` transform of the world: results must not depend on the reference camera's pose."""
    q, _ = np.linalg.qr(rng.normal(0, 1, (3, 3)))
    T = np.eye(4)
    T[:3, :3] = q * np.sign(np.linalg.det(q))
    T[:3, 3] = rng.normal(0, 1, 3)
    return T


def _render_all(
    instants: Sequence[Things], sources: Camera, target: Camera, bank: TextureBank, near: Tensor, options: WorldOptions
) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """Render the layers of the sources and of the target, together if their sizes are equal."""
    if sources.size != target.size:
        return (
            _render(instants, sources, bank, near, options),
            _render(instants, target[:, None], bank, near, options),
        )
    cameras = Camera(
        torch.cat([sources.T_cam_world, target.T_cam_world[:, None]], dim=1),
        torch.cat([sources.K, target.K[:, None]], dim=1),
        sources.size,
    )
    layers = [
        (layer.depth.unflatten(0, cameras.batch_shape), layer.color.unflatten(1, cameras.batch_shape))
        for layer in _render(instants, cameras, bank, near, options)
    ]
    return (
        tuple(Layer(depth[:, :-1].flatten(0, 1), color[:, :, :-1].flatten(1, 2)) for depth, color in layers),
        tuple(Layer(depth[:, -1], color[:, :, -1]) for depth, color in layers),
    )


def _render(
    instants: Sequence[Things], cameras: Camera, bank: TextureBank, near: Tensor, options: WorldOptions
) -> tuple[Layer, ...]:
    """Render the static world and, with movers, the whole world at each instant."""
    layer = start_layer(cameras, options.rays_per_side)
    caster = RayCaster(instants[0], cameras, bank, near * NEAR_CLIP, options.rays_per_side)
    caster.cast(layer, STATIC_SLOTS)
    caster.shade(layer, STATIC_SHADES)
    layers = [layer]
    for number, things in enumerate(instants if options.moving else ()):
        if number:
            caster = RayCaster(things, cameras, bank, near * NEAR_CLIP, options.rays_per_side)
        full = layer.clone()
        caster.shade(full, MOVER_SHADES)
        caster.cast(full, MOVER_SLOTS)
        layers.append(full)
    return tuple(layers)


def _resolve(layer: Layer, exposure: Tensor) -> Tensor:
    """Return pictures ``[B, V, 3, h, w]``: the mean over the rays of each pixel times the exposure ``[B]``."""
    color = layer.color.mean(2).transpose(0, 1)  # [L, 3, h, w]
    return color.unflatten(0, (len(exposure), -1)) * exposure[:, None, None, None, None]


def resolve_depth(depth: Tensor) -> Tensor:
    """Return the depth ``[L, 1, h, w]`` of pixels from the depth ``[L, S, h, w]`` of their rays.

    It is the depth at the pixel centre if all rays hit one surface, else the nearest depth.
    """
    inverse = 1 / depth
    nearest, mean = inverse.amax(1, keepdim=True), inverse.mean(1, keepdim=True)
    return 1 / torch.where(nearest - mean < 0.02 * nearest, mean, nearest)
