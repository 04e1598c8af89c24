"""Render novel views of a clip along a path of poses: pictures and an H.264 video.

    python render_llff_video.py --config render_video.txt
    python render_llff_video.py --config render_video.txt --root_dir FRAMES --path circle --out_dir OUT
    torchrun --nproc_per_node 8 render_llff_video.py --config render_video.txt    # each process a share of the frames

maskvolume/rendering/output_folder.py documents the output. An interrupted run continues when it is started again.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the imports are done there is nothing to end in order

import torch

import maskvolume
from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera, nearest_cameras
from maskvolume.geometry.paths import (
    PATH_KINDS,
    PathKind,
    join_paths,
    render_path,
)
from maskvolume.io.llff import read_path
from maskvolume.mpi.blending import BlendedRenderer
from maskvolume.mpi.checkpoints import load_model
from maskvolume.mpi.memory import (
    GB,
    SHARE,
    budget_of,
    make_plan,
)
from maskvolume.mpi.model import MaskVolumeModel
from maskvolume.mpi.references import choose_references
from maskvolume.mpi.renderer import ClipRenderer
from maskvolume.ops import available_backends, missing_backends
from maskvolume.options import option, parse_options, required
from maskvolume.rendering.loop import (
    RenderReport,
    background_folder,
    make_backgrounds,
    references_of_frames,
    render_clip,
)
from maskvolume.rendering.output_folder import RenderFolder, digest
from maskvolume.rendering.shots import (
    Shots,
    fixed_camera,
    fixed_shots,
    path_shots,
)
from maskvolume.runtime.allocator import give_back_large_blocks
from maskvolume.runtime.devices import resolve_device, resolve_precision
from maskvolume.runtime.errors import InputError, run_program
from maskvolume.runtime.processes import Processes, open_processes
from maskvolume.web.export import WebExport, WebReport, WebSettings
from maskvolume.web.viewpoints import Viewpoints

PATH_NAME = "qual_path.txt"
DEFAULT_SOURCES = 4  # cameras, where the architecture takes any number
DEFAULT_STILL_SOURCES = 6  # of the background, which is made once a clip
MOST_REFERENCES = 4
PATIENCE = timedelta(days=30)  # that a process which is done waits for the others
VIEWER = Path(__file__).resolve().parent / "viewer"  # the player's files
VIEWER_FOLDER = "viewer"  # in OUT_DIR
MIN_SIDE = 16  # pixels; below it the networks see nothing


@dataclass(frozen=True)
class RenderOptions:
    """Options of render_llff_video."""

    root_dir: str = required("a collected clip, a frame folder (camNN/00000.jpg ...) or a folder of camNN.mp4")
    ckpt_path: str = required("checkpoint: .safetensors, or a .ckpt of the original")
    out_dir: str = required("folder for pictures and videos; made when missing")
    bg_dir: str | None = option(
        None,
        "folder of the backgrounds camNN.png; none: the clip's, or made in OUT_DIR/background if it has none",
    )
    img_wh: tuple[int, int] | None = option(
        None, "width and height at which pictures are read and rendered, K scaled per axis; none: the clip's"
    )
    indices: tuple[str, ...] | None = option(
        None,
        "source cameras, two or more names or numbers, the first the reference; none: those nearest to the "
        "middle of the path",
    )
    background_cameras: int | None = option(
        None,
        f"cameras that the background is made from, once, the sources among them; none: {DEFAULT_STILL_SOURCES} that "
        "are nearest to the path, or those of indices, or the sources where others have no background",
    )
    references: int = option(
        1,
        "reference cameras that a view is blended from, 1 to 4. 1: one for the whole path. 2 or more: those that are "
        "nearest to each pose (amid more that are as near, all of these), of --indices or of the whole rig",
    )
    path: str | None = option(
        None,
        f"path file (.txt or .npy), or one of {', '.join(PATH_KINDS)}; none: ROOT_DIR/"
        f"{PATH_NAME}, in a collected clip in the first frame's folder",
    )
    time: str = option(
        "loop",
        "loop: pose i shows frame i modulo the clip; pingpong: forth and back; fix:T: time stands still",
    )
    view: str = option("path", "path: walk along it; fix:CAMERA: look on from a camera of the rig, by name or number")
    num_frames: int | None = option(
        None,
        "at most so many poses of the path; for a fixed view exactly so many, none: one pass through time",
    )
    save_disparity: bool = option(False, "write disparity as 16 bit pictures and a colour-mapped video too")
    save_mask: bool = option(False, "write how much of each pixel comes from what moves too")
    viewer: bool = option(False, "export the clip to OUT_DIR/viewer too, to look around in with a browser")
    frame_format: Literal["png", "jpg"] = option("png", "format of the pictures")
    fps: float = option(30.0, "frames a second of the videos")
    crf: int = option(18, "quality of the videos, 0 (no loss) to 51 (worst)")
    num_planes: int | None = option(None, "planes of the multiplane images; none: as the checkpoint was trained")
    margin: int | None = option(
        None, "pixels by which the planes reach beyond the reference view; none: what the path needs"
    )
    device: Literal["auto", "cuda", "mps", "cpu"] = option("auto", "where to compute")
    precision: Literal["auto", "fp32", "bf16"] = option("auto", "of the networks; auto: bf16 where it is fast")
    memory_gb: float | None = option(
        None, "memory that the program may take, in GB; none: 80 % of what is free. Frames that need more go in tiles"
    )
    backend: str | None = option(None, "implementation of the sweep and of the rendering; none: the fastest")
    overwrite: bool = option(False, "render again what is there already")


def check_options(options: RenderOptions) -> None:
    """Find the numbers that can't be meant, before anything is read."""
    if options.img_wh is not None and min(options.img_wh) < MIN_SIDE:
        got = " x ".join(str(side) for side in options.img_wh)
        raise InputError(f"--img_wh: width and height of at least {MIN_SIDE} pixels are needed, got {got}")
    limits: list[tuple[str, float | None, float, float]] = [
        ("references", options.references, 1, MOST_REFERENCES),
        ("background_cameras", options.background_cameras, 2, 64),
        ("num_frames", options.num_frames, 1, float("inf")),
        ("num_planes", options.num_planes, 2, 1024),
        ("margin", options.margin, 0, 4096),
        ("memory_gb", options.memory_gb, 0.1, 1e5),
        ("fps", options.fps, 0.1, 1000),
        ("crf", options.crf, 0, 51),
    ]
    for name, value, low, high in limits:
        if value is not None and not low <= value <= high:
            wanted = f"{low:g} to {high:g}" if high < float("inf") else f"{low:g} or more"
            raise InputError(f"--{name}: {wanted} expected, got {value:g}")


