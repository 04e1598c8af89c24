"""Lenses: undistortion against formulas and pictures of its own, the ideal camera."""

from __future__ import annotations

import numpy as np
import pytest
from lens_helpers import LENSES, SIZE, distort, make_lens, pixel_centres, take_picture, undistort, waves

from maskvolume.geometry.lenses import (
    Lens,
    fit_lens,
    is_distorted,
    llff_obstacles,
    pinhole,
    project,
    straight,
    undistort_maps,
)
from maskvolume.runtime.errors import InputError


@pytest.mark.parametrize("kind", LENSES)
def test_projection_is_that_of_the_manual(kind: str) -> None:
    lens = make_lens(kind)
    rays = undistort(lens, pixel_centres(SIZE)).reshape(-1, 2)
    np.testing.assert_allclose(project(lens, rays), distort(lens, rays), atol=1e-9)


@pytest.mark.parametrize("kind", LENSES)
@pytest.mark.parametrize("keep_all", [False, True])
def test_tables_follow_the_manual(kind: str, keep_all: bool) -> None:
    lens = make_lens(kind)
    size = (70, 101)
    K = straight(lens, size, keep_all=keep_all)
    tables = undistort_maps(lens, K, size)
    rays = (pixel_centres(size) - K[:2, 2]) / K[0, 0]
    expected = distort(lens, rays) - 0.5  # OpenCV counts centres from 0
    seen = tables.seen
    np.testing.assert_allclose(np.stack([tables.x, tables.y], axis=-1)[seen], expected[seen], atol=1e-3)
    assert seen.shape == size


@pytest.mark.parametrize("kind", LENSES)
def test_picture_is_what_the_ideal_camera_would_take(kind: str) -> None:
    lens = make_lens(kind)
    K = straight(lens)
    new = undistort_maps(lens, K).apply(take_picture(lens, np.eye(4), waves))
    truth = take_picture(pinhole(K, SIZE), np.eye(4), waves)
    assert np.abs(new.astype(int) - truth).max() <= 3
    # The half pixel matters: tables that leave it out fail by more.
    shifted = undistort_maps(lens, K + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])).apply(
        take_picture(lens, np.eye(4), waves)
    )
    assert np.abs(shifted.astype(int) - truth).max() > 6


def upright_lines(points: np.ndarray) -> np.ndarray:
    """Bright upright lines at x = 0, 0.5, -0.5 ..., grey ``[..., 3]``."""
    gaps = np.abs((points[..., 0] + 0.25) % 0.5 - 0.25)
    return np.repeat(np.exp(-((gaps / 0.04) ** 2))[..., None], 3, axis=-1)


