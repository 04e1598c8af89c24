"""Views from several references: no jumps along a path, nothing made for nothing, the same in batches and tiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import make_camera
from torch import Tensor

from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera, invert_rigid, stack_cameras
from maskvolume.mpi import references
from maskvolume.mpi.blending import BlendedRenderer, along_one_axis, blend_renderings
from maskvolume.mpi.checkpoints import load_model
from maskvolume.mpi.model import MaskVolumeModel
from maskvolume.mpi.references import choose_references
from maskvolume.mpi.renderer import DEFAULT_SETTINGS, ClipRenderer, RenderSettings
from maskvolume.mpi.session import make_backgrounds
from maskvolume.mpi.tiles import Tiling
from maskvolume.ops import Rendering
from maskvolume.rendering.loop import render_clip
from maskvolume.rendering.output_folder import RenderFolder
from maskvolume.rendering.shots import path_shots
from maskvolume.runtime.errors import InputError

NAMES = ("cam00", "cam01", "cam02", "cam03")


@pytest.fixture(scope="module")
def clip(make_rig: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> RigClip:
    opened = RigClip.open(make_rig(tmp_path_factory.mktemp("rig") / "frames", NAMES))
    make_backgrounds(opened, range(4), opened.background_dir, keep=True)
    return opened


def walk(clip: RigClip, number: int) -> Camera:
    """From the first camera of the row to the last."""
    cameras = clip.cameras()
    T = cameras.T_cam_world[:1].repeat(number, 1, 1)
    T[:, :3, 3] = torch.lerp(cameras.T_cam_world[0, :3, 3], cameras.T_cam_world[-1, :3, 3], steps(number))
    return Camera(T, cameras.K[:1].expand(number, 3, 3), cameras.size)


def steps(number: int) -> Tensor:
    return torch.linspace(0, 1, number)[:, None]


def blended(
    clip: RigClip, weights: Path, path: Camera, count: int = 2, settings: RenderSettings = DEFAULT_SETTINGS
) -> BlendedRenderer:
    chosen = choose_references(clip.cameras(), path, *clip.near_far(), count=count, max_sources=3)
    return BlendedRenderer.of(clip, load_model(weights), chosen, settings, targets=path)


def views(renderer: BlendedRenderer, path: Camera, frame: int = 1) -> tuple[Tensor, list[tuple[int, ...]]]:
    """Colour and disparity ``[N, 4, h, w]`` of all poses, and the references of each."""
    shares = renderer.weights(path)
    served_by = [tuple(row.nonzero()[:, 0].tolist()) for row in shares]
    made = [
        renderer.view(frame, path[pose], each, share)
        for pose, (each, share) in enumerate(zip(served_by, shares, strict=True))
    ]
    return torch.stack([torch.cat([view.color, view.disparity]) for view in made]), served_by


def largest_jump(clip: RigClip, weights: Path, path: Camera) -> tuple[float, int]:
    """How much larger the change is where the references change than before and after it, and how often they do."""
    pictures, served_by = views(blended(clip, weights, path), path)
    changes = (pictures[1:] - pictures[:-1]).abs().mean(dim=(1, 2, 3))
    places = [i for i in range(2, len(changes) - 2) if served_by[i] != served_by[i + 1]]
    return max(float(changes[i] / changes[[i - 2, i - 1, i + 1, i + 2]].max()) for i in places), len(places)


def test_a_path_across_the_rig_has_no_jumps(clip: RigClip, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = walk(clip, 61)
    jump, places = largest_jump(clip, weights, path)
    assert places >= 4
    assert jump < 1.25

    def nearest(cameras: Camera, targets: Camera, near: float, far: float, count: int) -> Tensor:
        penalties = references.penalties_of(cameras, targets, near, far)
        return torch.nn.functional.one_hot(penalties.argmin(dim=1), len(cameras)).double()

    monkeypatch.setattr(references, "reference_weights", nearest)
    jump, places = largest_jump(clip, weights, path)
    assert places == 3
    assert jump > 2, "the test can't tell a jump"


def test_one_reference_is_what_its_renderer_makes(clip: RigClip, weights: Path) -> None:
    target = walk(clip, 3)[1]
    alone = ClipRenderer(clip, load_model(weights), (1, 2, 0), targets=walk(clip, 3))
    renderer = BlendedRenderer([alone])
    want = alone.render(1, target, with_mask=False)
    got = renderer.view(1, target, (0,), renderer.weights(walk(clip, 3))[0])
    assert torch.equal(want.color, got.color)
    assert torch.equal(want.disparity, got.disparity)
    assert torch.equal(want.opacity, got.opacity)


def test_only_what_has_a_weight_is_made_and_every_picture_is_decoded_once(
    clip: RigClip, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Counter[str] = Counter()
    read: Counter[tuple[int, int]] = Counter()
    for name in ("background", "frame"):
        real = getattr(MaskVolumeModel, name)

        def counted(self, *args, real=real, name=name):
            made[name] += 1
            return real(self, *args)

        monkeypatch.setattr(MaskVolumeModel, name, counted)
    real_read = RigClip.read

    def counted_read(self, camera, frame, size=None):
        read[camera, frame] += 1
        return real_read(self, camera, frame, size)

    monkeypatch.setattr(RigClip, "read", counted_read)
    path = walk(clip, 7)  # cameras at poses 0, 2, 4 and 6
    shots = path_shots(path, "fix:0", 3, count=4)
    shots = type(shots)(shots.targets, (0.0, 1.0, 2.0, 0.0))
    renderer = blended(clip, weights, path)
    assert [each.indices[0] for each in renderer.renderers] == [1, 2, 0, 3]
    render_clip(renderer, shots, RenderFolder(tmp_path / "out"), fps=10, crf=30)
    # Frame 0 from between cameras 1 and 2 and from camera 0; frame 1 from between 0 and 1; frame 2 from camera 1.
    assert made == {"background": 3, "frame": 3 + 2 + 1}
    assert set(read.values()) == {1}
    assert {camera for camera, frame in read if frame == 2} == set(renderer.renderers[0].indices)
    assert [renderer.renderers[number]._frame is not None for number in range(4)] == [True, False, False, False]


def test_the_plan_counts_what_is_needed(clip: RigClip, weights: Path) -> None:
    renderer = blended(clip, weights, walk(clip, 7))
    job = renderer.job(clip.size, [(1,), (1, 3), (1,)])
    assert (job.references, job.references_at_once) == (2, 2)
    assert job.cameras == len(renderer.cameras_of((1, 3)))
    for job in (renderer.job(clip.size, [(number,)]) for number in range(4)):
        assert (job.references, job.references_at_once, job.cameras) == (1, 1, job.views)


def test_views_at_once_are_those_one_by_one(
    clip: RigClip, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = walk(clip, 9)
    launches: list[tuple[tuple[int, ...], int]] = []
    real = BlendedRenderer.view

    def counted(self, frame, target, references, shares, **options):
        launches.append((references, len(target.batch_shape) and target.batch_shape[0]))
        return real(self, frame, target, references, shares, **options)

    monkeypatch.setattr(BlendedRenderer, "view", counted)
    for at_once in (1, 4):
        monkeypatch.setattr(BlendedRenderer, "views_at_once", lambda *_, at_once=at_once: at_once)
        folder = RenderFolder(tmp_path / str(at_once), with_disparity=True, with_mask=True)
        renderer = blended(clip, weights, path, settings=RenderSettings(stored=True, masks=True))
        render_clip(renderer, path_shots(path, "fix:1", 3), folder, fps=10, crf=30)
    assert len(launches[:9]) == 9
    assert any(len(each) > 1 and number > 1 for each, number in launches[9:])
    for file in sorted((tmp_path / "1").rglob("*.png")):
        assert file.read_bytes() == (tmp_path / "4" / file.relative_to(tmp_path / "1")).read_bytes(), file


def test_tiles_make_the_same_views(make_rig: Callable[..., Path], weights: Path, tmp_path: Path) -> None:
    clip = RigClip.open(make_rig(tmp_path / "wide", NAMES, 1, (40, 320)))
    make_backgrounds(clip, range(4), clip.background_dir, keep=True)
    path = walk(clip, 4)[1:3]
    path = Camera(path.T_cam_world.lerp(path.T_cam_world.flip(0), 0.4), path.K, path.size)
    renderer = blended(clip, weights, path)
    whole, served_by = views(renderer, path, 0)
    assert all(len(each) == 2 for each in served_by)
    plan = renderer.job(path.size, [(0, 1)])
    assert (plan.references, plan.references_at_once, plan.cameras) == (2, 2, 4)
    renderer.use_tiles(Tiling.of(plan.mpi_size, 1, 3, 8))
    assert all(not each.tiling.is_whole for each in renderer.renderers)
    tiled, _ = views(renderer, path, 0)
    torch.testing.assert_close(tiled, whole, atol=2e-3, rtol=0)


def test_what_one_reference_does_not_see_is_taken_from_the_other_and_fades_in() -> None:
    """Two references of one colour each; the first sees the left half of the picture alone."""
    first = torch.tensor([1.0, 1, 0, 0]).expand(1, 2, 4)
    both = torch.ones(1, 2, 4)
    colors = torch.tensor([1.0, 0, 0]).reshape(3, 1, 1), torch.tensor([0, 1.0, 0]).reshape(3, 1, 1)
    seen = [Rendering(color * o, o, 0.5 * o) for color, o in zip(colors, (first, both), strict=True)]
    for share in (1e-6, 0.1, 0.25, 0.5):
        mixed = blend_renderings(seen, [torch.tensor(1 - share).reshape(1, 1, 1), torch.tensor(share).reshape(1, 1, 1)])
        torch.testing.assert_close(mixed.color[0, :, :2], torch.full((2, 2), 1 - share), atol=1e-5, rtol=0)
        torch.testing.assert_close(mixed.opacity[..., :2], torch.ones(1, 2, 2))
        fading = min(share / 0.2, 1.0)
        torch.testing.assert_close(mixed.color[1, :, 2:], torch.full((2, 2), fading), atol=1e-5, rtol=0)
        torch.testing.assert_close(mixed.disparity, 0.5 * mixed.opacity, atol=1e-5, rtol=0)


def test_disparities_of_references_with_other_axes_agree() -> None:
    """A plane parallel to no camera: each reference tells its own depth, along one axis they are the same."""
    references = [make_camera(seed, (30, 40), turn=0.2) for seed in (1, 2)]
    target = stack_cameras([make_camera(seed, (30, 40), turn=0.2) for seed in (3, 4)])
    y, x = torch.meshgrid(torch.arange(30.0) + 0.5, torch.arange(40.0) + 0.5, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)]).reshape(3, -1).double()
    T_world_target = invert_rigid(target.T_cam_world)
    points = T_world_target[:, :3, :3] @ (torch.linalg.inv(target.K) @ pixels * (5 + 0.02 * pixels[:1]))
    points = points + T_world_target[:, :3, 3:]
    opacity = torch.linspace(0.2, 1, 1200, dtype=torch.float64).reshape(1, 1, 30, 40)
    seen = []
    for camera in references:
        depth = (camera.T_cam_world[:3, :3] @ points + camera.T_cam_world[:3, 3:])[:, 2].reshape(2, 1, 30, 40)
        seen.append(Rendering(torch.zeros(2, 3, 30, 40), opacity.expand(2, 1, 30, 40), opacity / depth))
    assert not torch.allclose(seen[0].disparity, seen[1].disparity, rtol=0.02)
    shares = [torch.tensor(share, dtype=torch.float64).reshape(2, 1, 1, 1) for share in ([0.3, 1.0], [0.7, 0.0])]
    first, second = along_one_axis(seen, references, target, shares)
    torch.testing.assert_close(first.disparity, second.disparity)
    torch.testing.assert_close(first.disparity[1], seen[0].disparity[1])  # the second target has one reference alone
    torch.testing.assert_close(blend_renderings([first, second], shares).disparity[1], seen[0].disparity[1])


def test_a_time_between_frames_is_refused_before_anything_is_made(clip: RigClip, weights: Path, tmp_path: Path) -> None:
    path = walk(clip, 2)
    renderer, folder = blended(clip, weights, path), RenderFolder(tmp_path / "out")
    shots = path_shots(path, "fix:0.5", 3)
    for refuses in (renderer.job_of, lambda shots: render_clip(renderer, shots, folder, fps=10, crf=30)):
        with pytest.raises(InputError, match=r"time: 0\.5 lies between two frames, .*; choose 0 or 1"):
            refuses(shots)
    assert not list(tmp_path.rglob("*.png"))
    assert all(each._background is None for each in renderer.renderers)


def test_released_planes_are_made_again_and_the_same(clip: RigClip, weights: Path) -> None:
    path = walk(clip, 4)[1:3]
    renderer = blended(clip, weights, path)
    before, _ = views(renderer, path)
    renderer.release()
    assert all(each._background is None and each._frame is None for each in renderer.renderers)
    after, _ = views(renderer, path)
    assert torch.equal(before, after)