def load_path(options: RenderOptions, clip: RigClip, size: tuple[int, int]) -> Camera:
    """The poses ``[N]`` of the path, K scaled per axis from the size that the path names to the pictures'."""
    if options.path in PATH_KINDS:
        return render_path(clip.poses, cast(PathKind, options.path)).scaled(size)
    if options.path is not None:
        return read_path(options.path, size)
    beside_poses = clip.layout.poses_path.with_name(PATH_NAME)
    if beside_poses.is_file():
        return read_path(beside_poses, size)
    raise InputError(
        f"{beside_poses}: no such path of poses; make one with data_tools/imgs2renderpath.py, or choose a ready one, "
        f"as in --path spiral"
    )


def make_shots(options: RenderOptions, clip: RigClip, size: tuple[int, int]) -> tuple[Shots, Camera]:
    """What to render, and the cameras ``[N]`` that the planes have to reach: those of the whole path."""
    fixed = fixed_camera(options.view, clip)
    if fixed is None:
        path = load_path(options, clip, size)
        return path_shots(path, options.time, clip.num_frames, options.num_frames), path
    targets = clip.cameras(size)[fixed : fixed + 1]
    return fixed_shots(targets[0], options.time, clip.num_frames, options.num_frames), targets


def load_checkpoint(options: RenderOptions, device: torch.device) -> MaskVolumeModel:
    """The model on a device; a stage-one checkpoint renders each frame without mask and background."""
    backends = available_backends(device)
    if options.backend is not None and options.backend not in backends:
        raise InputError(
            f"--backend: {options.backend} can't run on {device.type}; choose one of {', '.join(backends)}"
        )
    precision = resolve_precision(options.precision, device)
    model = load_model(options.ckpt_path, device, precision, backend=options.backend or backends[0])
    if options.save_mask and not model.has_mask:
        raise InputError(
            f"{options.ckpt_path}: a stage-one checkpoint has no mask; leave out --save_mask, or give one of stage two"
        )
    return model


def fit_into_memory(options: RenderOptions, renderer: BlendedRenderer, shots: Shots, processes: Processes) -> str:
    """Choose the tiles that the renderer works in, the same in all processes; returns a line that says it.

    Raises:
        InputError: not even small tiles fit.
    """
    device = renderer.device
    budget, why = budget_of(device, processes.local_world), f"{SHARE:.0%} of what is free"
    if options.memory_gb is not None:
        budget, why = round(options.memory_gb * GB), "--memory_gb"
    known = [each for each in processes.gather(budget) if each is not None]
    if not known:
        return f"memory: how much is free on {device.type} isn't known; frames are made whole, or as --memory_gb says"
    groups = shots.by_frame(range(len(shots)))
    needed = references_of_frames(renderer.weights(shots.targets), groups).values()
    plan = make_plan(renderer.job(shots.targets.size, needed), min(known), why=why)
    if not plan.tiling.is_whole:
        renderer.use_tiles(plan.tiling)
    return str(plan)


