"""Writing scenes of rigs: whole or not at all."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from rig_h5_helpers import FORMS, SIZE, Source, make_poses, write

from maskvolume.io.llff import read_poses_bounds
from maskvolume.io.rig_h5 import RigScene, poses_file
from maskvolume.io.rig_h5_writer import SceneForm, write_rig_scene
from maskvolume.io.shards import encode_jpeg
from maskvolume.runtime.errors import InputError


def test_the_form_of_the_original(tmp_path):
    path = write(tmp_path / "scene000.h5")
    with h5py.File(path) as file:
        assert {key: (file[key].shape, file[key].dtype) for key in file} == {
            "rgb": ((3, 4, *SIZE, 3), np.uint8),
            "fg_rgb": ((3, 4, *SIZE, 4), np.uint8),
            "bg_rgb": ((3, *SIZE, 3), np.uint8),
        }
        assert file["rgb"].chunks == (1, 1, *SIZE, 3)
        assert file["fg_rgb"].chunks == (1, 1, *SIZE, 4)
        assert file["rgb"].compression == "lzf"
        np.testing.assert_array_equal(file["fg_rgb"][1, 2, ..., :3], file["rgb"][1, 2])
    assert np.load(tmp_path / "scene000_pb.npy").shape == (3, 17)


def test_a_jpeg_is_kept_as_it_is(tmp_path):
    source = Source()
    source.jpegs[1, 2] = encode_jpeg(source.picture(1, 2), 40)
    path = write(tmp_path / "scene000.h5", FORMS["compact"], source)
    with h5py.File(path) as file:
        start, count, _ = file["rgb_index"][1, 2]
        assert file["rgb"][start : start + count].tobytes() == source.jpegs[1, 2]
    decoded = cv2.imdecode(np.frombuffer(source.jpegs[1, 2], np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(RigScene(path).picture(1, 2), decoded)


def test_an_interruption_leaves_nothing(tmp_path):
    """Ctrl-C while the library is at work: the older scene stays, nothing is left aside."""
    path = write(tmp_path / "scene000.h5")
    before = path.read_bytes()
    count = 0

    def interrupt() -> None:
        nonlocal count
        count += 1
        if count == 5:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    source = Source(3, 300)
    with pytest.raises(KeyboardInterrupt):
        write_rig_scene(path, source, make_poses(3), SceneForm(), attributes={}, on_picture=interrupt)
    assert 5 <= count < 900
    assert path.read_bytes() == before
    assert sorted(child.name for child in tmp_path.iterdir()) == ["scene000.h5", "scene000_pb.npy"]


FULL_DISK = """
import resource, signal
from pathlib import Path
from rig_h5_helpers import SceneForm, Source, write

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (1000, 200_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
    for compact in (False, True):
        try:
            write(Path("scene000.h5"), SceneForm(compact, 100), Source(2, 30, (120, 160)))
        except OSError as error:
            print(error.errno, error.filename)
"""


@pytest.mark.slow
def test_a_full_disk_is_an_error_and_no_crash(tmp_path):
    tests = Path(__file__).parents[2]
    paths = [str(tests), str(tests.parent)]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths}\n" + FULL_DISK],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr  # the HDF5 library crashes when it ends, if a write has failed
    assert done.stdout.splitlines() == [f"{errno.EFBIG} scene000.h5"] * 4
    assert list(tmp_path.iterdir()) == []


def test_a_bad_picture_stops_the_writing(tmp_path):
    source = Source()

    def fail(camera: int, frame: int) -> np.ndarray:
        raise InputError("x.png: is damaged")

    source.matte = fail  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"x\.png"):
        write(tmp_path / "scene000.h5", source=source)
    assert list(tmp_path.iterdir()) == []


def test_poses_are_written_for_the_scene(tmp_path):
    path = write(tmp_path / "scene000.h5")
    assert torch.allclose(read_poses_bounds(poses_file(path)).cameras.K, make_poses(3).cameras.K)
