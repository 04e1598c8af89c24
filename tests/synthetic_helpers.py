"""Options of random worlds that are quick to render, without camera effects."""

from __future__ import annotations

from dataclasses import replace

from maskvolume.data.synthetic import WorldOptions

TEXTURES = 24  # a small bank is quick to build
CLEAN = WorldOptions(
    size=(60, 80), num_textures=TEXTURES, source_depth=True, gain=0, white_balance=0, blur=0, noise=0,
    block_noise_share=0,
)  # fmt: skip
MOVING = replace(CLEAN, moving=True, shadow_share=0.0)
