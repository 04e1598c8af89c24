"""make_mattes: what moves is found under noise, flicker and shadows; three ways, kept, and one clear line each."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from urllib.error import URLError

import cv2
import numpy as np
import pytest
import torch
import torchvision
from matte_helpers import SIZE, make_scene

from data_tools.make_backgrounds import main as make_backgrounds
from data_tools.make_mattes import main
from data_tools.mattes.difference import BackgroundModel
from maskvolume.clips.mattes import read_matte
from maskvolume.io.images import read_image, write_image
from maskvolume.io.video import VideoWriter
from maskvolume.runtime.errors import InputError


def write_clip(folder: Path, cameras: tuple[str, ...] = ("cam01", "cam10")) -> Path:
    scene = make_scene(noise=1)
    for number, camera in enumerate(cameras):
        for frame in range(5):
            picture = np.ascontiguousarray(scene.frames[2 * frame][:, :: 1 - 2 * number])
            write_image(folder / camera / f"{frame:05d}.png", picture)
    make_backgrounds([str(folder)])
    return folder


@pytest.fixture(scope="module")
def made_clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "frames")


@pytest.fixture
def clip(made_clip, tmp_path) -> Path:
    """Two cameras, five frames and their backgrounds; no poses."""
    return Path(shutil.copytree(made_clip, tmp_path / "frames"))


def make(clip: Path, *options: object) -> Path:
    main([str(clip), *map(str, options)])
    return clip / "mattes"


def times(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*.png"))}


def test_names_form_and_contents(clip, capsys):
    mattes = make(clip)
    assert list(times(mattes)) == [f"{camera}/{i:05d}.png" for camera in ("cam01", "cam10") for i in range(5)]
    assert "10 mattes of 2 cameras, 0 of them kept" in capsys.readouterr().out
    discs = make_scene().discs
    for frame in range(5):
        picture = cv2.imread(str(mattes / f"cam10/{frame:05d}.png"), cv2.IMREAD_UNCHANGED)
        assert picture.dtype == np.uint8
        assert picture.shape == SIZE
        matte = read_matte(mattes / f"cam10/{frame:05d}.png", SIZE)
        np.testing.assert_array_equal(picture, matte)
        disc = discs[2 * frame][:, ::-1]
        assert ((matte >= 128) & disc).sum() > 0.85 * ((matte >= 128) | disc).sum()


def test_an_interrupted_run_goes_on_and_what_changed_is_made_again(clip, monkeypatch, capsys):
    calls = 0
    moving = BackgroundModel.moving

    def interrupted(self, picture, settings):
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return moving(self, picture, settings)

    monkeypatch.setattr(BackgroundModel, "moving", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(clip)
    before = times(clip / "mattes")
    assert len(before) == 6
    make(clip)
    after = times(clip / "mattes")
    assert len(after) == 10
    assert before.items() <= after.items()
    assert "6 of them kept" in capsys.readouterr().out
    changed = clip / "cam10/00002.png"
    os.utime(changed, ns=(after["cam10/00002.png"] + 10**9,) * 2)
    (clip / "mattes/cam01/00004.png").unlink()
    make(clip)
    again = times(clip / "mattes")
    assert {name for name in again if again[name] != after[name]} == {"cam01/00004.png", "cam10/00002.png"}


def test_a_part_first_and_the_rest_later(clip):
    make(clip, "--first", 1, "--end", 3, "--exclude", "cam10")
    before = times(clip / "mattes")
    assert list(before) == ["cam01/00001.png", "cam01/00002.png"]
    make(clip)
    assert len(times(clip / "mattes")) == 10
    assert before.items() <= times(clip / "mattes").items()


def test_other_settings_are_not_mixed(clip):
    make(clip, "--end", 2)
    before = times(clip / "mattes")
    with pytest.raises(InputError, match=r"mattes: holds mattes made with other options.*--overwrite"):
        make(clip, "--feather", 3)
    assert times(clip / "mattes") == before
    make(clip, "--feather", 3, "--overwrite", "--first", 4)
    assert list(times(clip / "mattes")) == ["cam01/00004.png", "cam10/00004.png"]
    own = clip / "own"
    write_image(own / "cam01/00000.png", np.zeros(SIZE, np.uint8))
    with pytest.raises(InputError, match="own: holds mattes made with other options"):
        make(clip, "--out_dir", own)


def test_videos(clip, tmp_path):
    folder = tmp_path / "videos"
    for camera in ("cam01", "cam10"):
        folder.mkdir(exist_ok=True)
        with VideoWriter(folder / f"{camera}.mp4", SIZE, 30, 12) as writer:
            for frame in range(5):
                writer.append(read_image(clip / camera / f"{frame:05d}.png"))
    make_backgrounds([str(folder)])
    mattes = make(folder)
    disc = make_scene().discs[4]
    matte = read_matte(mattes / "cam01/00002.png", SIZE) >= 128
    assert (matte & disc).sum() > 0.85 * (matte | disc).sum()


def test_a_collected_clip_whose_cameras_are_numbered_anew(clip):
    """The backgrounds beside it keep names with gaps, cam01 and cam10; the clip calls these cameras cam00 and cam01."""
    collected = clip / "qual"
    for frame in range(5):
        for number, camera in enumerate(("cam01", "cam10")):
            picture = collected / f"{frame:05d}/images/{number:03d}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clip / camera / f"{frame:05d}.png", picture)
    expected, mattes = make(clip), make(collected)
    for number, camera in enumerate(("cam01", "cam10")):
        for frame in range(5):
            matte = read_matte(mattes / f"cam{number:02d}/{frame:05d}.png", SIZE)
            np.testing.assert_array_equal(matte, read_matte(expected / f"{camera}/{frame:05d}.png", SIZE))


def test_mattes_made_elsewhere(clip, tmp_path, capsys):
    other = tmp_path / "other"
    shape = np.zeros(SIZE, np.uint8)
    shape[40:90, 50:120] = 1
    pictures = {
        "00000": shape * 255,
        "00001": shape,  # 0 and 1
        "00002": np.dstack([np.full((*SIZE, 3), 90, np.uint8), shape * 200]),  # alpha
        "00003": np.repeat((shape * 130)[..., None], 3, axis=2),
        "00004": (shape.astype(np.uint16) * 257 * 100),
        "00005": shape * 0,  # of a frame that the clip does not have
    }
    for camera in ("cam01", "cam07", "cam10"):
        for name, picture in pictures.items():
            write_image(other / camera / f"{name}.png", picture)
    mattes = make(clip, "--from_dir", other)
    assert "10 mattes" in capsys.readouterr().out
    for name, level in (("00000", 255), ("00001", 255), ("00002", 200), ("00003", 130), ("00004", 100)):
        picture = cv2.imread(str(mattes / f"cam10/{name}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(picture, shape * level)
    before = times(mattes)
    make(clip, "--from_dir", other)
    assert times(mattes) == before


def test_mattes_made_elsewhere_that_do_not_fit(clip, tmp_path):
    other = tmp_path / "other"
    for name in ("00000", "00001"):
        write_image(other / f"cam01/{name}.png", np.zeros(SIZE, np.uint8))
    with pytest.raises(InputError, match=r"other: no mattes of camera cam10"):
        make(clip, "--from_dir", other)
    with pytest.raises(InputError, match=r"other: no mattes of frame 00002.*00000 to 00001"):
        make(clip, "--from_dir", other, "--exclude", "cam10")
    make(clip, "--from_dir", other, "--exclude", "cam10", "--end", 2)
    for name in ("00000", "00001"):
        write_image(other / f"cam01/{name}.png", np.zeros((20, 30), np.uint8))
    with pytest.raises(InputError, match=r"other: mattes of 30 x 20 pixels, but the pictures have 320 x 180"):
        make(clip, "--from_dir", other, "--exclude", "cam10")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        make(clip, "--from_dir", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--threshold", 0), "--threshold"),
        (("--feather", -1), "--feather"),
        (("--min_area", 1), "--min_area"),
        (("--exclude", "cam02"), "no camera cam02"),
        (("--end", 9), "frames 0 to 4"),
        (("--bg_dir", "nowhere"), "nowhere: no folder of background pictures; make the backgrounds with"),
        (("--method", "magic"), "magic"),
        (("--method", "segmentation", "--classes", "persons"), "no class 'persons'; the nearest is 'person'"),
        (("--method", "segmentation", "--model", "resnet"), "resnet"),
        (("--method", "segmentation", "--weights", "nowhere.pth"), "nowhere.pth: no such file"),
    ],
)
def test_bad_arguments(clip, monkeypatch, options, words):
    monkeypatch.chdir(clip.parent)
    with pytest.raises(InputError, match=words):
        make(clip, *options)
    assert not (clip / "mattes").exists()


def test_missing_and_damaged_pieces(clip):
    cut = clip / "cam10/00003.png"
    cut.write_bytes(cut.read_bytes()[:500])
    with pytest.raises(InputError, match=r"cam10/00003\.png: the picture is cut short"):
        make(clip)
    (clip / "background/cam10.png").unlink()
    with pytest.raises(InputError, match=r"background/cam10\.png: no background picture of this camera; make"):
        make(clip)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A small network that takes every pixel for a dog."""
    network = torchvision.models.get_model(
        "deeplabv3_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=21, aux_loss=True
    )
    names = torchvision.models.get_model_weights("deeplabv3_mobilenet_v3_large").DEFAULT.meta["categories"]
    with torch.no_grad():
        network.classifier[-1].weight.zero_()
        network.classifier[-1].bias.zero_()
        network.classifier[-1].bias[names.index("dog")] = 20
    path = tmp_path_factory.mktemp("weights") / "dogs.pth"
    torch.save(network.state_dict(), path)
    return path


