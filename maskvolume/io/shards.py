"""Compact training data: scenes of JPEG pictures with their cameras, in tar files with random access.

``maskvolume.io.shard_index`` describes the files in the folder. ``SceneShards`` reads any picture with one read of a
file; ``ShardWriter`` creates the folder and adds scenes to it.
"""

from __future__ import annotations

import io
import re
import tarfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

import cv2
import numpy as np

from maskvolume.io.files import atomic_path, require_writable_folder
from maskvolume.io.shard_index import (
    CAMERAS_MEMBER,
    FRAME_ARRAYS,
    SCENE_ARRAYS,
    DataInfo,
    NewerFormatError,
    list_shards,
    load_part,
    open_index,
    pack_cameras,
    picture_size,
    publish_index,
    rebuild_advice,
    save_part,
    scan_shard,
    shard_name,
    to_table,
)
from maskvolume.runtime.errors import InputError

if TYPE_CHECKING:
    from maskvolume.io.realestate10k import SceneCameras

MB = 1_000_000
# A member of a tar is SCENE.TIMESTAMP.jpg: WebDataset takes the text before the first dot as the sample's key.
_SCENE_NAME = re.compile(r"[^\s./\\]{1,60}")


class SceneShards:
    """Random access to training data written by ``preprocessing/compress_data.py``.

    The index is memory-mapped and pictures are read on demand, so that memory does not grow with the data. Threads and
    processes may share one; unpickling opens the folder again.

    Args:
        folder: with ``data.json`` and the shards.

    Raises:
        InputError: not a folder of training data, an unfinished or damaged one, or one of a newer version.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._open()
        for name, size in self._info.shards.items():
            _require_shard(self.folder, name, size)

    def _open(self) -> None:
        self._info = DataInfo.read(self.folder)
        if not self._info.index:
            raise InputError(
                f"{self.folder}: holds no finished scenes; run preprocessing/compress_data.py again to the end"
            )
        self._table = open_index(self.folder, self._info)
        self._first = np.concatenate([[0], np.cumsum(self._table["counts"], dtype=np.int64)])

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.folder = state["folder"]
        self._open()

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of all pictures."""
        return self._info.size_wh[1], self._info.size_wh[0]

    @property
    def names(self) -> Sequence[str]:
        """Names of the scenes, by number."""
        return _Names(self._table["names"])

    @property
    def num_frames(self) -> int:
        """Frames of all scenes together."""
        return self._info.frames

    def __len__(self) -> int:
        return self._info.scenes

    def index(self, name: str) -> int:
        """The number of the scene with this name.

        Raises:
            InputError: there is no such scene.
        """
        matches = np.flatnonzero(self._table["names"] == name)
        if not len(matches):
            raise InputError(f"{self.folder}: has no scene {name!r}; check the name or the folder")
        return int(matches[0])

    def count(self, scene: int) -> int:
        """Frames of a scene."""
        return int(self._table["counts"][scene])

    def timestamps(self, scene: int) -> np.ndarray:
        """``[N]`` int64 microseconds, ascending."""
        return self._rows("timestamps", scene)

    def intrinsics(self, scene: int) -> np.ndarray:
        """``[N, 4]`` float32 fx fy cx cy, divided by width (fx, cx) and height (fy, cy)."""
        return self._rows("intrinsics", scene)

    def T_cam_world(self, scene: int) -> np.ndarray:
        """``[N, 3, 4]`` float32 world to camera, OpenCV axes."""
        return self._rows("T_cam_world", scene)

    def bounds(self, scene: int) -> tuple[float, float] | None:
        """Nearest and farthest depth in the unit of the poses; None if unknown."""
        near, far = self._table["bounds"][scene].tolist()
        return (near, far) if near == near else None

    def jpeg(self, scene: int, frame: int) -> bytes:
        """The JPEG bytes of a picture, after a check of their checksum.

        Raises:
            InputError: the shard is missing or damaged.
        """
        row = self._row(scene, frame)
        path = self.folder / shard_name(int(self._table["shards"][scene]))
        try:
            # Opening it each time costs a hundredth of decoding, and processes share nothing.
            with open(path, "rb", buffering=0) as file:
                file.seek(int(self._table["offsets"][row]))
                data = file.read(int(self._table["sizes"][row]))
        except FileNotFoundError:
            raise InputError(_missing(self.folder, path.name)) from None
        if zlib.crc32(data) != int(self._table["checksums"][row]):
            raise InputError(self._damage(path, scene, row))
        return data

    def picture(self, scene: int, frame: int) -> np.ndarray:
        """A picture as uint8 ``[H, W, 3]`` RGB.

        Raises:
            InputError: the shard is missing or damaged; the message names it and the scene.
        """
        data = np.frombuffer(self.jpeg(scene, frame), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        if picture is None or picture.shape[:2] != self.size:
            path = self.folder / shard_name(int(self._table["shards"][scene]))
            raise InputError(self._damage(path, scene, self._row(scene, frame)))
        return picture

    def _row(self, scene: int, frame: int) -> int:
        """The row of a frame in the arrays of all frames."""
        scene = range(len(self))[scene]
        return int(self._first[scene]) + range(self.count(scene))[frame]

    def _rows(self, name: str, scene: int) -> np.ndarray:
        scene = range(len(self))[scene]
        return np.array(self._table[name][self._first[scene] : self._first[scene + 1]])

    def _damage(self, path: Path, scene: int, row: int) -> str:
        return (
            f"{path}: scene {self.names[scene]}: the picture at {int(self._table['timestamps'][row])} is damaged; "
            f"copy or make this shard again"
        )


class _Names(Sequence[str]):
    """Names of scenes, read from the index on demand."""

    def __init__(self, names: np.ndarray) -> None:
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return _Names(self._names[index]) if isinstance(index, slice) else str(self._names[index])


class ShardWriter:
    """Creates training data or adds scenes to it; a context manager.

    A shard appears when it is full. Finished shards survive an interruption, and the next writer of the folder
    continues after them: ``name in writer`` is whether a scene is stored. When the block ends without an error, the
    index is written.

    Args:
        folder: created if missing.
        size: (h, w) of all pictures.
        quality: of JPEGs that were encoded for these shards; only recorded.
        shard_mb: a shard is closed when it holds this many megabytes.

    Raises:
        InputError: the folder holds pictures of another size or quality, or is damaged.
    """

    def __init__(
        self, folder: str | Path, size: tuple[int, int], *, quality: int | None = None, shard_mb: float = 256
    ) -> None:
        self.folder, self.size = Path(folder), (int(size[0]), int(size[1]))
        self._quality, self._limit = quality, shard_mb * MB
        self._names: set[str] = set()
        self._rows: dict[str, list[Any]] = {}
        self._open_shard = ExitStack()
        self._tar: tarfile.TarFile | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def __len__(self) -> int:
        return len(self._names)

    def __enter__(self) -> ShardWriter:
        require_writable_folder(self.folder)
        shards = list_shards(self.folder)
        for leftover in self.folder.glob(".shard-*.tar"):
            leftover.unlink(missing_ok=True)
        if shards or (self.folder / "data.json").exists():
            self._info = DataInfo.read(self.folder)
            self._require_settings()
        else:
            self._info = DataInfo((self.size[1], self.size[0]), self._quality)
            self._info.write(self.folder)
        for name, size in self._info.shards.items():
            _require_shard(self.folder, name, size)
        self._old = open_index(self.folder, self._info) if self._info.index else None
        if self._old is not None:
            self._names.update(self._old["names"].tolist())
        self._new: list[int] = []
        for number, path in shards.items():
            if path.name not in self._info.shards:
                self._adopt(number, path)
        self._number = max(shards, default=-1) + 1
        return self

    def add_scene(
        self, cameras: SceneCameras, jpegs: Sequence[bytes], bounds: tuple[float, float] | None = None
    ) -> None:
        """Add a scene: its cameras, a JPEG of ``size`` for each, and its near and far depth if known.

        Raises:
            InputError: a scene of this name exists, or the name is invalid.
            OSError: the disk is full.
        """
        if len(jpegs) != len(cameras) or not jpegs:
            raise ValueError(f"jpegs: one for each of {len(cameras)} cameras expected, got {len(jpegs)}")
        check_scene_name(cameras.name)
        if cameras.name in self:
            raise InputError(f"{self.folder}: scene {cameras.name} exists already; leave it out")
        tar = self._tar or self._start_shard()
        checksums = np.array([zlib.crc32(data) for data in jpegs], np.uint32)
        arrays = {
            "timestamps": np.asarray(cameras.timestamps, np.int64),
            "intrinsics": np.asarray(cameras.intrinsics, np.float64),
            "T_cam_world": np.asarray(cameras.T_cam_world, np.float64),
        }
        near_far = np.array(bounds or (np.nan, np.nan))
        url = np.array(cameras.url, dtype=np.str_)
        packed = pack_cameras({**arrays, "checksums": checksums, "bounds": near_far, "url": url})
        _append(tar, f"{cameras.name}.{CAMERAS_MEMBER}", packed)
        for stamp, data in zip(arrays["timestamps"].tolist(), jpegs, strict=True):
            self._rows["offsets"].append(_append(tar, f"{cameras.name}.{stamp}.jpg", data))
        self._rows["sizes"].extend(len(data) for data in jpegs)
        self._rows["checksums"].extend(checksums)
        for name, values in arrays.items():
            self._rows[name].extend(values)
        self._rows["names"].append(cameras.name)
        self._rows["shards"].append(self._number)
        self._rows["counts"].append(len(jpegs))
        self._rows["bounds"].append(near_far)
        self._names.add(cameras.name)
        if tar.offset >= self._limit:
            self._finish_shard()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._open_shard.__exit__(kind, error, traceback)
            return
        if self._tar is not None:
            self._finish_shard()
        if self._new:
            self._info = publish_index(self.folder, self._info, self._old, self._new)

    def _require_settings(self) -> None:
        width, height = self._info.size_wh
        if (height, width) != self.size:
            raise InputError(
                f"{self.folder}: holds pictures of {width} x {height}, not {self.size[1]} x {self.size[0]}; "
                f"give that size, or choose another folder"
            )
        if None not in (self._quality, self._info.quality) and self._quality != self._info.quality:
            raise InputError(
                f"{self.folder}: was made with quality {self._info.quality}, not {self._quality}; "
                f"give that quality, or choose another folder"
            )

    def _adopt(self, number: int, path: Path) -> None:
        """Take over a shard that an interrupted writer left."""
        table = load_part(self.folder, number)
        if table is None:
            table = scan_shard(path, number)
            save_part(self.folder, number, table)
        self._names.update(table["names"].tolist())
        self._new.append(number)

    def _start_shard(self) -> tarfile.TarFile:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.folder / shard_name(self._number)))
            stack.callback(self._forget_shard)
            self._tar = stack.enter_context(tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT))
            self._rows = {name: [] for name in FRAME_ARRAYS | SCENE_ARRAYS}
            self._open_shard = stack.pop_all()
        return self._tar

    def _finish_shard(self) -> None:
        # The table comes first, so that every shard under its final name has one.
        save_part(self.folder, self._number, to_table(self._rows))
        self._open_shard.close()
        self._new.append(self._number)
        self._number += 1

    def _forget_shard(self) -> None:
        self._tar = None


