"""convert: round trips between all forms, one point in all of them, lenses that LLFF cannot hold, bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
import torch
from lens_helpers import SIZE, distort, make_lens, take_picture, waves

from data_tools.convert import main
from maskvolume.clips.layouts import open_layout
from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.lenses import Lens, pinhole
from maskvolume.geometry.poses import PosedCamera, RigPoses
from maskvolume.io.calibrations import write_calibration
from maskvolume.io.colmap import write_colmap
from maskvolume.io.images import read_image, write_image
from maskvolume.io.llff import read_poses_bounds, write_poses_bounds
from maskvolume.io.nerfstudio import write_nerfstudio
from maskvolume.io.video import VideoWriter
from maskvolume.runtime.errors import InputError

NAMES = ("cam00", "cam02", "cam10")
FRAMES = ("00000", "00001")
DEPTH = 3.0
SPOT = np.array([0.2, -0.15, DEPTH])  # a point of the world on the plane that all pictures show
FOCALS = (100.0, 110.0, 120.5)


def camera_pose(number: int) -> np.ndarray:
    """World to camera, in general position."""
    rng = np.random.default_rng(number)
    T = np.eye(4)
    T[:3, :3] = cv2.Rodrigues(rng.normal(size=3) * 0.08)[0]
    T[:3, 3] = rng.normal(size=3) * 0.15
    return T


POSES = [camera_pose(number) for number in range(len(NAMES))]


def spot(points: np.ndarray) -> np.ndarray:
    """One bright spot at SPOT on black, grey ``[..., 3]``."""
    distance = np.linalg.norm(points - SPOT[:2], axis=-1)
    return np.repeat(np.exp(-((distance / 0.08) ** 2))[..., None], 3, axis=-1)


def spot_in(picture: np.ndarray) -> np.ndarray:
    """Where the spot is in a picture, (x, y) with pixel centres at +0.5."""
    grey = picture[..., 0].astype(float) ** 2
    y, x = np.mgrid[: grey.shape[0], : grey.shape[1]] + 0.5
    return np.array([(grey * x).sum(), (grey * y).sum()]) / grey.sum()


def straight_lens(number: int) -> Lens:
    f = FOCALS[number]
    return pinhole(np.array([[f, 0, SIZE[1] / 2], [0, f, SIZE[0] / 2], [0, 0, 1]]), SIZE)


PICTURES = [take_picture(straight_lens(n), POSES[n], spot) for n in range(len(NAMES))]


def write_poses(path: Path) -> None:
    K = torch.from_numpy(np.stack([straight_lens(n).K for n in range(len(NAMES))]))
    bounds = torch.tensor([[1.0 + n, 9.0 + n] for n in range(len(NAMES))], dtype=torch.float64)
    write_poses_bounds(path, RigPoses(Camera(torch.from_numpy(np.stack(POSES)), K, SIZE), bounds))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A frame folder whose pictures differ from frame to frame."""
    for n, name in enumerate(NAMES):
        for f, frame in enumerate(FRAMES):
            write_image(tmp_path / "clip" / name / f"{frame}.png", PICTURES[n] // (f + 1))
    write_poses(tmp_path / "clip/poses_bounds.npy")
    return tmp_path / "clip"


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder as of Neural 3D Video."""
    for n, name in enumerate(NAMES):
        with VideoWriter(tmp_path / "videos" / f"{name}.mp4", SIZE, 20, 10) as writer:
            for f in range(len(FRAMES)):
                writer.append(PICTURES[n] // (f + 1))
    write_poses(tmp_path / "videos/poses_bounds.npy")
    return tmp_path / "videos"


def convert(source: Path, form: str, out: Path, *options: object) -> Path:
    main([str(source), "--to", form, "--out_dir", str(out), *map(str, options)])
    return out


def check_same(a: Path, b: Path, *, pictures: bool = True) -> None:
    """Two clips have the same cameras and, if asked for, the same pictures."""
    one, other = RigClip.open(a), RigClip.open(b)
    assert one.names == other.names
    assert one.frame_names == other.frame_names
    assert one.size == other.size
    for x, y in (
        (one.poses.cameras.T_cam_world, other.poses.cameras.T_cam_world),
        (one.poses.cameras.K, other.poses.cameras.K),
        (one.bounds, other.bounds),
    ):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)
    for camera in range(len(one.names) if pictures else 0):
        for frame in range(one.num_frames):
            np.testing.assert_array_equal(one.read(camera, frame), other.read(camera, frame))


@pytest.mark.parametrize("form", ["colmap", "nerfstudio", "frames"])
def test_there_and_back_again(tmp_path, clip, form, capsys):
    there = convert(clip, form, tmp_path / "there")
    back = convert(there, "frames", tmp_path / "back")
    check_same(clip, back)
    assert "resampled" not in capsys.readouterr().out
    # Nothing was encoded again.
    assert (back / "cam02/00001.png").read_bytes() == (clip / "cam02/00001.png").read_bytes()


@pytest.mark.parametrize("form", ["colmap", "nerfstudio"])
def test_videos_there_and_back_again(tmp_path, videos, form):
    there = convert(videos, form, tmp_path / "there", "--ext", "png")
    back = convert(there, "videos", tmp_path / "back", "--fps", 20)
    check_same(videos, back, pictures=False)
    assert open_layout(back).source.videos[0].fps == pytest.approx(20)
    frames = convert(there, "frames", tmp_path / "frames")
    check_same(videos, frames)


def test_videos_are_linked_where_they_stay_as_they_are(tmp_path, videos):
    out = convert(videos, "videos", tmp_path / "out", "--exclude", "cam02")
    assert RigClip.open(out).names == ("cam00", "cam10")
    assert (out / "cam10.mp4").samefile(videos / "cam10.mp4")
    part = convert(videos, "videos", tmp_path / "part", "--end", 1)
    assert RigClip.open(part).num_frames == 1


def test_from_one_foreign_form_to_the_other(tmp_path, clip):
    colmap = convert(clip, "colmap", tmp_path / "colmap")
    nerfstudio = convert(colmap, "nerfstudio", tmp_path / "nerfstudio")
    again = convert(nerfstudio, "colmap", tmp_path / "again")
    check_same(clip, convert(again, "frames", tmp_path / "back"))


def llff_pixel(path: Path, row: int, point: np.ndarray) -> np.ndarray:
    """Where a point falls by poses_bounds.npy: columns [down, right, back], centre of the picture."""
    matrix = np.load(path)[row, :15].reshape(3, 5)
    down, right, back, position, (h, w, f) = matrix.T
    local = point - position
    return np.array([w / 2 + f * (local @ right) / -(local @ back), h / 2 + f * (local @ down) / -(local @ back)])


def nerfstudio_pixel(path: Path, name: str, point: np.ndarray) -> np.ndarray:
    """Where a point falls by transforms.json: x right, y up, z back."""
    content = json.loads(path.read_text())
    frame = {**content, **next(f for f in content["frames"] if f["file_path"] == name)}
    matrix = np.array(frame["transform_matrix"])
    x, y, z = matrix[:3, :3].T @ (point - matrix[:3, 3])
    return np.array([frame["cx"] + frame["fl_x"] * x / -z, frame["cy"] - frame["fl_y"] * y / -z])


def test_one_point_is_at_one_pixel_in_all_forms(tmp_path, clip):
    """By each form's own formulas, and where the pictures show it."""
    colmap, nerfstudio = convert(clip, "colmap", tmp_path / "c"), convert(clip, "nerfstudio", tmp_path / "n")
    model = pycolmap.Reconstruction(str(colmap / "sparse/0"))
    for n, name in enumerate(NAMES):
        shown = spot_in(PICTURES[n])
        pixel = llff_pixel(clip / "poses_bounds.npy", n, SPOT)
        np.testing.assert_allclose(pixel, shown, atol=0.1)  # the spot is not quite round in a picture at an angle
        image = model.find_image_with_name(f"{name}/00000.png")
        np.testing.assert_allclose(image.project_point(SPOT), pixel, atol=1e-8)
        np.testing.assert_allclose(
            nerfstudio_pixel(nerfstudio / "transforms.json", f"images/{name}/00000.png", SPOT), pixel, atol=1e-8
        )
        write_calibration(tmp_path / "lens.yml", straight_lens(n))
        storage = cv2.FileStorage(str(tmp_path / "lens.yml"), cv2.FILE_STORAGE_READ)
        turn, shift = cv2.Rodrigues(POSES[n][:3, :3])[0], POSES[n][:3, 3]
        opencv = cv2.projectPoints(SPOT[None], turn, shift, storage.getNode("camera_matrix").mat(), np.zeros(4))[0]
        np.testing.assert_allclose(opencv[0, 0] + 0.5, pixel, atol=1e-8)  # OpenCV counts centres from 0


def distorted_cameras(root: Path, kinds: tuple[str, ...], folder: str, scene=spot) -> list[PosedCamera]:
    """Cameras with lenses, their pictures in a folder."""
    cameras = []
    for n, kind in enumerate(kinds):
        lens = make_lens(kind)
        files = tuple(f"{folder}{NAMES[n]}/{frame}.png" for frame in FRAMES)
        for f, file in enumerate(files):
            write_image(root / file, take_picture(lens, POSES[n], scene) // (f + 1))
        cameras.append(PosedCamera(NAMES[n], lens, POSES[n], files, (1.0, 9.0)))
    return cameras


@pytest.mark.parametrize("form", ["colmap", "nerfstudio"])
@pytest.mark.parametrize("target", ["frames", "videos"])
def test_what_llff_cannot_hold_is_resampled(tmp_path, form, target, capsys):
    root = tmp_path / "in"
    if form == "colmap":
        cameras = distorted_cameras(root / "images", ("barrel", "rational", "fisheye"), "")
        write_colmap(root / "sparse/0", cameras)
    else:
        cameras = distorted_cameras(root, ("barrel", "pincushion", "barrel"), "images/")
        write_nerfstudio(root / "transforms.json", cameras)
    out = convert(root, target, tmp_path / "out", "--bounds", 1, 9)
    printed = capsys.readouterr().out
    assert f"cam00: pictures are resampled, since {target} cannot hold distortion, two focal lengths" in printed
    assert "a principal point off the centre" in printed
    clip = RigClip.open(out)
    for n, camera in enumerate(cameras):
        pixel = llff_pixel(out / "poses_bounds.npy", n, SPOT)
        picture = clip.read(n, 0)
        np.testing.assert_allclose(spot_in(picture), pixel, atol=0.15)
        # It was elsewhere, by the lens.
        local = POSES[n][:3, :3] @ SPOT + POSES[n][:3, 3]
        assert np.abs(distort(camera.lens, local[:2] / local[2]) - pixel).max() > 0.5
    assert clip.bounds.tolist() == [[1, 9]] * 3


def test_new_pictures_are_those_of_the_ideal_camera(tmp_path):
    cameras = distorted_cameras(tmp_path / "in/images", ("barrel", "fisheye"), "", waves)
    write_colmap(tmp_path / "in/sparse/0", cameras)
    out = convert(tmp_path / "in", "frames", tmp_path / "out", "--bounds", 1, 9)
    clip = RigClip.open(out)
    for n in range(2):
        truth = take_picture(pinhole(clip.poses.cameras.K[n].numpy(), SIZE), POSES[n], waves)
        assert np.abs(clip.read(n, 0).astype(int) - truth).max() <= 4


def test_lens_is_kept_where_the_form_holds_it(tmp_path, capsys):
    root = tmp_path / "in"
    write_nerfstudio(root / "transforms.json", distorted_cameras(root, ("barrel", "pincushion"), "images/"))
    colmap = convert(root, "colmap", tmp_path / "colmap")
    back = convert(colmap, "nerfstudio", tmp_path / "back")
    assert "resampled" not in capsys.readouterr().out
    old, new = (json.loads((folder / "transforms.json").read_text()) for folder in (root, back))
    for a, b in zip(old["frames"], new["frames"], strict=True):
        assert (a["file_path"], a["time"]) == (b["file_path"], b["time"])
        for key in ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "k3", "k4", "p1", "p2", "near", "far", "transform_matrix"):
            np.testing.assert_allclose(a[key], b[key], rtol=1e-12, atol=1e-12)
    assert (back / "images/cam02/00001.png").read_bytes() == (root / "images/cam02/00001.png").read_bytes()


def test_lenses_that_a_form_cannot_hold(tmp_path, capsys):
    root = tmp_path / "in"
    write_colmap(root / "sparse/0", distorted_cameras(root / "images", ("rational", "fisheye"), ""))
    out = convert(root, "nerfstudio", tmp_path / "out")
    printed = capsys.readouterr().out
    assert "cam00: pictures are resampled, since nerfstudio cannot hold rational" in printed
    assert "cam02: pictures are resampled, since nerfstudio cannot hold fisheye lenses beside others" in printed
    for name in NAMES[:2]:
        file = f"images/{name}/00000.png"
        pixel = nerfstudio_pixel(out / "transforms.json", file, SPOT)
        np.testing.assert_allclose(spot_in(read_image(out / file)), pixel, atol=0.15)


def test_pictures_of_several_sizes_become_one(tmp_path, capsys):
    small, large = straight_lens(0), straight_lens(1).scaled((120, 160))
    cameras = []
    for n, lens in enumerate((small, large)):
        write_image(tmp_path / f"in/images/{NAMES[n]}/0.png", take_picture(lens, POSES[n], spot))
        cameras.append(PosedCamera(NAMES[n], lens, POSES[n], (f"{NAMES[n]}/0.png",)))
    write_colmap(tmp_path / "in/sparse/0", cameras)
    out = convert(tmp_path / "in", "frames", tmp_path / "out", "--bounds", 1, 9)
    printed = capsys.readouterr().out
    assert "cam02: pictures are resampled, since frames cannot hold pictures of 160 x 120 pixels" in printed
    assert "cam00: pictures" not in printed
    assert RigClip.open(out).size == SIZE
    np.testing.assert_allclose(
        spot_in(RigClip.open(out).read(1, 0)), llff_pixel(out / "poses_bounds.npy", 1, SPOT), atol=0.15
    )


def test_odd_sizes_of_videos(tmp_path, make_rig, capsys):
    clip = make_rig(tmp_path / "clip", size=(47, 63))
    out = convert(clip, "videos", tmp_path / "out")
    assert RigClip.open(out).size == (46, 62)
    assert read_poses_bounds(out / "poses_bounds.npy").cameras.size == (46, 62)
    assert "since videos cannot hold pictures of 63 x 47 pixels" in capsys.readouterr().out


def colmap_with_points(root: Path, names: tuple[str, ...] = ("cam00.png", "cam02.png")) -> Path:
    """A model as COLMAP leaves it: pictures of one instant, points with tracks, no depths written down."""
    model = pycolmap.Reconstruction()
    params = [FOCALS[0], FOCALS[0], SIZE[1] / 2, SIZE[0] / 2]
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(model="PINHOLE", width=SIZE[1], height=SIZE[0], params=params, camera_id=5)
    )
    for n, name in enumerate(names):
        write_image(root / "images" / name, take_picture(straight_lens(0), POSES[n], spot))
        image = pycolmap.Image(name=name, camera_id=5, image_id=3 + 4 * n)
        image.points2D = pycolmap.Point2DList([pycolmap.Point2D([1.0, 2.0]) for _ in range(100)])
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(POSES[n][:3]))
    for i, depth in enumerate(np.linspace(2, 10, 100)):
        elements = [pycolmap.TrackElement(3 + 4 * n, i) for n in range(len(names))]
        model.add_point3D(np.array([0, 0, depth]), pycolmap.Track(elements))
    (root / "sparse/0").mkdir(parents=True)
    model.write_binary(str(root / "sparse/0"))
    return root