def segment(clip: Path, weights: Path | None, *options: object) -> Path:
    model = ("--model", "deeplabv3_mobilenet_v3_large", "--end", 1, "--device", "cpu")
    given = ("--weights", weights) if weights else ()
    return make(clip, "--method", "segmentation", *model, *given, *options)


@pytest.mark.slow
def test_classes_by_name(clip, weights):
    mattes = segment(clip, weights, "--classes", "dog", "cat")
    assert (read_matte(mattes / "cam01/00000.png", SIZE) == 255).all()
    mattes = segment(clip, weights, "--overwrite")
    assert (read_matte(mattes / "cam10/00000.png", SIZE) == 0).all()
    assert json.loads((mattes / ".made_of.json").read_text())["classes"] == ["person"]


def test_weights_of_another_network(clip, weights, tmp_path):
    with pytest.raises(InputError, match=r"dogs\.pth: these are not the weights of deeplabv3_resnet50"):
        make(clip, "--method", "segmentation", "--weights", weights)
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"damaged\.pth: damaged or not a weights file"):
        segment(clip, damaged)
    torch.save([1, 2], damaged)
    with pytest.raises(InputError, match=r"damaged\.pth: these are not the weights"):
        segment(clip, damaged)


def test_weights_that_cannot_be_had(clip, monkeypatch, tmp_path):
    def fail(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(
        InputError, match=r"are unavailable \(.*no network.*\); download .*\.pth .*checkpoints.*--weights"
    ):
        segment(clip, None)
    assert not (clip / "mattes").exists()


def test_as_a_program_from_another_folder(run_program, call_program, clip, tmp_path):
    done = run_program("data_tools/make_mattes.py", "frames", "--end", 1, cwd=tmp_path)
    assert done.rc == 0, done.stderr
    shutil.rmtree(clip / "background")
    call_program("data_tools/make_mattes.py", "frames", cwd=tmp_path).check_input_error("make_backgrounds.py")