def rebuild_index(folder: str | Path, progress: Callable[[int], None] | None = None) -> DataInfo:
    """Rebuild ``data.json`` and the index from the shards; each picture is compared with its checksum.

    Args:
        folder: with the shards.
        progress: called with the number of bytes read since the last call.

    Raises:
        InputError: there is no shard, one is damaged, a scene is in two of them, or a newer version wrote them.
    """
    folder = Path(folder)
    shards = list_shards(folder) if folder.is_dir() else {}
    if not shards:
        raise InputError(f"{folder}: holds no shards ({shard_name(0)} ...); check --out_dir")
    try:
        quality = DataInfo.read(folder).quality
    except NewerFormatError:
        raise
    except InputError:
        quality = None
    shard_of: dict[str, str] = {}
    sizes = {}
    for number, path in shards.items():
        table = scan_shard(path, number, progress)
        for name in table["names"].tolist():
            if name in shard_of:
                raise InputError(f"{path}: scene {name} is in {shard_of[name]} too; remove one of the two shards")
            shard_of[name] = path.name
        sizes[path.name] = picture_size(path, table)
        if len(set(sizes.values())) > 1:
            (width, height), first = sizes[path.name], next(iter(sizes))
            raise InputError(f"{path}: pictures of {width} x {height}, {first} has others; remove one of the two")
        save_part(folder, number, table)
    return publish_index(folder, DataInfo(next(iter(sizes.values())), quality), None, list(shards))


