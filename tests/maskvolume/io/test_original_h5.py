"""The original's HDF5 file and its arrays: read plainly, and never a pickle unasked."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from realestate10k_helpers import original_scenes

from benchmarks.data_reading import write_original
from maskvolume.io.original_h5 import OriginalData, OriginalScene
from maskvolume.runtime.errors import InputError
from preprocessing.compress_data import (
    PictureForm,
    pack_scene,
)

SIZE = (48, 80)


FORM = PictureForm(SIZE, quality=92, min_frames=10)


class Trap:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["TRAP"],)


def test_a_pickle_is_not_opened_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    root = tmp_path / "original"
    write_original(root, original_scenes([12], SIZE))
    np.save(root / "ext.npy", np.array([Trap()], object), allow_pickle=True)
    np.save(root / "int.npy", np.tile(np.eye(3), (1, 12, 1, 1)))
    with pytest.raises(InputError, match=r"ext\.npy: holds pickled objects"):
        OriginalData(root)
    assert not (tmp_path / "sprung").exists()


def test_plain_arrays_of_the_original_need_no_leave(tmp_path: Path) -> None:
    write_original(tmp_path, original_scenes([4, 4], SIZE))
    for name in ("int.npy", "ext.npy"):
        rows = np.load(tmp_path / name, allow_pickle=True)
        np.save(tmp_path / name, np.stack([np.asarray(row, np.float64) for row in rows]))
    data = OriginalData(tmp_path)
    assert len(data.scene("1").cameras()) == 4


def test_scenes_of_the_original_that_are_wrong(tmp_path: Path) -> None:
    path = write_original(tmp_path, original_scenes([12, 12], SIZE))
    scene = OriginalData(tmp_path, allow_pickle=True).scene("1")
    K, T = scene.K, scene.T_cam_world
    pixels, bent, mirrored, nan = K * 640, T.copy(), T.copy(), T.copy()
    bent[5, 0, 0], mirrored[5, 0], nan[5, 0, 3] = -2, -mirrored[5, 0], np.nan
    for K_bad, T_bad, words in (
        (K[:5], T, "(N, 3, 3) and (N, 4, 4) expected"),
        (pixels, T, "row 0 of int.npy and ext.npy is no camera with normalized K"),
        (K, bent, "row 5"),
        (K, mirrored, "row 5"),
        (K, nan, "row 5"),
        (K[:11], T[:11], "shape (12, 48, 80, 3), but 11 cameras"),
    ):
        packed = pack_scene(OriginalScene(path, "1", K_bad, T_bad), FORM)
        assert packed.cameras is None
        assert words in packed.why


def test_damage_in_the_original_form(tmp_path: Path) -> None:
    path = write_original(tmp_path, original_scenes([40], SIZE))
    with h5py.File(path) as file:
        place = file["0"].id.get_chunk_info(0)
        depth = file["0"].chunks[0]
    data = bytearray(path.read_bytes())
    data[place.byte_offset : place.byte_offset + 40] = bytes(range(255, 215, -1))
    path.write_bytes(data)
    scene = OriginalData(tmp_path, allow_pickle=True).scene("0")
    packed = pack_scene(scene, FORM)
    assert packed.cameras is not None
    assert list(packed.lost) == list(range(depth))
    assert all("cannot be decompressed" in why for why in packed.lost.values())
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"80x48\.h5: damaged or not an HDF5 file"):
        OriginalData(tmp_path, allow_pickle=True)


def test_files_of_the_original_that_do_not_belong_together(tmp_path: Path) -> None:
    write_original(tmp_path, original_scenes([4, 4], SIZE))
    rows = np.load(tmp_path / "int.npy", allow_pickle=True)
    np.save(tmp_path / "int.npy", rows[:1], allow_pickle=True)
    with pytest.raises(InputError, match=r"int\.npy has 1 scenes, ext\.npy 2"):
        OriginalData(tmp_path, allow_pickle=True)
    (tmp_path / "int.npy").write_bytes(b"\x93NUMPY junk")
    with pytest.raises(InputError, match=r"int\.npy: damaged"):
        OriginalData(tmp_path, allow_pickle=True)
    (tmp_path / "int.npy").unlink()
    with pytest.raises(InputError, match=r"int\.npy: no such file"):
        OriginalData(tmp_path, allow_pickle=True)
