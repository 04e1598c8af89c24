"""Pictures: round trips, sizes, and files that are cut short."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskvolume.io.images import (
    read_image,
    read_image_size,
    resize_image,
    write_image,
)
from maskvolume.runtime.errors import InputError

COLORS = np.array([[[200, 40, 30], [40, 180, 50]], [[30, 60, 190], [250, 250, 250]]], np.uint8)


def smooth_picture(h: int = 37, w: int = 53) -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (5, 7, 3), np.uint8), (w, h), interpolation=cv2.INTER_CUBIC)


def encode(suffix: str, *parameters: int) -> bytes:
    return cv2.imencode(suffix, smooth_picture(), parameters)[1].tobytes()


ENCODINGS = {
    "baseline.jpg": lambda: encode(".jpg"),
    "progressive.jpg": lambda: encode(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts.jpeg": lambda: encode(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "plain.png": lambda: encode(".png"),
}


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_png_round_trip(tmp_path: Path, shape: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    write_image(tmp_path / "a.png", picture)
    expected = picture if picture.ndim == 3 else np.stack([picture] * 3, axis=2)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)
    assert os.listdir(tmp_path) == ["a.png"]


def test_png_keeps_alpha_and_16_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rgba, deep = rng.integers(0, 256, (5, 7, 4), np.uint8), rng.integers(0, 65536, (5, 7), np.uint16)
    write_image(tmp_path / "rgba.png", rgba)
    write_image(tmp_path / "deep.png", deep)
    stored = cv2.imread(str(tmp_path / "rgba.png"), cv2.IMREAD_UNCHANGED)
    assert stored is not None
    np.testing.assert_array_equal(stored[..., [2, 1, 0, 3]], rgba)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "deep.png"), cv2.IMREAD_UNCHANGED), deep)
    assert read_image(tmp_path / "rgba.png").shape == (5, 7, 3)
    assert read_image(tmp_path / "deep.png").dtype == np.uint8


def test_jpeg_is_close_and_rgb(tmp_path: Path) -> None:
    picture = COLORS.repeat(16, axis=0).repeat(16, axis=1)
    write_image(tmp_path / "a.jpg", picture)
    read = read_image(tmp_path / "a.jpg")
    assert np.abs(read[4::16, 4::16].astype(int) - COLORS).max() <= 4


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("a.jpg", np.zeros((2, 2, 4), np.uint8)),
        ("a.jpg", np.zeros((2, 2), np.uint16)),
        ("a.bmp", np.zeros((2, 2, 3), np.uint8)),
        ("a.png", np.zeros((2, 2, 3), np.float32)),
        ("a.png", np.zeros((2, 2, 2), np.uint8)),
        ("a.png", np.zeros(4, np.uint8)),
    ],
)
def test_write_image_refuses_what_it_cannot_hold(tmp_path: Path, name: str, picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"picture: |path: "):
        write_image(tmp_path / name, picture)
    assert os.listdir(tmp_path) == []


def test_size_is_that_of_the_stored_pixels(tmp_path: Path) -> None:
    # An orientation tag (rotated by 90 degrees) between the start and the first segment.
    tag = bytes.fromhex("ffe100224578696600004d4d002a000000080001011200030000000100060000000000000000")
    data = encode(".jpg")
    (tmp_path / "a.jpg").write_bytes(data[:2] + tag[: 2 + 0x22] + data[2:])
    assert read_image_size(tmp_path / "a.jpg") == (37, 53)
    assert read_image(tmp_path / "a.jpg").shape == (37, 53, 3)


@pytest.mark.parametrize("name", ENCODINGS)
def test_read_size(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(ENCODINGS[name]())
    assert read_image_size(tmp_path / name) == (37, 53)
    assert read_image(tmp_path / name, (10, 20)).shape == (10, 20, 3)


def test_resize_keeps_pixel_centres() -> None:
    """A ramp over pixel centres stays the same ramp at another size."""
    w = 64
    ramp = np.tile((np.arange(w) + 0.5) / w, (8, 1)).astype(np.float32)
    for size in [(8, 32), (4, 16), (16, 128)]:
        x = (np.arange(size[1]) + 0.5) / size[1]
        inside = slice(size[1] // 8, -size[1] // 8)
        np.testing.assert_allclose(resize_image(ramp, size)[0, inside], x[inside], atol=1e-5)


def test_resize_averages_when_shrinking() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    means = picture.reshape(8, 4, 16, 4, 3).mean(axis=(1, 3))
    assert np.abs(resize_image(picture, (8, 16)) - means).max() <= 0.51
    assert resize_image(picture, (32, 64)) is picture


@pytest.mark.parametrize("name", ENCODINGS)
def test_truncated_picture(tmp_path: Path, name: str) -> None:
    data = ENCODINGS[name]()
    path = tmp_path / name
    for length in [*range(1, len(data), max(1, len(data) // 40)), len(data) - 2, len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=rf"{path.name}: .*; make or download this file again"):
            read_image(path)
    path.write_bytes(data + b"trailing bytes that some cameras add")
    assert read_image(path).shape == (37, 53, 3)


def test_truncated_jpeg_with_a_whole_thumbnail_inside(tmp_path: Path) -> None:
    """The end marker of an embedded preview is not the end of the picture."""
    data, preview = encode(".jpg"), encode(".jpg", cv2.IMWRITE_JPEG_QUALITY, 20)
    segment = b"\xff\xe3" + (len(preview) + 2).to_bytes(2, "big") + preview
    whole = data[:2] + segment + data[2:]
    (tmp_path / "a.jpg").write_bytes(whole)
    assert read_image(tmp_path / "a.jpg").shape == (37, 53, 3)
    (tmp_path / "a.jpg").write_bytes(whole[:-100])
    with pytest.raises(InputError, match="cut short"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the picture is empty; make or download"),
        (b"<html>not found</html>", "cannot be read as a picture; make or download"),
        (None, "no such picture; check the path"),
    ],
)
def test_not_a_picture(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.jpg: {message}"):
        read_image(path)
    with pytest.raises(InputError, match=r"a\.jpg: .*; "):
        read_image_size(path)


def test_folder_instead_of_picture(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder where a picture is expected"):
        read_image(tmp_path)
