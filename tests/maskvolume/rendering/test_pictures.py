"""Views as pictures: bytes, steps of disparity, colour maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from maskvolume.io.images import write_image
from maskvolume.rendering.pictures import color_map, disparity_to_uint16, read_disparity, to_bytes, to_steps, to_uint8


def test_disparity_survives_the_file(tmp_path: Path) -> None:
    near = 1.35
    disparity = torch.linspace(0.05, 1 / near, 48 * 64).reshape(1, 48, 64)
    write_image(tmp_path / "d.png", disparity_to_uint16(disparity, near))
    read = read_disparity(tmp_path / "d.png") / near
    np.testing.assert_allclose(read, disparity[0].numpy(), atol=0.51 / near / 65535)
    colors = color_map(read_disparity(tmp_path / "d.png"), lowest=0.05 * near)
    assert colors.shape == (48, 64, 3)
    brightness = colors.astype(int).sum(-1).ravel()
    assert brightness[0] < 30
    assert brightness[-1] > 600


def test_to_uint8_clamps_and_rounds() -> None:
    image = torch.tensor([-0.5, 0.0, 0.5, 1.0, 1.7]).expand(3, 1, 5)
    assert to_uint8(image)[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    assert to_uint8(image[:1]).shape == (1, 5)


def test_pixels_of_views_on_a_device_are_those_of_each_view() -> None:
    """What is asked of bytes and steps, said in another way; and that a batch changes nothing."""
    torch.manual_seed(0)
    near = 1.35
    images, disparities = torch.rand(4, 3, 9, 11) * 1.4 - 0.2, torch.rand(4, 1, 9, 11) / near * 1.1
    pixels, steps = to_bytes(images).numpy(), to_steps(disparities, near).numpy().view(np.uint16)
    for image, disparity, got, got_steps in zip(images, disparities, pixels, steps, strict=True):
        np.testing.assert_array_equal(got, to_uint8(image))
        np.testing.assert_array_equal(got, np.round(image.clamp(0, 1).numpy() * np.float32(255)).transpose(1, 2, 0))
        np.testing.assert_array_equal(got_steps, disparity_to_uint16(disparity, near))
        exact = np.clip(disparity[0].numpy().astype(np.float64) * near, 0, 1) * 65535
        np.testing.assert_array_equal(got_steps, np.round(exact))
    assert steps.max() == 65535
