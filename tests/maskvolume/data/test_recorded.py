"""Recorded views: windows, crops with their intrinsics, changes of colour, the order of an epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskvolume.data.recorded import (
    RecordedSamples,
    change_alike,
    cut,
    cut_intrinsics,
    draw_jitter,
    draw_window,
)
from maskvolume.runtime.errors import InputError


@pytest.mark.parametrize("picture", [(60, 80), (20, 24)])
def test_windows_lie_in_the_picture_and_are_enlarged_as_far_as_asked_or_needed(picture: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        top, left, (h, w) = draw_window(rng, picture, (30, 40), (1.0, 2.0))
        assert 0 <= top <= picture[0] - h
        assert 0 <= left <= picture[1] - w
        least = max(30 / picture[0], 40 / picture[1], 1.0)
        assert 30 / max(2.0, least) - 1 <= h <= 30 / least + 1


def test_a_crop_shows_the_window_and_its_intrinsics_say_so() -> None:
    x = np.arange(80, dtype=np.uint8) * 3
    picture = np.broadcast_to(x[None, :, None], (60, 80, 3))
    window, size = (10, 20, (24, 32)), (48, 64)
    crop = cut(picture, window, size)
    assert crop.shape == (3, 48, 64)
    K = np.array([[50.0, 0, 40], [0, 50, 30], [0, 0, 1]])
    k = cut_intrinsics(K, window, size)
    # The ray through a pixel of the crop meets the picture where the crop's value says.
    column = 30
    place = ((column + 0.5 - k[0, 2]) / k[0, 0]) * K[0, 0] + K[0, 2]
    assert float(crop[0, 20, column]) == pytest.approx(3 * (place - 0.5), abs=1)
    assert cut(picture[..., 0], window, size).shape == (1, 48, 64)


def test_a_change_of_colour_is_the_same_for_all_views() -> None:
    images = [torch.full((3, 4, 5), value, dtype=torch.uint8) for value in (50, 50, 200)]
    assert all(torch.equal(a, b) for a, b in zip(change_alike(None, images), images, strict=True))
    changes = [draw_jitter(np.random.default_rng(seed), 0.4) for seed in range(20)]
    assert any(change is None for change in changes)
    for change in changes:
        first, second, _ = change_alike(change, images)
        assert torch.equal(first, second)
    assert all(draw_jitter(np.random.default_rng(seed), 0.0) is None for seed in range(20))


def test_an_epoch_takes_every_place_once_in_an_order_of_its_own() -> None:
    samples = RecordedSamples(seed=3, places=7)
    epochs = [[samples.place_of(number) for number in range(7 * epoch, 7 * epoch + 7)] for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(7))
    assert epochs[0] != epochs[1]
    assert [RecordedSamples(3, 7).place_of(number) for number in range(7, 14)] == epochs[1]


def test_an_error_in_the_data_is_handed_over_as_a_value() -> None:
    class Damaged(RecordedSamples):
        def make(self, num_sources: int, number: int) -> object:
            raise InputError(f"sample {number} is damaged")

    assert str(Damaged(0, 3)[2, 5]) == "sample 5 is damaged"