def open_renderer(
    options: RenderOptions,
    clip: RigClip,
    model: MaskVolumeModel,
    targets: Camera,
    size: tuple[int, int],
    *,
    makes_backgrounds: bool,
    reach: Camera | None = None,
) -> BlendedRenderer:
    """The renderer of targets ``[N]``, from the cameras that are named or chosen.

    Args:
        reach: ``[M]`` more cameras that planes of a single reference have to reach.
        makes_backgrounds: whether those that there are not are going to be made. Otherwise, where some camera has none,
            a background is made from the sources alone.
    """
    limit = model.arch.max_views
    named = None if options.indices is None else tuple(clip.index(camera) for camera in options.indices)
    if named is not None and len(set(named)) != len(named):
        raise InputError(f"--indices: different cameras are needed, got {' '.join(options.indices or ())}")
    still = options.background_cameras
    if still is not None and (limit is not None or not model.has_mask):
        raise InputError(
            f"--background_cameras: {options.ckpt_path} makes no background from more cameras than a frame; "
            "leave it out"
        )
    if still is None:
        all_there = makes_backgrounds or all(map(clip.has_background, range(len(clip.names))))
        still = DEFAULT_STILL_SOURCES if named is None and all_there else 0
    made_with: dict[str, Any] = {
        "size": size,
        "num_planes": options.num_planes,
        "margin": options.margin,
        # Masks are seen through the whole MPI, and layers for the browser are made of it.
        "stored": options.time.startswith("fix:") or options.save_mask or options.viewer,
        "masks": options.save_mask,
    }
    if options.references == 1:
        nearest = nearest_cameras(clip.cameras(), targets, max(limit or DEFAULT_SOURCES, still))
        indices = named or nearest[: limit or DEFAULT_SOURCES]
        more = tuple(index for index in nearest if index not in indices)[: max(still - len(indices), 0)]
        wide = targets if reach is None else join_paths([targets, reach])
        return BlendedRenderer([ClipRenderer(clip, model, indices, targets=wide, still_indices=more, **made_with)])
    references = choose_references(
        clip.cameras(size),
        targets,
        *clip.near_far(),
        count=options.references,
        max_sources=limit or (DEFAULT_SOURCES if named is None else len(named)),
        max_still_sources=still,
        candidates=named,
    )
    return BlendedRenderer.of(clip, model, references, targets=targets, **made_with)


def made_of(options: RenderOptions, renderer: BlendedRenderer, clip: RigClip, targets: Camera) -> dict[str, object]:
    """What decides the pixels, for a later run that is to go on.

    The pictures of the clip are not compared, only where they lie and how many they are.
    """
    model, rig = renderer.model, clip.poses
    return {
        "version": maskvolume.__version__,
        "root_dir": str(clip.root_dir.resolve()),
        "bg_dir": str(clip.background_dir.resolve()) if model.has_mask else None,
        "clip_frames": clip.num_frames,
        "poses": digest(rig.cameras.T_cam_world, rig.cameras.K, rig.bounds),
        "ckpt_path": digest(Path(options.ckpt_path)),
        "path": digest(targets.T_cam_world, targets.K),
        "indices": [clip.names[index] for index in renderer.indices],
        "backgrounds": [clip.names[index] for index in renderer.background_indices] if model.has_mask else None,
        "references": None if options.references == 1 else [options.references, *_named_sources(renderer, clip)],
        "img_wh": [renderer.size[1], renderer.size[0]],
        "time": options.time,
        "view": options.view,
        "num_planes": len(renderer.depths),
        "margin": options.margin,
        "device": renderer.device.type,
        "precision": model.precision,
        "backend": model.backend,
        "frame_format": options.frame_format,
        "viewer": options.viewer or None,  # its viewpoints decide how wide the planes are, too
    }


def _named_sources(renderer: BlendedRenderer, clip: RigClip) -> list[str]:
    """Each reference with its other sources, as ``cam02 (cam03 cam07)``."""
    sources = ([clip.names[index] for index in each.indices] for each in renderer.renderers)
    return [f"{first} ({' '.join(others)})" for first, *others in sources]


def open_viewer(
    options: RenderOptions,
    clip: RigClip,
    renderer: BlendedRenderer,
    viewpoints: Viewpoints,
    root: Path,
    settings: WebSettings,
) -> WebExport:
    """The export of a clip for the browser, from the MPIs of a renderer with one reference.

    Args:
        viewpoints: as far as the rig reaches; the renderer's frustum was chosen for them too.
        root: the folder to make.
    """
    contents = made_of(options, renderer, clip, viewpoints.border())
    camera = renderer.renderers[0].camera
    contents["mpi"] = [digest(camera.K, camera.T_cam_world), *camera.size]
    return WebExport(renderer.renderers[0], clip, viewpoints, root, VIEWER, settings, contents)


