"""The index of training shards: the position of each picture in them, and the cameras, as memory-mapped arrays.

A folder of shards holds

    data.json            version, size, counts, the shards with their bytes, the name of the index folder
    shard-00000.tar ...  for each scene SCENE.cameras.npz, then SCENE.TIMESTAMP.jpg by time
    index-00001/*.npy    the arrays of ``FRAME_ARRAYS`` and ``SCENE_ARRAYS``
    .shard-00000.npz     the same arrays of a finished shard that is not in the index yet

``data.json`` is replaced last, so that it always names a complete index. Everything except the shards can be rebuilt
from the shards.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskvolume.io.files import atomic_path
from maskvolume.runtime.errors import InputError

FORMAT_NAME = "maskvolume scene shards"
FORMAT_VERSION = 1
DATA_NAME = "data.json"
SHARD_PATTERN = re.compile(r"shard-(\d{5,})\.tar")
CAMERAS_MEMBER = "cameras.npz"
MAKE = "make it with preprocessing/compress_data.py"

# dtype and shape of a row: intrinsics fx fy cx cy divided by width and height; offsets and sizes in bytes; crc32.
FRAME_ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "timestamps": ("<i8", ()),
    "intrinsics": ("<f4", (4,)),
    "T_cam_world": ("<f4", (3, 4)),
    "offsets": ("<i8", ()),
    "sizes": ("<i4", ()),
    "checksums": ("<u4", ()),
}
# Bounds are NaN if unknown; names are text as wide as the longest.
SCENE_ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "names": ("<U", ()),
    "shards": ("<i4", ()),
    "counts": ("<i4", ()),
    "bounds": ("<f4", (2,)),
}
_COPY_ROWS = 1 << 16
# Errors that numpy and zipfile raise for damaged bytes.
_DAMAGED_ARRAY = (
    ValueError,
    EOFError,
    SyntaxError,
    TypeError,
    KeyError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)

Table = dict[str, np.ndarray]  # all arrays of one shard


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard-{number:05d}.tar"


def rebuild_advice(folder: Path) -> str:
    """Advice for an index that is missing or damaged."""
    return f"rebuild it from the shards: python preprocessing/compress_data.py --out_dir {folder} --rebuild_index"


def list_shards(folder: Path) -> dict[int, Path]:
    """The shards in a folder, by number."""
    matches = ((SHARD_PATTERN.fullmatch(path.name), path) for path in folder.iterdir())
    return dict(sorted((int(match[1]), path) for match, path in matches if match))


class NewerFormatError(InputError):
    """The data was written by a newer version of the program."""


@dataclass(frozen=True)
class DataInfo:
    """The contents of ``data.json``.

    Attributes:
        size_wh: width and height of all pictures.
        quality: of the JPEGs that were encoded for the shards; None if unknown.
        scenes, frames: their numbers in the index.
        index: name of the index folder; empty if there is none yet.
        shards: bytes of each shard in the index, by file name.
    """

    size_wh: tuple[int, int]
    quality: int | None = None
    scenes: int = 0
    frames: int = 0
    index: str = ""
    shards: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def read(folder: Path) -> DataInfo:
        """Read ``data.json`` of a folder.

        Raises:
            InputError: not a folder of training data, a damaged file or a newer version.
        """
        path = folder / DATA_NAME
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of training data; check the path, or {MAKE}")
        if not path.is_file():
            if list_shards(folder):
                raise InputError(f"{path}: missing; {rebuild_advice(folder)}")
            raise InputError(f"{folder}: holds no training data ({DATA_NAME}, {shard_name(0)} ...); {MAKE}")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            is_ours = values.pop("format") == FORMAT_NAME
            version = int(values.pop("version"))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{path}: damaged; {rebuild_advice(folder)}") from None
        if not is_ours:
            raise InputError(f"{path}: describes another kind of data; check the path, or {MAKE}")
        if version > FORMAT_VERSION:
            raise NewerFormatError(
                f"{path}: version {version} of the format, this program reads {FORMAT_VERSION}; "
                f"update the program, or make the data again with this one"
            )
        try:
            width, height = (int(n) for n in values.pop("size_wh"))
            info = DataInfo(size_wh=(width, height), **values)
            is_whole = all(isinstance(n, int) for n in (info.scenes, info.frames, *info.shards.values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            is_whole = False
        if not is_whole:
            raise InputError(f"{path}: damaged; {rebuild_advice(folder)}")
        return info

    def write(self, folder: Path) -> None:
        """Write ``data.json`` atomically."""
        values = {"format": FORMAT_NAME, "version": FORMAT_VERSION, **asdict(self)}
        with atomic_path(folder / DATA_NAME) as temporary:
            temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def open_index(folder: Path, info: DataInfo) -> Table:
    """The arrays of the index, memory-mapped.

    Raises:
        InputError: an array is missing, damaged or of another length.
    """
    table = {}
    for name, (dtype, row) in (FRAME_ARRAYS | SCENE_ARRAYS).items():
        path = folder / info.index / f"{name}.npy"
        rows = info.frames if name in FRAME_ARRAYS else info.scenes
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise InputError(f"{path}: a part of the index is missing; {rebuild_advice(folder)}") from None
        except _DAMAGED_ARRAY:
            raise InputError(f"{path}: a part of the index is damaged; {rebuild_advice(folder)}") from None
        same_dtype = array.dtype.kind == "U" if name == "names" else array.dtype == np.dtype(dtype)
        if not same_dtype or array.shape != (rows, *row):
            raise InputError(f"{path}: does not belong to {DATA_NAME}; {rebuild_advice(folder)}")
        table[name] = array
    if int(table["counts"].sum(dtype=np.int64)) != info.frames:
        raise InputError(f"{folder / info.index}: scenes and frames do not agree; {rebuild_advice(folder)}")
    return table


def part_path(folder: Path, number: int) -> Path:
    """Path of the table of a shard until it is in the index."""
    return folder / f".{Path(shard_name(number)).stem}.npz"


def save_part(folder: Path, number: int, table: Table) -> None:
    """Write the table of a shard."""
    with atomic_path(part_path(folder, number)) as temporary, open(temporary, "wb") as file:
        np.savez(file, **table)  # type: ignore[arg-type]


def load_part(folder: Path, number: int, names: Iterable[str] = (*FRAME_ARRAYS, *SCENE_ARRAYS)) -> Table | None:
    """The table of a shard, or only the arrays ``names``; None if it is missing or damaged."""
    try:
        with np.load(part_path(folder, number), allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (FileNotFoundError, *_DAMAGED_ARRAY):
        return None


def publish_index(folder: Path, info: DataInfo, old: Table | None, numbers: Sequence[int]) -> DataInfo:
    """Write an index of the entries of ``old`` and of the shards ``numbers``, whose tables exist.

    Memory holds one array of one shard at a time. The old index and the tables are removed once ``data.json``
    names the new one.
    """
    folders = [int(path.name.removeprefix("index-")) for path in folder.glob("index-*") if path.name[6:].isdigit()]
    target = folder / f"index-{max(folders, default=0) + 1:05d}"
    target.mkdir()
    scenes, frames, width = info.scenes, info.frames, 1 if old is None else old["names"].dtype.itemsize // 4
    for number in numbers:
        names, sizes = _part_array(folder, number, "names"), _part_array(folder, number, "sizes")
        scenes, frames, width = scenes + len(names), frames + len(sizes), max(width, names.dtype.itemsize // 4)
    for name, (dtype, row) in (FRAME_ARRAYS | SCENE_ARRAYS).items():
        dtype = f"<U{width}" if name == "names" else dtype
        shape = (frames if name in FRAME_ARRAYS else scenes, *row)
        _write_array(target / f"{name}.npy", np.dtype(dtype), shape, _pieces(folder, name, old, numbers))
    shards = dict(info.shards) if old is not None else {}
    shards |= {shard_name(number): (folder / shard_name(number)).stat().st_size for number in numbers}
    new = DataInfo(info.size_wh, info.quality, scenes, frames, target.name, dict(sorted(shards.items())))
    new.write(folder)
    for path in folder.glob("index-*"):
        if path.name != target.name:
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".shard-*.npz"):
        path.unlink(missing_ok=True)
    return new


def _part_array(folder: Path, number: int, name: str) -> np.ndarray:
    table = load_part(folder, number, [name])
    if table is None:
        raise InputError(f"{part_path(folder, number)}: can no longer be read; run the same command again")
    return table[name]


def _pieces(folder: Path, name: str, old: Table | None, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    if old is not None:
        for start in range(0, len(old[name]), _COPY_ROWS):
            yield old[name][start : start + _COPY_ROWS]
    for number in numbers:
        yield _part_array(folder, number, name)


def _write_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], pieces: Iterable[np.ndarray]) -> None:
    with open(path, "wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, dtype=dtype).tobytes())


def scan_shard(path: Path, number: int, progress: Callable[[int], None] | None = None) -> Table:
    """Read a shard and return its table; each picture is compared with its checksum.

    Raises:
        InputError: the shard is truncated, damaged or in another format.
    """
    advice = "copy it again, or remove it and run with --rebuild_index (its scenes can then be added again from frames)"
    rows: dict[str, list[Any]] = {name: [] for name in FRAME_ARRAYS | SCENE_ARRAYS}
    scene, expected, end = "", 0, 0
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name, _, rest = member.name.partition(".")
                stream = tar.extractfile(member)
                data = stream.read() if stream else b""
                last, end = end, member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if progress:
                    progress(end - last)
                index = len(rows["sizes"])
                if rest == CAMERAS_MEMBER and index == expected:
                    scene = name
                    expected += _append_cameras(rows, scene, number, data)
                    continue
                stamp = f"{rows['timestamps'][index]}.jpg" if index < expected else ""
                if name != scene or rest != stamp:
                    raise InputError(f"{path}: {member.name} is not the expected member; {advice}")
                if zlib.crc32(data) != rows["checksums"][index]:
                    raise InputError(f"{path}: scene {scene}: picture {rest} is damaged; {advice}")
                rows["offsets"].append(member.offset_data)
                rows["sizes"].append(len(data))
    except (tarfile.TarError, *_DAMAGED_ARRAY) as error:
        raise InputError(f"{path}: damaged ({error or type(error).__name__}); {advice}") from error
    if not expected or len(rows["sizes"]) != expected or not _ends_at(path, end):
        raise InputError(f"{path}: cut short or damaged after byte {end}, in or after scene {scene}; {advice}")
    if progress:
        progress(path.stat().st_size - end)
    return to_table(rows)


def to_table(rows: Mapping[str, Sequence[Any]]) -> Table:
    """Convert rows to arrays with the index's dtypes."""
    arrays = FRAME_ARRAYS | SCENE_ARRAYS
    return {name: np.array(rows[name], dtype=dtype).reshape(-1, *row) for name, (dtype, row) in arrays.items()}


