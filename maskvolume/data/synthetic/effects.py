"""Camera effects: exposure, white balance, blur, noise, compression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskvolume.data.synthetic.options import WorldOptions


@dataclass(frozen=True)
class CameraEffects:
    """The effects of each source camera of each world.

    Attributes:
        gain: ``[B, V, 3]`` factor per colour channel.
        kernel: ``[B, V, 2, 5]`` vertical and horizontal blur kernel.
        noise: ``[B, V, 2]`` standard deviations of read noise, and of shot noise at full brightness.
        steps: ``[B, V]`` quantization steps; 0 for no quantization.
    """

    gain: Tensor
    kernel: Tensor
    noise: Tensor
    steps: Tensor


def draw_effects(rngs: list[np.random.Generator], options: WorldOptions) -> CameraEffects:
    """Draw random effects, one generator per world, as CPU tensors; the cameras of a world have similar effects."""
    V = options.num_sources
    taps = np.arange(-2, 3)
    gains, kernels, noises, steps = [], [], [], []
    for rng in rngs:
        gain = 1 + rng.uniform(-1, 1, (V, 1)) * options.gain * rng.random()
        gains.append(gain * (1 + rng.uniform(-1, 1, (V, 3)) * options.white_balance * rng.random()))
        sigma = np.clip(rng.uniform(0, options.blur) * rng.uniform(0.7, 1.3, (V, 2)), 0.05, None)
        kernel = np.exp(-0.5 * (taps / sigma[..., None]) ** 2)
        kernels.append(kernel / kernel.sum(-1, keepdims=True))
        noises.append(np.tile(rng.uniform(0, options.noise, 2), (V, 1)))
        compressed = rng.random() < options.block_noise_share
        steps.append(np.full(V, float(np.exp(rng.uniform(np.log(0.008), np.log(0.035)))) if compressed else 0.0))
    return CameraEffects(*(torch.from_numpy(np.stack(a)).float() for a in (gains, kernels, noises, steps)))


def apply_effects(
    images: Tensor,  # [B, V, 3, H, W]
    effects: CameraEffects,
    generator: torch.Generator,  # of the images' device
) -> Tensor:
    """Apply camera effects to pictures.

    Args:
        images: ``[B, V, 3, H, W]`` pictures; 1 is full brightness.
        effects: the effects of the cameras.
        generator: draws the noise, on the device of the images.

    Returns:
        Pictures ``[B, V, 3, H, W]`` in 0..1, rounded to 8 bits.
    """
    B, V, C, H, W = images.shape
    x = (images * effects.gain[..., None, None]).reshape(1, B * V * C, H, W)
    kernel = effects.kernel.repeat_interleave(C, dim=1).view(B * V * C, 1, 2, 5)
    x = F.pad(x, (2, 2, 2, 2), mode="replicate")
    x = F.conv2d(x, kernel[:, :, 0, :, None], groups=B * V * C)
    x = F.conv2d(x, kernel[:, :, 1, None, :], groups=B * V * C).view(B, V, C, H, W).clamp_(0, 1)
    noise = torch.randn(x.shape, generator=generator, device=x.device)
    sigma = (effects.noise[..., 0, None, None, None] ** 2 + effects.noise[..., 1, None, None, None] ** 2 * x).sqrt()
    x = x + noise * sigma
    if bool((effects.steps > 0).any()):
        x = _quantize_blocks(x, effects.steps)
    # Eight bits, as in picture files.
    return x.clamp_(0, 1).mul_(255).round_().div_(255)


def _quantize_blocks(x: Tensor, steps: Tensor) -> Tensor:
    """Quantize the cosine transform of 8 x 8 blocks, more coarsely at higher frequencies."""
    H, W = x.shape[-2:]
    n = torch.arange(8, device=x.device, dtype=x.dtype)
    basis = torch.cos((2 * n[None] + 1) * n[:, None] * (torch.pi / 16)) * 0.5
    basis[0] *= 0.5**0.5
    padded = F.pad(x.flatten(0, 1), (0, -W % 8, 0, -H % 8), mode="replicate")
    blocks = padded.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)  # [n, C, h, w, 8, 8]
    weight = (1 + 0.7 * (n[:, None] + n)) * steps.flatten().clamp(min=1 / 1024)[:, None, None, None, None, None]
    blocks = basis.T @ ((basis @ blocks @ basis.T / weight).round() * weight) @ basis
    whole = blocks.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)[..., :H, :W]
    return torch.where(steps[..., None, None, None] > 0, whole.view(x.shape), x)