def test_bounds_from_the_points_of_a_model(tmp_path):
    root = colmap_with_points(tmp_path / "in")
    clip = RigClip.open(convert(root, "frames", tmp_path / "out"))
    assert clip.names == ("cam00", "cam02")
    assert clip.frame_names == ("00000",)
    for n, (near, far) in enumerate(clip.bounds.tolist()):
        depths = POSES[n][2, 2] * np.linspace(2, 10, 100) + POSES[n][2, 3]
        assert (near, far) == pytest.approx(np.percentile(depths, [1, 99]).tolist())
    given = RigClip.open(convert(root, "frames", tmp_path / "given", "--bounds", 2, 30))
    assert given.bounds.tolist() == [[2, 30]] * 2


def test_bounds_that_nothing_tells(tmp_path):
    root = tmp_path / "in"
    write_colmap(root / "sparse/0", distorted_cameras(root / "images", ("barrel",), ""))
    with pytest.raises(InputError, match="in: nothing says how near and far the things are that cam00 sees; give --b"):
        convert(root, "frames", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_model_of_one_instant_with_the_frames_of_a_clip(tmp_path, clip, videos):
    root = colmap_with_points(tmp_path / "in")
    for n, name in enumerate(("cam00.png", "cam02.png")):
        np.testing.assert_array_equal(read_image(root / "images" / name).shape[:2], SIZE)
        assert NAMES[n] == name[:5]
    shutil.rmtree(root / "images")
    out = RigClip.open(convert(root, "frames", tmp_path / "a", "--images", clip))
    assert (out.names, out.frame_names) == (("cam00", "cam02"), FRAMES)
    np.testing.assert_array_equal(out.read(1, 1), RigClip.open(clip).read(1, 1))
    out = RigClip.open(convert(root / "sparse/0", "videos", tmp_path / "b", "--images", videos))
    assert out.layout.source.videos[0].fps == pytest.approx(20)
    assert (tmp_path / "b/cam02.mp4").samefile(videos / "cam02.mp4")
    with pytest.raises(InputError, match=r"cam00\.png: no such picture, but .* names it; give their folder with --im"):
        convert(root, "frames", tmp_path / "c")
    with pytest.raises(InputError, match="names its pictures itself; leave --images out"):
        convert(clip, "colmap", tmp_path / "c", "--images", clip)


def test_pictures_elsewhere(tmp_path):
    root = colmap_with_points(tmp_path / "in")
    (root / "images").rename(tmp_path / "pictures")
    out = RigClip.open(convert(root, "frames", tmp_path / "out", "--images", tmp_path / "pictures"))
    np.testing.assert_array_equal(out.read(1, 0), read_image(tmp_path / "pictures/cam02.png"))


def test_excluded_cameras(tmp_path, clip):
    for form in ("frames", "colmap", "nerfstudio"):
        there = convert(clip, form, tmp_path / form, "--exclude", "cam02", "--first", 1)
        back = RigClip.open(convert(there, "frames", tmp_path / f"{form}_back"))
        assert (back.names, back.frame_names) == (("cam00", "cam10"), ("00001",))
        torch.testing.assert_close(back.poses.cameras.T_cam_world[1], torch.from_numpy(POSES[2]), rtol=0, atol=1e-9)
    one = convert(tmp_path / "colmap", "frames", tmp_path / "one", "--exclude", "cam00")
    assert RigClip.open(one).names == ("cam10",)
    assert RigClip.open(one).bounds.tolist() == [[3, 11]]
    with pytest.raises(InputError, match="no camera cam01; --exclude takes some of cam00, cam02, cam10"):
        convert(clip, "colmap", tmp_path / "x", "--exclude", "cam01")
    with pytest.raises(InputError, match="every camera is excluded"):
        convert(clip, "colmap", tmp_path / "x", "--exclude", *NAMES)


def test_names_that_a_clip_could_not_be_told_by(tmp_path, capsys):
    root = colmap_with_points(tmp_path / "in", ("cam01.png", "left.png"))
    assert RigClip.open(convert(root, "frames", tmp_path / "out")).names == ("cam00", "cam01")
    assert "left: is called cam01" in capsys.readouterr().out
    root = colmap_with_points(tmp_path / "b", ("left.png", "right.png"))
    assert RigClip.open(convert(root, "frames", tmp_path / "b_out")).names == ("left", "right")


def test_pictures_without_a_pose_are_named(tmp_path, capsys, monkeypatch):
    import maskvolume.clips.recordings as recordings

    read = recordings.read_colmap

    def with_one_more(path: Path):
        model = read(path)
        return type(model)(model.path, model.images, ("cam07.png",))

    monkeypatch.setattr(recordings, "read_colmap", with_one_more)
    convert(colmap_with_points(tmp_path / "in"), "frames", tmp_path / "out")
    assert "1 pictures have no pose and are left out, such as cam07.png" in capsys.readouterr().out


def test_second_run_goes_on(tmp_path, clip):
    out = convert(clip, "colmap", tmp_path / "out", "--ext", "jpg")
    first = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    assert len(first) == 6
    gone = out / "images/cam02/00001.jpg"
    gone.unlink()
    convert(clip, "colmap", out, "--ext", "jpg")
    second = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    assert {path for path in first if first[path] != second[path]} == {gone}
    with pytest.raises(InputError, match="out: was made of other cameras, frames or settings"):
        convert(clip, "nerfstudio", out)
    convert(clip, "nerfstudio", out, "--overwrite")
    assert sorted(path.name for path in out.iterdir() if path.name[0] != ".") == ["images", "transforms.json"]


def test_calibration_and_picture_of_another_size(tmp_path):
    root = colmap_with_points(tmp_path / "in")
    for name in ("cam00", "cam02"):
        write_image(root / f"images/{name}.png", np.zeros((SIZE[0] // 2, SIZE[1] // 2, 3), np.uint8))
    clip = RigClip.open(convert(root, "frames", tmp_path / "half"))
    assert clip.size == (SIZE[0] // 2, SIZE[1] // 2)
    assert clip.poses.cameras.K[0, 0, 0] == FOCALS[0] / 2
    for name in ("cam00", "cam02"):
        write_image(root / f"images/{name}.png", np.zeros((SIZE[0], SIZE[1] // 2, 3), np.uint8))
    with pytest.raises(InputError, match="made for pictures of 128 x 96 pixels, these have 64 x 96"):
        convert(root, "frames", tmp_path / "wrong")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bounds", "3", "2"], "--bounds 3 2: 0 < NEAR < FAR"),
        (["--fps", "0"], "--fps: above 0 expected, got 0"),
        (["--first", "2"], "--first 2 --end 2: .* has 2 frames"),
        (["--end", "3"], "--first 0 --end 3: .* has 2 frames"),
    ],
)
def test_options_out_of_range(tmp_path, clip, options, message):
    with pytest.raises(InputError, match=message):
        convert(clip, "colmap", tmp_path / "out", *options)


def test_form_is_told_by_what_is_there(tmp_path, clip, capsys):
    """The file itself can be named; a clip with poses is one whatever lies beside it; else the model counts."""
    nerfstudio = convert(clip, "nerfstudio", tmp_path / "n")
    convert(nerfstudio / "transforms.json", "frames", tmp_path / "a")
    assert "transforms.json: a nerfstudio file, 3 cameras, 2 frames" in capsys.readouterr().out
    colmap = convert(clip, "colmap", tmp_path / "c")
    shutil.copytree(colmap / "sparse", clip / "sparse")
    convert(clip, "frames", tmp_path / "b")
    assert "clip: a frame folder, 3 cameras" in capsys.readouterr().out
    # An LLFF scene of one instant: small copies of its pictures are no cameras.
    root = colmap_with_points(tmp_path / "scene")
    shutil.copytree(root / "images", root / "images_2")
    write_poses(root / "poses_bounds.npy")
    convert(root, "frames", tmp_path / "d")
    assert "scene: a COLMAP model, 2 cameras, 1 frames" in capsys.readouterr().out


def test_input_of_no_known_form(tmp_path):
    with pytest.raises(InputError, match="gone: no such folder; give that of a clip, of a COLMAP model"):
        convert(tmp_path / "gone", "frames", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: the folder is empty"):
        convert(tmp_path / "empty", "frames", tmp_path / "out")


def test_as_a_program(run_program, tmp_path):
    root = colmap_with_points(tmp_path / "in")
    (root / "sparse/0/images.bin").write_bytes(b"")
    done = run_program("data_tools/convert.py", "in", "--to", "frames", "--out_dir", "out", cwd=tmp_path)
    done.check_input_error("damaged, or not a COLMAP model")
    assert not (tmp_path / "out").exists()
