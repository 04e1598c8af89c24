"""Reads and writes pictures as 8-bit RGB arrays.

The stored pixels are used as they are: an orientation tag is not applied, since poses are estimated
from the stored pixels too.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from maskvolume.io.files import atomic_path
from maskvolume.runtime.errors import InputError

JPEG_QUALITY = 95
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")

_JPEG_START = b"\xff\xd8"
_PNG_START = b"\x89PNG\r\n\x1a\n"
# In entropy-coded data a 0xff is followed by 0x00 (a stuffed byte), a restart marker or more 0xff.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_ADVICE = "make or download this file again"


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a picture as uint8 ``[H, W, 3]`` RGB, resized to ``size`` (h, w) if given.

    Grey is repeated in the three channels, alpha is dropped and 16 bits become 8.

    Raises:
        InputError: the file is missing, truncated or not a picture.
    """
    data = _read_bytes(Path(path))
    if not _is_whole(data):
        raise InputError(f"{path}: the picture is cut short; {_ADVICE}")
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        picture = None
    if picture is None:
        raise InputError(f"{path}: cannot be read as a picture; {_ADVICE}")
    picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    return picture if size is None else resize_image(picture, size)


def read_image_size(path: str | Path) -> tuple[int, int]:
    """Size (h, w) of a picture; only its header is read.

    Raises:
        InputError: the file is missing or not a picture.
    """
    path = Path(path)
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such picture; check the path") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path}: cannot be read as a picture; {_ADVICE}") from error


def resize_image(
    picture: np.ndarray,  # [H, W] or [H, W, C]
    size: tuple[int, int],
) -> np.ndarray:
    """Resize to ``size`` (h, w): area averages when shrinking, bilinear otherwise.

    Convention: pixel centres at (i + 0.5, j + 0.5), so that K is scaled per axis with the size.
    """
    h, w = picture.shape[:2]
    if (h, w) == tuple(size):
        return picture
    shrinks = size[0] <= h and size[1] <= w
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(picture, (size[1], size[0]), interpolation=interpolation)


def write_image(path: str | Path, picture: np.ndarray) -> None:
    """Write uint8 ``[H, W]``, ``[H, W, 3]`` RGB or ``[H, W, 4]`` RGBA, or uint16 ``[H, W]``.

    The suffix of ``path`` selects PNG or JPEG (quality 95, no alpha, 8 bits). The file is written
    atomically.

    Raises:
        ValueError: an unsupported array or suffix.
        OSError: the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in PICTURE_SUFFIXES:
        raise ValueError(f"path: one of {', '.join(PICTURE_SUFFIXES)} expected, got {path.name}")
    channels = picture.shape[2] if picture.ndim == 3 else 1
    allowed = {np.dtype(np.uint8): (1, 3, 4), np.dtype(np.uint16): (1,)}.get(picture.dtype, ())
    is_png = suffix == ".png"
    if picture.ndim not in (2, 3) or channels not in allowed:
        raise ValueError(
            f"picture: uint8 [H, W], [H, W, 3] or [H, W, 4] or uint16 [H, W] expected, "
            f"got {picture.dtype} {list(picture.shape)}"
        )
    if not is_png and (channels == 4 or picture.dtype == np.uint16):
        raise ValueError(f"path: alpha and 16 bits need a .png, got {path.name}")
    if channels == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    elif channels == 4:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA)
    parameters = [] if is_png else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    ok, data = cv2.imencode(suffix, picture, parameters)
    if not ok:
        raise ValueError(f"picture: cannot be encoded as {suffix}, got {list(picture.shape)}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such picture; check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder where a picture is expected; check the path") from error
    if not data:
        raise InputError(f"{path}: the picture is empty; {_ADVICE}")
    return data


def _is_whole(data: bytes) -> bool:
    """False for a JPEG or PNG that ends before its end marker (decoders fill the rest with grey)."""
    if data.startswith(_JPEG_START):
        return _jpeg_reaches_end(data)
    if data.startswith(_PNG_START):
        return _png_reaches_end(data)
    return True


def _jpeg_reaches_end(data: bytes) -> bool:
    position = len(_JPEG_START)
    while match := _JPEG_MARKER.search(data, position):
        marker = data[match.end() - 1]
        if marker == 0xD9:
            return True
        # Every other marker possible here starts a segment that stores its length.
        position = match.end()
        if position + 2 > len(data):
            return False
        position += int.from_bytes(data[position : position + 2], "big")
    return False


def _png_reaches_end(data: bytes) -> bool:
    position = len(_PNG_START)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        if kind == b"IEND":
            return position <= len(data)
    return False