def check_scene_name(name: str) -> None:
    """Reject a name that cannot be part of a shard or of a line of text.

    Raises:
        InputError: it holds a space, a dot or a slash, or is too long.
    """
    if not _SCENE_NAME.fullmatch(name):
        raise InputError(f"scene {name!r}: 1 to 60 characters without space, dot and slash expected; rename it")


def encode_jpeg(
    picture: np.ndarray,  # [H, W, 3] uint8 RGB
    quality: int,
) -> bytes:
    """Encode a picture as JPEG bytes."""
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ValueError(f"picture: cannot be encoded as JPEG, got {picture.dtype} {list(picture.shape)}")
    return data.tobytes()


def _append(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Add a member to a tar; returns the offset of its data."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    tar.addfile(member, io.BytesIO(data))
    return tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _require_shard(folder: Path, name: str, size: int) -> None:
    path = folder / name
    try:
        actual = path.stat().st_size
    except FileNotFoundError:
        raise InputError(_missing(folder, name)) from None
    if actual != size:
        raise InputError(f"{path}: {actual} bytes, {size} expected, it is cut short or another shard; copy it again")


def _missing(folder: Path, name: str) -> str:
    return f"{folder / name}: this shard is missing; copy it here again, or do without it: {rebuild_advice(folder)}"
