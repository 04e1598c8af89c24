"""export_web: the contents of the folder, the reuse of existing files, and bad input."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera
from maskvolume.io.images import read_image
from maskvolume.io.llff import write_path
from maskvolume.io.video import VideoFrames
from maskvolume.mpi.image import MultiplaneImage
from maskvolume.ops import fill_unseen
from maskvolume.rendering.pictures import to_uint8
from maskvolume.web.export import WebExport, picture_psnr
from maskvolume.web.tiles import Atlas, TileGrid, assemble
from render import export_web

LEAST = 24.0  # dB, of textures like noise, which lossy pictures and videos keep badly


@pytest.fixture
def export(weights: Path, outcome_of: Callable) -> Callable:
    """Run the exporter in this process, as a program: ``export(root_dir, out_dir, *options)``."""

    def run(root: object, out: object, *options: object, ckpt: Path = weights):
        arguments = [
            "--root_dir",
            root,
            "--out_dir",
            out,
            "--ckpt_path",
            ckpt,
            "--device",
            "cpu",
            "--precision",
            "fp32",
        ]
        arguments += ["--layers", 4, *options]
        return outcome_of("export_web.py", export_web.main, arguments)

    return run


def read_manifest(out: Path) -> dict:
    return json.loads((out / "manifest.json").read_text())


def read_layers(out: Path, frame: int) -> tuple[MultiplaneImage, dict]:
    """The layers of a frame as they are exported, and the manifest."""
    manifest = read_manifest(out)
    mpi, tile = manifest["mpi"], manifest["tile"]
    grid = TileGrid((len(manifest["layers"]), mpi["height"], mpi["width"]), tile["size"], tile["gutter"])
    parts = []
    for kind, picture in (
        ("static", lambda: np.asarray(Image.open(out / "static.webp").convert("RGB"))),
        ("dynamic", lambda: VideoFrames(out / "dynamic.mp4").read(frame)),
    ):
        entry = manifest[kind]
        if entry is not None:
            tiles = np.array(entry["tiles"], dtype=int).reshape(-1, 3)[:, [0, 2, 1]]
            atlas = Atlas(len(tiles), entry["columns"], grid.slot, (entry["height"], entry["width"]))
            parts.append((tiles, atlas.read(picture())))
    rgba = torch.from_numpy(assemble(grid, parts)).permute(0, 3, 1, 2).float() / 255
    K, T = (torch.tensor(mpi[name]).reshape(side, side) for name, side in (("K", 3), ("T_cam_world", 4)))
    depths = torch.tensor([layer["depth"] for layer in manifest["layers"]])
    return MultiplaneImage(rgba.contiguous(), Camera(T, K, (mpi["height"], mpi["width"])), depths), manifest


def test_a_folder_is_made_that_shows_what_the_renderer_shows(export, render, tiny_rig: Path, tmp_path: Path) -> None:
    out = tmp_path / "web"
    outcome = export(tiny_rig, out, "--fps", 12, "--layers", 6).check()
    names = {path.name for path in out.iterdir()}
    assert {"index.html", "player", "manifest.json", "static.webp", "poster.jpg", "offline.js", "cameras"} <= names
    assert not (out / ".work").exists()
    assert "against the renderer" in outcome.stdout
    assert "Mbit/s" in outcome.stdout
    mpi, manifest = read_layers(out, 1)
    view = manifest["view"]
    h, w = manifest["picture"]["height"], manifest["picture"]["width"]
    center = Camera(torch.tensor(view["T_cam_world"]).reshape(4, 4), torch.tensor(view["K"]).reshape(3, 3), (h, w))
    made = to_uint8(fill_unseen(mpi.render(center)).color)
    path = tmp_path / "center.txt"
    write_path(path, Camera(center.T_cam_world[None].double(), center.K[None].double(), (h, w)))
    same = ["--indices", *[str(i) for i in (1, 0, 2)], "--time", "fix:1", "--num_planes", 6]
    render(tiny_rig, tmp_path / "video", "--path", path, *same).check()
    wanted = read_image(tmp_path / "video/frames/00000.png")
    assert picture_psnr(made, wanted) > LEAST + 4
    assert picture_psnr(made[:, 1:], wanted[:, :-1]) < picture_psnr(made, wanted) - 4  # a pixel off would be seen
    assert manifest["made"]["fidelity"]["center"] > LEAST


def test_the_manifest_names_what_is_there(export, tiny_rig: Path, tmp_path: Path) -> None:
    out = tmp_path / "web"
    export(tiny_rig, out, "--title", "A title", "--fps", 12).check()
    manifest = read_manifest(out)
    assert (manifest["format"], manifest["version"], manifest["title"]) == ("maskvolume-web", 1, "A title")
    assert (manifest["fps"], manifest["frames"], len(manifest["layers"])) == (12, 3, 4)
    depths = [layer["depth"] for layer in manifest["layers"]]
    assert depths == sorted(depths, reverse=True)
    for name, size in manifest["bytes"].items():
        assert (out / name).stat().st_size == size
    clip = RigClip.open(tiny_rig)
    assert [camera["name"] for camera in manifest["cameras"]] == list(clip.names)
    for index, camera in enumerate(manifest["cameras"]):
        video = VideoFrames(out / camera["video"])
        assert (video.count, video.size, video.fps) == (3, (48, 64), 12)
        assert picture_psnr(video.read(1), clip.read(index, 1)) > LEAST - 2
    assert read_image(out / "poster.jpg").shape == (48, 64, 3)
    if manifest["dynamic"] is not None:
        video = VideoFrames(out / "dynamic.mp4")
        assert (video.count, video.size) == (3, (manifest["dynamic"]["height"], manifest["dynamic"]["width"]))


def test_the_script_for_a_double_click_holds_everything(export, tiny_rig: Path, tmp_path: Path) -> None:
    out = tmp_path / "web"
    export(tiny_rig, out).check()
    script = (out / "offline.js").read_text()
    for name in ["manifest.json", *read_manifest(out)["bytes"]]:
        data = re.search(rf'^"{re.escape(name)}": "(.*)",$', script, re.MULTILINE)
        if Path(name).suffix in (".js", ".html", ".css"):
            assert data is None or Path(name).suffix == ".js"
        else:
            assert data is not None, name
            assert base64.b64decode(data[1]) == (out / name).read_bytes()
    assert '"player/main.js": "' in script
    assert "</script" not in script


def test_cameras_and_the_script_can_be_left_out(export, tiny_rig: Path, tmp_path: Path) -> None:
    out = tmp_path / "web"
    export(tiny_rig, out, "--no-cameras", "--no-offline").check()
    assert not (out / "cameras").exists()
    assert not (out / "offline.js").exists()
    assert {camera["video"] for camera in read_manifest(out)["cameras"]} == {None}
    export(tiny_rig, out).check()
    assert (out / "cameras").is_dir()
    export(tiny_rig, out, "--no-cameras", "--no-offline").check()
    assert not (out / "cameras").exists()
    assert not (out / "offline.js").exists()


def test_a_finished_export_is_kept(export, tiny_rig: Path, tmp_path: Path) -> None:
    out = tmp_path / "web"
    export(tiny_rig, out).check()
    before = (out / "static.webp").stat().st_mtime_ns
    export(tiny_rig, out).check()
    assert (out / "static.webp").stat().st_mtime_ns == before
    (out / "static.webp").write_bytes(b"damaged")
    export(tiny_rig, out).check()
    assert (out / "static.webp").stat().st_size == read_manifest(out)["bytes"]["static.webp"]
    changed = (out / "static.webp").stat().st_mtime_ns
    outcome = export(tiny_rig, out).check()
    assert "layers" not in outcome.stderr
    assert not (out / ".work").exists()
    export(tiny_rig, out, "--overwrite").check()
    assert (out / "static.webp").stat().st_mtime_ns != changed


def test_overwriting_takes_no_layers_of_before_and_keeps_the_export_until_it_is_done(
    export, tiny_rig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "web"
    export(tiny_rig, out).check()
    before = (out / "poster.jpg").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(WebExport, "_write_static", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert export(tiny_rig, out, "--overwrite").rc == 130
    assert (out / "poster.jpg").read_bytes() == before
    read_manifest(out)
    for camera in ("cam00", "cam01", "cam02"):  # other pictures at the same place
        shutil.copy(tiny_rig / camera / "00002.png", tiny_rig / camera / "00000.png")
    export(tiny_rig, out, "--overwrite").check()
    assert (out / "poster.jpg").read_bytes() != before


def test_a_rig_of_one_column_is_exported(export, tiny_rig: Path, tmp_path: Path) -> None:
    poses = np.load(tiny_rig / "poses_bounds.npy")
    rows = poses[:, :15].reshape(-1, 3, 5)
    rows[:, [0, 1], 3] = rows[:, [1, 0], 3]
    poses[:, :15] = rows.reshape(-1, 15)
    np.save(tiny_rig / "poses_bounds.npy", poses)
    export(tiny_rig, tmp_path / "web").check()
    limits = read_manifest(tmp_path / "web")["view"]["limits"]
    assert limits["x"] < 1e-6 < limits["y"]


def test_large_tiles_that_all_move_leave_nothing_still(export, tiny_rig: Path, tmp_path: Path) -> None:
    export(tiny_rig, tmp_path / "web", "--tile", 256, "--layers", 1).check()
    manifest = read_manifest(tmp_path / "web")
    assert manifest["static"]["tiles"] == []
    assert len(manifest["dynamic"]["tiles"]) > 0


def test_an_interrupted_export_goes_on(export, tiny_rig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tmp_path / "whole"
    export(tiny_rig, whole).check()
    made: list[int] = []
    take = WebExport.take

    def counted(self: WebExport, frame: int, writers: object, *, stop: int | None = None) -> None:
        if frame == stop:
            raise KeyboardInterrupt
        made.append(frame)
        take(self, frame, writers)  # type: ignore[arg-type]

    out = tmp_path / "web"
    with monkeypatch.context() as patch:
        patch.setattr(WebExport, "take", lambda self, frame, writers: counted(self, frame, writers, stop=2))
        assert export(tiny_rig, out).rc == 130
    assert not (out / "manifest.json").exists()
    assert made == [0, 1]
    monkeypatch.setattr(WebExport, "take", counted)
    export(tiny_rig, out).check()
    assert made == [0, 1, 2]
    for name in read_manifest(whole)["bytes"]:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_bit_rate_is_kept(export, make_rig, tmp_path: Path) -> None:
    rig = make_rig(tmp_path / "frames", num_frames=6)
    export(rig, tmp_path / "free", "--crf", 4).check()
    export(rig, tmp_path / "bound", "--crf", 4, "--max_mbit", 0.05).check()
    sizes = [(tmp_path / name / "dynamic.mp4").stat().st_size for name in ("free", "bound")]
    assert sizes[1] < 0.7 * sizes[0]


def test_the_renderer_exports_too(render, export, tiny_rig: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = render(tiny_rig, out, "--path", "circle", "--num_frames", 4, "--viewer").check()
    assert str(out / "viewer/index.html") in outcome.stdout
    manifest = read_manifest(out / "viewer")
    assert manifest["frames"] == 3
    assert manifest["made"]["fidelity"]["center"] > LEAST
    assert (out / "video.mp4").is_file()
    again = render(tiny_rig, out, "--path", "circle", "--num_frames", 4, "--viewer").check()
    assert "0 pictures rendered, 4 kept" in again.stdout
    before = (out / "viewer/manifest.json").stat().st_mtime_ns
    render(tiny_rig, out, "--path", "circle", "--num_frames", 4, "--viewer", "--overwrite").check()
    assert (out / "viewer/manifest.json").stat().st_mtime_ns != before
    assert not (out / "viewer/.work").exists()
    render(tiny_rig, tmp_path / "two", "--path", "circle", "--num_frames", 4, "--viewer", "--references", 2).check()
    assert (tmp_path / "two/viewer/manifest.json").is_file()


def test_the_viewer_of_a_fixed_view_has_the_cameras_in_the_middle(render, make_rig, tmp_path: Path) -> None:
    rig = make_rig(tmp_path / "frames", cameras=[f"cam{i:02d}" for i in range(14)])  # none has a background
    outcome = render(rig, tmp_path / "out", "--view", "fix:cam00", "--viewer").check()
    assert "from cam00, cam01, cam02, cam03" in outcome.stdout
    made = {path.stem for path in (tmp_path / "out/background").iterdir()}
    assert {"cam00", "cam06", "cam07"} <= made
    assert (tmp_path / "out/viewer/manifest.json").is_file()


def test_a_stage_one_checkpoint_is_exported(export, tiny_rig: Path, tmp_path: Path, stage_one_weights: Path) -> None:
    export(tiny_rig, tmp_path / "web", ckpt=stage_one_weights).check()
    assert read_manifest(tmp_path / "web")["made"]["fidelity"]["center"] > LEAST


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--layers", 0), ["--layers", "1 to 64"]),
        (("--layers", 7), ["--layers", "at most 6"]),
        (("--tile", 30), ["--tile", "multiple of 4"]),
        (("--max_mbit", 0), ["--max_mbit"]),
        (("--atlas", 100), ["--atlas", "256"]),
        (("--reach", 0), ["--reach"]),
        (("--fps", 0), ["--fps"]),
        (("--crf", 70), ["--crf"]),
        (("--img_wh", 8, 8), ["--img_wh"]),
        (("--indices", "cam00", "cam77"), ["cam77"]),
    ],
)
def test_numbers_out_of_range_are_refused(export, tiny_rig: Path, tmp_path: Path, options, words) -> None:
    export(tiny_rig, tmp_path / "web", *options).check_input_error(*words)
    assert not (tmp_path / "web").exists()


def test_a_folder_of_something_else_is_left_alone(export, tiny_rig: Path, tmp_path: Path) -> None:
    out = tmp_path / "web"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    export(tiny_rig, out).check_input_error(str(out), "not an export")
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    (out / "manifest.json").write_text('{"name": "a page of something else"}')
    export(tiny_rig, out).check_input_error(str(out), "not an export")
    assert (out / "thesis.txt").read_text() == "mine"


def test_a_damaged_picture_leaves_the_earlier_export(export, make_rig, tmp_path: Path) -> None:
    rig = make_rig(tmp_path / "frames")
    out = tmp_path / "web"
    export(rig, out).check()
    before = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    last = sorted((rig / "cam00").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:100])
    export(rig, out, "--layers", 5).check_input_error(last.name)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_what_does_not_fit_ends_in_a_line_and_what_was_made_is_kept(export, make_rig, tmp_path: Path) -> None:
    rig = make_rig(tmp_path / "frames", size=(120, 160))
    out = tmp_path / "web"
    export(rig, out, "--atlas", 256).check_input_error("static content", "--atlas")
    made = sorted((out / ".work/layers").iterdir())
    assert len(made) == 3
    (rig / "cam00/00001.png").write_bytes(b"no picture")  # it is not read again
    outcome = export(rig, out, "--atlas", 1024, "--no-cameras").check()
    assert "Mbit/s" in outcome.stdout
