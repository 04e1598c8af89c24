"""compress_data.py: scenes become shards; what is damaged is left out and said; interruptions cost nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from realestate10k_helpers import make_cameras, original_scenes, photo

from benchmarks.data_reading import write_original
from maskvolume.io.images import read_image, resize_image
from maskvolume.io.realestate10k import write_scene_cameras
from maskvolume.io.shards import SceneShards, encode_jpeg
from maskvolume.io.triplets import read_triplets
from maskvolume.metrics import psnr
from maskvolume.runtime.errors import InputError
from preprocessing.compress_data import (
    FramesScene,
    PictureForm,
    list_scenes,
    main,
    pack_scene,
)
from preprocessing.report import Report

SIZE = (48, 80)
COUNT = 12
FORM = PictureForm(SIZE, quality=92, min_frames=10)
WH = ("--img_wh", str(SIZE[1]), str(SIZE[0]))


def write_frames(root: Path, name: str, count: int = COUNT, size: tuple[int, int] = SIZE, seed: int = 0) -> Path:
    """A scene as extract_frames.py writes it."""
    folder = root / name
    folder.mkdir(parents=True)
    cameras = make_cameras("cameras", f"https://a/{name}", [33_366 * i for i in range(count)])
    for i, timestamp in enumerate(cameras.timestamps.tolist()):
        (folder / f"{timestamp}.jpg").write_bytes(encode_jpeg(photo(100 * seed + i, size), 90))
    write_scene_cameras(folder / "cameras.txt", cameras)
    return folder


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Three scenes of 12 frames."""
    for seed, name in enumerate(("aa", "bb", "cc")):
        write_frames(tmp_path / "frames", name, seed=seed)
    return tmp_path / "frames"


def compress(root: Path, out: Path, *arguments: object) -> SceneShards:
    main([*("--root_dir", str(root), "--out_dir", str(out)), *WH, *map(str, arguments)])
    return SceneShards(out)


