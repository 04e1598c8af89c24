"""The pipeline on a GPU: it makes what the processor makes, waits for nothing; a recorded frame is the called one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera, stack_cameras
from maskvolume.geometry.paths import render_path
from maskvolume.io.images import read_image
from maskvolume.mpi.blending import BlendedRenderer
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from maskvolume.mpi.references import choose_references
from maskvolume.mpi.renderer import ClipRenderer
from maskvolume.mpi.session import make_backgrounds
from maskvolume.rendering.loop import render_clip
from maskvolume.rendering.output_folder import RenderFolder
from maskvolume.rendering.pictures import to_bytes, to_steps
from maskvolume.rendering.shots import path_shots
from maskvolume.runtime.cuda_graphs import Replayed
from maskvolume.runtime.devices import Precision
from maskvolume.runtime.transfers import Download, Downloader, Uploader

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
CUDA = torch.device("cuda", 0)


@pytest.fixture
def clip(tiny_rig: Path) -> RigClip:
    opened = RigClip.open(tiny_rig)
    make_backgrounds(opened, range(3), opened.background_dir, keep=True)
    return opened


def make_model(device: torch.device | str, precision: Precision = "fp32") -> MaskVolumeModel:
    torch.manual_seed(0)
    model = MaskVolumeModel(CheckpointMeta("mask", "semiglobal", num_planes=8), precision)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        if parameter.ndim > 0:
            parameter += 0.02 * torch.randn_like(parameter)
    return model.to(device).eval()


def make_renderer(clip: RigClip, device: torch.device | str, precision: Precision = "fp32") -> ClipRenderer:
    return ClipRenderer(clip, make_model(device, precision), (1, 0), targets=clip.cameras())


def test_many_uploads_and_downloads_beside_much_computing_lose_nothing() -> None:
    upload, download = Uploader(CUDA), Downloader(CUDA)
    rng = np.random.default_rng(0)
    busy = torch.rand(2048, 2048, device=CUDA)
    sent, arriving = [], []
    for _ in range(40):
        pictures = [rng.integers(0, 256, (360, 640, 3), np.uint8) for _ in range(2)]
        x = upload(pictures)
        for _ in range(4):
            busy = torch.tanh(busy @ busy)
        sent.append(pictures)
        arriving.append(download([255 - x]))
        del x
    for pictures, each in zip(sent, arriving, strict=True):
        np.testing.assert_array_equal(255 - each.arrays()[0], np.stack(pictures))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_replayed_frame_is_the_called_one(clip: RigClip, precision: Precision, capsys) -> None:
    renderer = make_renderer(clip, CUDA, precision)
    assert isinstance(renderer._recorded, Replayed)
    for frame in (0, 1, 2):
        with torch.no_grad():
            wanted = renderer._frame_of(renderer.to_tensor(renderer.read(frame)))
        made = renderer.frame_mpi(frame)
        assert torch.equal(made.mask, wanted.mask)
        assert torch.equal(made.dynamic.rgba, wanted.dynamic.rgba)
    assert "CUDA graph" not in capsys.readouterr().out


def check_that_nothing_waits(enqueue: Callable[[int], Download]) -> None:
    """After the first frame of three, each of two views with masks, the host waits for the device no more."""
    enqueue(0).arrays()
    torch.cuda.set_sync_debug_mode("error")
    try:
        arriving = [enqueue(1), enqueue(2)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [array.shape for array in arriving[1].arrays()] == [(2, 48, 64, 3), (2, 48, 64), (2, 48, 64)]


def test_after_the_first_frame_the_host_waits_for_nothing(clip: RigClip) -> None:
    renderer, download = make_renderer(clip, CUDA), Downloader(CUDA)
    targets = clip.cameras().to(CUDA)
    pictures = [renderer.read(frame) for frame in range(3)]

    def enqueue(frame: int) -> Download:
        renderer.frame_mpi(frame, pictures[frame])
        view = renderer.render(frame, stack_cameras([targets[0], targets[1]]), with_mask=True)
        assert view.mask is not None
        return download([to_bytes(view.color), to_steps(view.disparity, 1.35), to_bytes(view.mask)])

    check_that_nothing_waits(enqueue)


def make_blended(clip: RigClip, device: torch.device | str, path: Camera) -> BlendedRenderer:
    chosen = choose_references(clip.cameras(), path, *clip.near_far(), count=2, max_sources=2)
    assert len(chosen.sources) > 1
    return BlendedRenderer.of(clip, make_model(device), chosen, targets=path)


def test_blending_references_makes_the_host_wait_for_nothing(clip: RigClip) -> None:
    path = render_path(clip.poses, "x", 5).scaled(clip.size).to(torch.float32)
    renderer, download = make_blended(clip, CUDA, path), Downloader(CUDA)
    shares = renderer.weights(path)
    pose = int((shares > 0).sum(dim=1).argmax())
    references = tuple(shares[pose].nonzero()[:, 0].tolist())
    assert len(references) > 1
    shares, targets = shares.to(CUDA), path.to(CUDA)
    pictures = [dict(enumerate(clip.read(camera, frame) for camera in range(3))) for frame in range(3)]

    def enqueue(frame: int) -> Download:
        renderer.make(frame, references, pictures[frame])
        two = stack_cameras([targets[pose], targets[pose]])
        view = renderer.view(frame, two, references, torch.stack([shares[pose], shares[pose]]), with_mask=True)
        assert view.mask is not None
        return download([to_bytes(view.color), to_steps(view.disparity, 1.35), to_bytes(view.mask)])

    check_that_nothing_waits(enqueue)


def test_blended_pictures_are_those_of_the_processor(clip: RigClip, tmp_path: Path) -> None:
    path = render_path(clip.poses, "x", 9).scaled(clip.size).to(torch.float32)
    for device in ("cpu", "cuda"):
        folder = RenderFolder(tmp_path / device, with_disparity=True, with_mask=True)
        render_clip(make_blended(clip, device, path), path_shots(path, "loop", 3), folder, fps=10, crf=30)
    for file in sorted((tmp_path / "cpu/frames").iterdir()):
        difference = np.abs(read_image(tmp_path / "cuda/frames" / file.name).astype(int) - read_image(file))
        assert difference.mean() < 0.5, file
        assert np.quantile(difference, 0.99) <= 2, file


def test_the_pictures_are_those_of_the_processor(clip: RigClip, tmp_path: Path) -> None:
    path: Camera = render_path(clip.poses, "circle", 6).scaled(clip.size)
    shots = path_shots(path, "loop", 3)
    for device in ("cpu", "cuda"):
        folder = RenderFolder(tmp_path / device, with_disparity=True, with_mask=True)
        render_clip(BlendedRenderer([make_renderer(clip, device)]), shots, folder, fps=10, crf=30)
    for file in sorted((tmp_path / "cpu/frames").iterdir()):
        ours = read_image(tmp_path / "cuda/frames" / file.name).astype(int)
        # Networks in TF32 on a GPU: colours may round to the next step, and a few of them to the one after it.
        difference = np.abs(ours - read_image(file))
        assert difference.mean() < 0.5, file
        assert np.quantile(difference, 0.99) <= 2, file