def render(options: RenderOptions, processes: Processes, device: torch.device) -> tuple[RenderReport, WebReport | None]:
    """Render the pictures that are missing, and the videos; then what a browser needs, if that is wanted.

    Args:
        options: the same in all processes.
        processes: that share the frames; all see the same folders.
        device: of this process.

    Raises:
        InputError: what the user has to mend; found before the first picture is made, where it can be.
    """
    check_options(options)
    clip = RigClip.open(options.root_dir, options.bg_dir)
    size = clip.size if options.img_wh is None else (options.img_wh[1], options.img_wh[0])
    shots, targets = make_shots(options, clip, size)
    viewpoints = Viewpoints.of(clip.poses, size) if options.viewer else None
    model = load_checkpoint(options, device)
    folder = RenderFolder(Path(options.out_dir), options.frame_format, options.save_disparity, options.save_mask)
    if model.has_mask and options.bg_dir is None:
        clip = replace(clip, background_dir=background_folder(clip, folder))
    makes_backgrounds = model.has_mask and clip.background_dir == folder.background
    open_for = partial(open_renderer, clip=clip, model=model, size=size, makes_backgrounds=makes_backgrounds)
    around = None if viewpoints is None else viewpoints.border()
    renderer = open_for(options, targets=targets, reach=around)
    fitted = fit_into_memory(options, renderer, shots, processes)
    needed, exporter = renderer.background_indices, renderer
    if around is not None:
        # The middle of the path may lie elsewhere than the rig's; then the browser's frames come from other cameras.
        exporter = open_for(replace(options, references=1), targets=around, reach=targets)
        if options.references == 1 and exporter.indices == renderer.indices:
            exporter = renderer
        else:
            fit_into_memory(options, exporter, Shots(around, (0,) * len(around)), processes)
            needed = tuple(dict.fromkeys((*needed, *exporter.background_indices)))
    contents = made_of(options, renderer, clip, targets)
    goes_on = processes.first_does(lambda: folder.prepare(contents, options, overwrite=options.overwrite))
    if makes_backgrounds:
        processes.first_does(lambda: make_backgrounds(clip, needed, folder.background, keep=goes_on))
    if processes.is_first:
        if not model.has_mask:
            print(f"{options.ckpt_path}: stage one; frames are rendered without mask and background")
        names = ", ".join(clip.names[index] for index in renderer.indices)
        print(f"{folder.root}: {len(shots)} pictures of {size[1]} x {size[0]} from {names}")
        more = [clip.names[index] for index in renderer.background_indices if index not in renderer.indices]
        if more:
            print(f"background also from {', '.join(more)}")
        if options.references > 1:
            print(f"references (and their sources): {', '.join(_named_sources(renderer, clip))}")
        shared = f" in {processes.world} processes" if processes.world > 1 else ""
        print(f"on {device.type}{shared}: networks in {model.precision}, planes by the {model.backend!r} backend")
        print(fitted)
        for name, reason in missing_backends(device).items():
            print(f"backend {name!r}, which is faster, can't be had: {reason}")
    if viewpoints is None:
        return render_clip(renderer, shots, folder, fps=options.fps, crf=options.crf, processes=processes), None
    settings = WebSettings(title=clip.root_dir.resolve().name, fps=options.fps)
    exported = open_viewer(options, clip, exporter, viewpoints, folder.root / VIEWER_FOLDER, settings)
    finished = processes.first_does(lambda: None if options.overwrite else exported.finished())
    if finished is None:
        processes.first_does(lambda: exported.prepare(overwrite=options.overwrite))
    take = exported.take if finished is None and exporter is renderer else None
    if take is not None:
        processes.first_does(exported.plan)
    report = render_clip(
        renderer, shots, folder, fps=options.fps, crf=options.crf, processes=processes, with_frame=take
    )
    if exporter is not renderer:
        del renderer  # its planes make room
    return report, finished or processes.first_does(exported.run)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, render, and say where the video is."""
    options = parse_options(
        RenderOptions,
        argv,
        prog="render_llff_video.py",
        description="Render novel views of a clip along a path of poses: pictures and an H.264 video.",
    )
    give_back_large_blocks()
    with open_processes(resolve_device(options.device), timeout=PATIENCE) as (processes, device):
        report, viewer = render(options, processes, device)
    if not processes.is_first:
        return
    kept = f", {report.kept} kept" if report.kept else ""
    print(f"{report.made} pictures rendered{kept}, in {report.seconds:.1f} s")
    print(f"video: {report.folder.video}")
    if viewer is not None:
        print(viewer)


if __name__ == "__main__":
    run_program(main)