def bend(picture: np.ndarray) -> float:
    """How far the left-most line of a picture that is whole is off a straight one, in pixels."""
    grey = picture[..., 0].astype(float)
    h, w = grey.shape
    peaks = [c for c in range(10, w - 10) if grey[h // 2, c] == grey[h // 2, c - 8 : c + 9].max() > 150]
    positions = np.zeros(h)
    for rows in (range(h // 2, h), range(h // 2, -1, -1)):
        position = float(peaks[0])
        for row in rows:
            columns = np.arange(max(round(position) - 6, 0), round(position) + 7)
            position = (grey[row, columns] * columns).sum() / grey[row, columns].sum()
            positions[row] = position
    rows = np.arange(h)
    return float(np.abs(positions - np.polyval(np.polyfit(rows, positions, 1), rows)).max())


@pytest.mark.parametrize("kind", ["barrel", "fisheye"])
def test_lines_come_out_straight(kind: str) -> None:
    lens = make_lens(kind, (180, 240))
    picture = take_picture(lens, np.eye(4), upright_lines)
    assert bend(picture) > 2
    assert bend(undistort_maps(lens, straight(lens)).apply(picture)) < 0.2


@pytest.mark.parametrize("kind", LENSES)
def test_crop_leaves_no_pixel_empty_and_wastes_nothing(kind: str) -> None:
    lens = make_lens(kind)
    for size in (SIZE, (80, 150)):
        K = straight(lens, size)
        assert K[0, 0] == K[1, 1]
        assert K[:2, 2].tolist() == [size[1] / 2, size[0] / 2]
        tables = undistort_maps(lens, K, size)
        assert tables.seen.all()
        inside = (tables.x >= -1e-3) & (tables.x <= SIZE[1] - 1 + 1e-3)
        assert (inside & (tables.y >= -1e-3) & (tables.y <= SIZE[0] - 1 + 1e-3)).all()
        wider = K * [[0.97, 0, 1], [0, 0.97, 1], [1, 1, 1]]
        wider_rays = (pixel_centres(size) - wider[:2, 2]) / wider[0, 0]
        x, y = np.moveaxis(distort(lens, wider_rays), -1, 0)
        assert ((x < 0.5) | (x > SIZE[1] - 0.5) | (y < 0.5) | (y > SIZE[0] - 0.5)).any()


@pytest.mark.parametrize("kind", LENSES)
def test_keep_all_shows_every_pixel(kind: str) -> None:
    lens = make_lens(kind)
    K = straight(lens, keep_all=True)
    pixels = undistort(lens, pixel_centres(SIZE)) * K[0, 0] + K[:2, 2]
    assert pixels.min() > 0.4
    assert (pixels < np.array([SIZE[1], SIZE[0]]) - 0.4).all()
    assert min(pixels.min(), (np.array([SIZE[1], SIZE[0]]) - pixels).min()) < 0.6  # and no more than that
    tables = undistort_maps(lens, K)
    assert not tables.seen.all()
    white = tables.apply(np.full((*SIZE, 3), 255, np.uint8))
    assert (white[tables.seen] == 255).all()
    assert (white[~tables.seen] == 0).all()


def test_formula_that_turns_back_shows_nothing_twice() -> None:
    """k1 = -0.3 alone: beyond r = 1 / sqrt(0.9) the formula leads back to the middle."""
    lens = Lens(np.array([[100.0, 0, 100], [0, 100, 100], [0, 0, 1]]), np.array([-0.3, 0, 0, 0]), "pinhole", (200, 200))
    K = straight(lens, focal=40.0)
    seen = undistort_maps(lens, K).seen
    radius = np.linalg.norm((pixel_centres((200, 200)) - 100) / 40, axis=-1)
    assert not seen[radius > 1.06].any()
    assert seen[radius < 1.04].all()
    wide = straight(lens, keep_all=True)
    assert wide[0, 0] == pytest.approx(99.5 * np.sqrt(0.9), rel=1e-2)


def test_fisheye_of_more_than_a_half_turn() -> None:
    """A picture of 190 degrees: at most 80 degrees off the axis are laid flat."""
    K = np.array([[60.0, 0, 100], [0, 60.0, 100], [0, 0, 1]])
    lens = Lens(K, np.zeros(4), "fisheye", (200, 200))
    new = straight(lens, keep_all=True)
    assert 99.5 / new[0, 0] == pytest.approx(np.tan(np.radians(80)), rel=1e-3)
    corner = undistort_maps(lens, new).seen[0, 0]
    assert not corner


def test_straight_lens_stays_as_it_is() -> None:
    lens = pinhole(np.array([[90.0, 0, 64], [0, 90, 48], [0, 0, 1]]), SIZE)
    assert llff_obstacles(lens) == []
    assert not is_distorted(lens)
    for keep_all in (False, True):
        np.testing.assert_array_equal(straight(lens, keep_all=keep_all), lens.K)
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    np.testing.assert_array_equal(undistort_maps(lens, lens.K).apply(picture), picture)


def test_obstacles_are_named() -> None:
    K = np.array([[90.0, 0, 64], [0, 90, 48], [0, 0, 1]])
    assert llff_obstacles(Lens(K, np.array([0.1, 0, 0, 0]), "pinhole", SIZE)) == ["distortion"]
    assert llff_obstacles(Lens(K, np.zeros(4), "fisheye", SIZE)) == ["distortion"]
    (words,) = llff_obstacles(pinhole(K + np.diag([1, 0, 0]), SIZE))
    assert words == "two focal lengths (91.00 and 90.00)"
    (words,) = llff_obstacles(pinhole(K + np.array([[0, 0, 1], [0, 0, -2], [0, 0, 0]]), SIZE))
    assert words == "a principal point off the centre (+1.00, -2.00 pixels)"


def test_principal_point_outside() -> None:
    lens = pinhole(np.array([[90.0, 0, -3], [0, 90, 48], [0, 0, 1]]), SIZE)
    with pytest.raises(InputError, match=r"principal point .* is outside the picture of 128 x 96"):
        straight(lens)


def test_size_of_the_pictures_scales_the_lens() -> None:
    lens = make_lens("barrel")
    half = fit_lens(lens, (48, 64), "a.json")
    rays = np.array([[0.2, -0.1], [-0.3, 0.25]])
    np.testing.assert_allclose(distort(half, rays), distort(lens, rays) / 2)  # corners of pictures stay corners
    with pytest.raises(InputError, match=r"a\.json: made for pictures of 128 x 96 pixels, these have 128 x 72, which"):
        fit_lens(lens, (72, 128), "a.json")