def state(folder: Path) -> dict[str, bytes]:
    """Everything in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def entry(out: Path, scene: str) -> dict[str, object]:
    return Report(out / "compression.jsonl", "scene").entries[scene]


def test_pictures_are_taken_as_they_are(frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    bounds = tmp_path / "bounds.txt"
    bounds.write_text("bb 1.25 30\nunknown 1 2\n")
    shards = compress(frames, out, "--bounds", bounds, "--num_triplets", 7)
    assert list(shards.names) == ["aa", "bb", "cc"]
    assert [shards.bounds(scene) for scene in range(3)] == [None, (1.25, 30), None]
    for scene, name in enumerate(shards.names):
        cameras = make_cameras(name, "", [33_366 * i for i in range(COUNT)])
        np.testing.assert_array_equal(shards.timestamps(scene), cameras.timestamps)
        np.testing.assert_array_equal(shards.T_cam_world(scene), cameras.T_cam_world.astype(np.float32))
        np.testing.assert_array_equal(shards.intrinsics(scene), cameras.intrinsics.astype(np.float32))
        for frame, timestamp in enumerate(cameras.timestamps.tolist()):
            path = frames / name / f"{timestamp}.jpg"
            assert shards.jpeg(scene, frame) == path.read_bytes()
            np.testing.assert_array_equal(shards.picture(scene, frame), read_image(path))
    choices = read_triplets(out / "triplets.txt")
    assert len(choices) == 7
    assert all(choice.target in shards.timestamps(shards.index(choice.scene)) for choice in choices)
    assert entry(out, "aa") == {"scene": "aa", "state": "done", "frames": COUNT, "dropped": []}
    assert "3 scenes, 3 of them new, 36 frames" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    compress(frames, out, "--bounds", bounds)
    assert "3 scenes, 0 of them new, 36 frames" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_the_number_of_workers_changes_nothing(frames: Path, tmp_path: Path) -> None:
    compress(frames, tmp_path / "one", "--workers", 1)
    compress(frames, tmp_path / "three", "--workers", 3)
    assert state(tmp_path / "one") == state(tmp_path / "three")


def test_scenes_are_added(frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert list(compress(frames, out, "--limit", 2).names) == ["aa", "bb"]
    before = state(out)
    write_frames(frames, "ab", seed=5)
    (frames / "dd").mkdir()
    shards = compress(frames, out)
    assert list(shards.names) == ["aa", "bb", "ab", "cc"]
    assert entry(out, "dd")["state"] == "dropped"
    assert "extract_frames.py again" in str(entry(out, "dd")["why"])
    after = state(out)
    assert all(after[name] == before[name] for name in ("shard-00000.tar", "triplets.txt"))
    (frames / "dd").rmdir()
    write_frames(frames, "dd", seed=6)
    assert list(compress(frames, out).names) == ["aa", "bb", "ab", "cc", "dd"]
    assert entry(out, "dd")["state"] == "done"
    compress(frames, out, "--overwrite", "--limit", 1)
    assert sorted(path.name for path in out.glob("*-0*")) == ["index-00001", "shard-00000.tar"]
    assert list(SceneShards(out).names) == ["aa"]


def test_other_sizes_are_resized_and_encoded(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames", "big", size=(96, 200))
    png = cv2.imencode(".png", photo(1, SIZE)[..., ::-1])[1].tobytes()
    (folder / "0.jpg").write_bytes(png)  # of the right size, but no JPEG
    packed = pack_scene(FramesScene(folder), FORM)
    assert packed.cameras is not None
    decoded = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) for data in packed.jpegs]
    assert all(data.startswith(b"\xff\xd8") for data in packed.jpegs)
    assert psnr_of(decoded[0], photo(1, SIZE)) > 32
    assert psnr_of(decoded[3], resize_image(photo(3, (96, 200)), SIZE)) > 32
    np.testing.assert_array_equal(packed.cameras.intrinsics[0], [0.5, 0.9, 0.5, 0.5])  # normalized: holds for any size


def psnr_of(a: np.ndarray, b: np.ndarray) -> float:
    import torch

    return float(psnr(*(torch.from_numpy(x.transpose(2, 0, 1).copy()).float() / 255 for x in (a, b))))


def damage_entropy(path: Path) -> None:
    """Overwrite the middle of the coded data with what is no code of it."""
    data = bytearray(path.read_bytes())
    middle = (data.rindex(b"\xff\xda") + len(data)) // 2
    data[middle : middle + 60] = bytes(60 * [0xFF, 0x00])[:60]
    path.write_bytes(data)


def test_damaged_pictures_are_dropped_with_their_cameras(frames: Path, tmp_path: Path) -> None:
    files = sorted((frames / "aa").glob("*.jpg"), key=lambda path: int(path.stem))
    files[1].unlink()
    files[4].write_bytes(files[4].read_bytes()[:-300])
    damages = [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no picture"),
        damage_entropy,
    ]
    for path, damage in zip(sorted((frames / "bb").glob("*.jpg"))[:3], damages, strict=True):
        damage(path)
    out = tmp_path / "out"
    shards = compress(frames, out)
    assert list(shards.names) == ["aa", "cc"]
    kept = [i for i in range(COUNT) if i not in (1, 4)]
    assert shards.timestamps(0).tolist() == [33_366 * i for i in kept]
    assert shards.T_cam_world(0)[:, 0, 3].tolist() == kept
    assert [shards.jpeg(0, k) for k in range(10)] == [files[i].read_bytes() for i in kept]
    dropped = entry(out, "aa")["dropped"]
    assert isinstance(dropped, list)
    assert [lost["timestamp"] for lost in dropped] == [33_366, 4 * 33_366]
    for lost, word in zip(dropped, ("no such picture", "cut short"), strict=True):
        assert str(frames / "aa" / f"{lost['timestamp']}.jpg") in lost["why"]
        assert word in lost["why"]
    gone = entry(out, "bb")
    assert gone["why"] == "9 good frames, --min_frames 10 expected"
    assert isinstance(gone["dropped"], list)
    whys = " ".join(lost["why"] for lost in gone["dropped"])
    assert all(word in whys for word in ("is empty", "cannot be read", "is damaged"))
    assert list(compress(frames, tmp_path / "fewer", "--min_frames", 9).names) == ["aa", "bb", "cc"]


def test_damaged_camera_files_drop_the_scene(frames: Path) -> None:
    (frames / "aa" / "cameras.txt").write_text("https://a/b\n1 2 3\n")
    packed = pack_scene(FramesScene(frames / "aa"), FORM)
    assert packed.cameras is None
    assert "cameras.txt, line 2: 19 numbers expected" in packed.why


def test_no_scene_is_good(frames: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of 3 scenes is good; the first: 12 good frames, --min_frames 13"):
        compress(frames, tmp_path / "out", "--min_frames", 13)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 scenes of 0.1 MB each, and what an uninterrupted run makes of them, in whole/; not to be changed."""
    root = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    data = [encode_jpeg(rng.integers(0, 256, (*SIZE, 3), np.uint8), 100) for _ in range(COUNT)]
    for number in range(80):
        folder = write_frames(root / "frames", f"scene{number:03d}", count=COUNT)
        for path, jpeg in zip(sorted(folder.glob("*.jpg")), data, strict=True):
            path.write_bytes(jpeg)
    compress(root / "frames", root / "whole", "--shard_mb", 1)
    return root


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_is_gone_on_with(noise: Path, tmp_path: Path, repo_root: Path, how: signal.Signals) -> None:
    frames, out, whole = noise / "frames", tmp_path / "out", noise / "whole"
    program = [sys.executable, str(repo_root / "preprocessing/compress_data.py"), "--root_dir", str(frames)]
    program += [*WH, "--shard_mb", "1"]
    process = subprocess.Popen([*program, "--out_dir", str(out)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out / "shard-00000.tar").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    listing = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    children = [Path("/proc") / child for child in listing.read_text().split()] if listing.exists() else []
    process.send_signal(how)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == (130 if how == signal.SIGTERM else -how), stderr
    assert "Traceback" not in stderr
    while any(child.exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [child for child in children if child.exists()]
    finished = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*.tar")}
    assert "shard-00000.tar" in finished
    assert len(list(whole.glob("*.tar"))) > len(finished)
    compress(frames, out, "--shard_mb", 1)
    assert {name: data for name, data in state(out).items() if not name.startswith(".compression.")} == state(whole)
    assert all((out / name).stat().st_mtime_ns == written for name, written in finished.items())


def test_the_original_form_is_converted(tmp_path: Path) -> None:
    scenes = original_scenes([12, 10, 30], SIZE)
    root, out = tmp_path / "original", tmp_path / "out"
    write_original(root, scenes)
    with pytest.raises(InputError, match=r"int\.npy: holds pickled objects.*--allow_pickle"):
        compress(root, out)
    shards = compress(root, out, "--allow_pickle")
    assert list(shards.names) == ["0", "1", "2"]
    for scene, (cameras, pictures) in enumerate(scenes):
        assert shards.timestamps(scene).tolist() == list(range(len(cameras)))  # it has none: numbers of the frames
        np.testing.assert_array_equal(shards.intrinsics(scene), cameras.intrinsics.astype(np.float32))
        np.testing.assert_array_equal(shards.T_cam_world(scene), cameras.T_cam_world.astype(np.float32))
        for frame in (0, 7, len(cameras) - 1):
            assert psnr_of(shards.picture(scene, frame), pictures[frame]) > 32


def test_the_index_is_made_anew(frames: Path, tmp_path: Path, call_program) -> None:
    out = tmp_path / "out"
    compress(frames, out)
    before = state(out)
    (out / "data.json").unlink()
    done = call_program("preprocessing/compress_data.py", "--root_dir", frames, "--out_dir", out, *WH)
    done.check_input_error("data.json", "--rebuild_index")
    done = call_program("preprocessing/compress_data.py", "--out_dir", out, "--rebuild_index")
    assert done.rc == 0, done.stderr
    assert "3 scenes, 36 frames, 1 shards; all pictures are whole" in done.stdout
    after = state(out)
    for name, data in before.items():
        if name != "data.json":
            assert after[name.replace("index-00001", "index-00002")] == data
    (out / "shard-00000.tar").write_bytes(before["shard-00000.tar"][:20000])
    done = call_program("preprocessing/compress_data.py", "--out_dir", out, "--rebuild_index")
    done.check_input_error("shard-00000.tar", "copy it again")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--out_dir: this option is required"),
        (("--out_dir", "OUT"), "--root_dir: this option is required"),
        (("--out_dir", "OUT", "--root_dir", "no"), "no: no such folder"),
        (("--out_dir", "OUT", "--root_dir", "."), "neither frames from extract_frames.py"),
        (("--out_dir", "OUT", "--root_dir", "OUT"), "a separate folder for the shards"),
        (("--out_dir", "OUT", "--rebuild_index"), "holds no shards"),
        (("--out_dir", "OUT", "--root_dir", ".", "--quality", "0"), "--quality: 1 to 100 expected, got 0"),
        (("--out_dir", "OUT", "--root_dir", ".", "--workers", "0"), "--workers: 1 or more expected, got 0"),
        (("--out_dir", "OUT", "--root_dir", ".", "--min_frames", "2"), "--min_frames: 3 or more expected, got 2"),
        (("--out_dir", "OUT", "--root_dir", ".", "--img_wh", "0", "9"), "--img_wh: 1 or more expected, got 0"),
    ],
)
def test_bad_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        main(arguments)
    assert words in str(caught.value)


def test_bad_folders(frames: Path, tmp_path: Path) -> None:
    (frames / "a.b").mkdir()
    with pytest.raises(InputError, match=r"'a\.b'.*rename it"):
        list_scenes(frames, False)
    (frames / "a.b").rmdir()
    compress(frames, tmp_path / "out", "--limit", 1)
    with pytest.raises(InputError, match="made with quality 92, not 80"):
        compress(frames, tmp_path / "out", "--quality", 80)
    with pytest.raises(InputError, match=r"bounds\.txt: no such file"):
        compress(frames, tmp_path / "new", "--bounds", tmp_path / "bounds.txt")
    for name in ("1x1.h5", "2x2.h5"):
        (frames / name).touch()
    with pytest.raises(InputError, match=r"holds 1x1\.h5 and 2x2\.h5"):
        list_scenes(frames, False)


def test_help(run_program) -> None:
    done = run_program("preprocessing/compress_data.py", "--help")
    assert done.rc == 0
    for name in ("root_dir", "workers", "limit", "allow_pickle", "rebuild_index", "bounds"):
        assert f"--{name}" in done.stdout