def pack_cameras(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of ``SCENE.cameras.npz``: plain arrays, the same bytes for the same values."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def picture_size(shard: Path, table: Table) -> tuple[int, int]:
    """(width, height) of the first picture of a shard."""
    with open(shard, "rb") as file:
        file.seek(int(table["offsets"][0]))
        with Image.open(io.BytesIO(file.read(int(table["sizes"][0])))) as picture:
            return picture.size


def _append_cameras(rows: dict[str, list[Any]], scene: str, number: int, data: bytes) -> int:
    with np.load(io.BytesIO(data), allow_pickle=False) as cameras:
        count = len(cameras["timestamps"])
        for name in ("timestamps", "intrinsics", "T_cam_world", "checksums"):
            if cameras[name].shape != (count, *FRAME_ARRAYS[name][1]):
                raise ValueError(f"{CAMERAS_MEMBER} of scene {scene}")
            rows[name].extend(cameras[name])
        rows["bounds"].append(cameras["bounds"])
    rows["names"].append(scene)
    rows["shards"].append(number)
    rows["counts"].append(count)
    return count


def _ends_at(path: Path, position: int) -> bool:
    """Whether only a tar's closing zeros follow its last member.

    tarfile accepts a tar that is truncated between two members or whose next header is damaged.
    """
    with open(path, "rb") as file:
        file.seek(position)
        rest = file.read(2 * tarfile.RECORDSIZE)
    return 2 * tarfile.BLOCKSIZE <= len(rest) < 2 * tarfile.RECORDSIZE and not rest.strip(b"\0")
