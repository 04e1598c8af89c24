"""Render novel views of a clip along a path of poses: pictures and an H.264 video.

    python render_llff_video.py --config render_video.txt
    python render_llff_video.py --config render_video.txt --root_dir FRAMES --path circle --out_dir OUT
    torchrun --nproc_per_node 8 render_llff_video.py --config render_video.txt    # each process renders a share

maskvolume/rendering/output_folder.py documents the output. An interrupted run continues when started again.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Literal, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # during imports there is nothing to clean up

import torch

from maskvolume.clips.recordings import open_clip
from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.paths import PATH_KINDS, PathKind, render_path
from maskvolume.io.llff import read_path
from maskvolume.mpi.blending import BlendedRenderer
from maskvolume.mpi.options import MPIOptions
from maskvolume.mpi.renderer import RenderSettings
from maskvolume.mpi.session import Session, describe_missing
from maskvolume.options import check_ranges, option, parse_options
from maskvolume.rendering.loop import RenderReport, render_clip
from maskvolume.rendering.output_folder import RenderFolder, digest
from maskvolume.rendering.shots import Shots, fixed_camera, fixed_shots, path_shots
from maskvolume.runtime.allocator import give_back_large_blocks
from maskvolume.runtime.devices import resolve_device
from maskvolume.runtime.errors import run_program
from maskvolume.runtime.processes import Processes, open_processes
from maskvolume.web.export import WebExport, WebReport, WebSettings
from maskvolume.web.viewpoints import Viewpoints

DEFAULT_PATH: PathKind = "all"  # for a clip without a path of its own
MOST_REFERENCES = 4
PATIENCE = timedelta(days=30)  # how long a finished process waits for the others
VIEWER = Path(__file__).resolve().parent / "viewer"  # the player's files
VIEWER_FOLDER = "viewer"  # in OUT_DIR


@dataclass(frozen=True)
class RenderOptions(MPIOptions):
    """Options of render_llff_video."""

    references: int = option(
        1,
        "number of reference cameras per view, 1 to 4. 1: one for the whole path. 2 or more: blend the cameras nearest "
        "to each pose (all of those that are equally near), of --indices or of the whole rig",
        low=1,
        high=MOST_REFERENCES,
    )
    path: str | None = option(
        None,
        f"path file (.txt or .npy), or one of {', '.join(PATH_KINDS)}; none: the clip's own, ROOT_DIR/qual_path.txt, "
        f"in a collected clip in the first frame's folder; {DEFAULT_PATH} where it has none",
    )
    time: str = option(
        "loop",
        "loop: pose i shows frame i modulo the clip; pingpong: forth and back; fix:T: time stands still",
    )
    view: str = option("path", "path: follow it; fix:CAMERA: stay at a camera of the rig, given by name or number")
    num_frames: int | None = option(
        None,
        "number of pictures: at most this many poses of a path, exactly this many of a fixed view; none: all",
        low=1,
    )
    save_disparity: bool = option(False, "write disparity as 16 bit pictures and a colour-mapped video too")
    save_mask: bool = option(False, "also write the mask: the share of each pixel that comes from moving content")
    viewer: bool = option(False, "export the clip to OUT_DIR/viewer too, to look around in with a browser")
    frame_format: Literal["png", "jpg"] = option("png", "format of the pictures")
    fps: float = option(30.0, "frames a second of the videos", low=0.1, high=1000)
    crf: int = option(18, "quality of the videos, 0 (no loss) to 51 (worst)", low=0, high=51)
    margin: int | None = option(
        None,
        "pixels by which the planes reach beyond the reference view; none: what the path needs",
        low=0,
        high=4096,
    )
    overwrite: bool = option(False, "render existing pictures again")


def choose_path(options: RenderOptions, clip: RigClip) -> tuple[str, str | None]:
    """Choose the path: a file or one of ``PATH_KINDS``, and a line that describes it if the options don't name it."""
    own = clip.layout.path_file
    if options.path is not None:
        return options.path, None
    if own.is_file():
        return str(own), f"path: {own}, the clip's own"
    return DEFAULT_PATH, f"path: {DEFAULT_PATH}, since there is no {own}"


def load_path(path: str, clip: RigClip, size: tuple[int, int]) -> Camera:
    """Load the poses ``[N]`` of a path, with K scaled per axis from the size given by the path to ``size`` (h, w).

    Raises:
        InputError: the path file is missing or invalid.
    """
    if path in PATH_KINDS:
        return render_path(clip.poses, cast(PathKind, path)).scaled(size)
    return read_path(path, size)


def make_shots(options: RenderOptions, clip: RigClip, size: tuple[int, int]) -> tuple[Shots, Camera]:
    """The shots to render, and the cameras ``[N]`` of the whole path, which the planes must cover.

    Raises:
        InputError: the view, the time or the path in the options is invalid.
    """
    fixed = fixed_camera(options.view, clip)
    if fixed is None:
        path = load_path(choose_path(options, clip)[0], clip, size)
        return path_shots(path, options.time, clip.num_frames, options.num_frames), path
    targets = clip.cameras(size)[fixed : fixed + 1]
    return fixed_shots(targets[0], options.time, clip.num_frames, options.num_frames), targets


def settings_of(options: RenderOptions, size: tuple[int, int]) -> RenderSettings:
    """The settings of multiplane images that follow from the options."""
    return RenderSettings(
        size=size,
        num_planes=options.num_planes,
        margin=options.margin,
        # Masks are rendered through the full MPI, and the layers of the web export are computed from it.
        stored=options.time.startswith("fix:") or options.save_mask or options.viewer,
        masks=options.save_mask,
    )


def made_of(options: RenderOptions, session: Session, renderer: BlendedRenderer, targets: Camera) -> dict[str, object]:
    """Everything that determines the pixels of the pictures, to validate a continued run."""
    return {
        **session.pixels_made_of(renderer, targets),
        "time": options.time,
        "view": options.view,
        "frame_format": options.frame_format,
        "viewer": options.viewer or None,  # its viewpoints widen the planes
    }


def open_viewer(
    options: RenderOptions,
    session: Session,
    renderer: BlendedRenderer,
    viewpoints: Viewpoints,
    root: Path,
    settings: WebSettings,
) -> WebExport:
    """Open the web export of a clip, computed from the MPIs of a renderer with one reference.

    Args:
        options: the options of the rendering.
        session: the session that built the renderer.
        renderer: a renderer whose frustum covers the viewpoints.
        viewpoints: the viewpoints of the export.
        root: the folder to write.
        settings: the settings of the export.

    Returns:
        The export, not started yet.
    """
    contents = made_of(options, session, renderer, viewpoints.border())
    camera = renderer.renderers[0].camera
    contents["mpi"] = [digest(camera.K, camera.T_cam_world), *camera.size]
    return WebExport(renderer.renderers[0], session.clip, viewpoints, root, VIEWER, settings, contents)


def open_exporter(
    options: RenderOptions,
    session: Session,
    renderer: BlendedRenderer,
    border: Camera,
    targets: Camera,
    processes: Processes,
) -> BlendedRenderer:
    """Choose the renderer of the web export: that of the path, or a new one if other cameras suit the export better.

    Args:
        options: the options of the rendering.
        session: the session that builds renderers.
        renderer: the renderer of the path, which covers ``border`` too.
        border: ``[M]``, the outermost viewpoints.
        targets: ``[N]``, the cameras of the path.
        processes: the processes that share the rendering.

    Returns:
        The renderer of the export.

    Raises:
        InputError: a new renderer does not fit into memory.
    """
    # The middle of the path may differ from that of the rig.
    exporter = session.renderer(border, reach=targets)
    if options.references == 1 and exporter.indices == renderer.indices:
        return renderer
    session.fit(exporter, Shots(border, (0.0,) * len(border)), processes)
    return exporter


def print_plan(
    options: RenderOptions, session: Session, renderer: BlendedRenderer, shots: Shots, plan: str, processes: Processes
) -> None:
    """Print what is rendered, from which cameras, and how."""
    if not session.model.has_mask:
        print(f"{options.ckpt_path}: stage one; frames are rendered without mask and background")
    path_line = choose_path(options, session.clip)[1] if options.view == "path" else None
    for line in (*session.clip.layout.notes, *filter(None, [path_line])):
        print(line)
    h, w = shots.targets.size
    names = ", ".join(session.clip.names[index] for index in renderer.indices)
    print(f"{options.out_dir}: {len(shots)} pictures of {w} x {h} from {names}")
    for line in session.describe_sources(renderer):
        print(line)
    print(session.describe_computing(processes))
    print(plan)
    for line in describe_missing(renderer.device):
        print(line)


def render(options: RenderOptions, processes: Processes, device: torch.device) -> tuple[RenderReport, WebReport | None]:
    """Render the missing pictures and the videos, then the web export if requested.

    Args:
        options: the options, the same in all processes.
        processes: the processes that share the frames; all of them see the same folders.
        device: the device of this process.

    Returns:
        The reports of the rendering and of the export; None without an export.

    Raises:
        InputError: an error for the user to fix, reported before the first picture is rendered where possible.
    """
    check_ranges(options)
    clip = open_clip(options.root_dir, options.bg_dir, options.images)
    size = options.img_wh or clip.size
    shots, targets = make_shots(options, clip, size)
    viewpoints = Viewpoints.of(clip.poses, size) if options.viewer else None
    border = None if viewpoints is None else viewpoints.border()
    folder = RenderFolder(Path(options.out_dir), options.frame_format, options.save_disparity, options.save_mask)
    session = Session.open(options, clip, settings_of(options, size), folder, device)
    renderer = exporter = session.renderer(targets, references=options.references, reach=border)
    plan = session.fit(renderer, shots, processes)
    if border is not None:
        exporter = open_exporter(options, session, renderer, border, targets, processes)
    contents = made_of(options, session, renderer, targets)
    continues = processes.first_does(lambda: folder.prepare(contents, options, overwrite=options.overwrite))
    cameras = tuple(dict.fromkeys((*renderer.background_indices, *exporter.background_indices)))
    processes.first_does(lambda: session.make_backgrounds(cameras, keep=continues))
    if processes.is_first:
        print_plan(options, session, renderer, shots, plan, processes)
    run = partial(render_clip, renderer, shots, folder, fps=options.fps, crf=options.crf, processes=processes)
    if viewpoints is None:
        return run(), None
    settings = WebSettings(title=clip.root_dir.resolve().name, fps=options.fps)
    exported = open_viewer(options, session, exporter, viewpoints, folder.root / VIEWER_FOLDER, settings)
    return render_and_export(run, renderer, exported, overwrite=options.overwrite, processes=processes)


def render_and_export(
    run: Callable[..., RenderReport],
    renderer: BlendedRenderer,
    exported: WebExport,
    *,
    overwrite: bool,
    processes: Processes,
) -> tuple[RenderReport, WebReport]:
    """Render, and complete the web export; if both use the same renderer, each frame is computed once.

    Args:
        run: renders; its arguments are passed to ``render_clip``.
        renderer: the renderer that ``run`` uses.
        exported: the web export.
        overwrite: replace an existing export.
        processes: the processes that share the rendering; the first one exports.

    Returns:
        The reports of the rendering and of the export.
    """
    finished = processes.first_does(lambda: None if overwrite else exported.finished())
    is_shared = exported.renderer is renderer.renderers[0]
    take = exported.take if finished is None and is_shared else None
    if finished is None:
        processes.first_does(lambda: exported.prepare(overwrite=overwrite))
    if take is not None:
        processes.first_does(exported.plan)
    report = run(with_moment=take)
    if not is_shared:
        renderer.release()  # frees memory for the exporter's planes
    return report, finished or processes.first_does(exported.run)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the options, render, and print where the video is."""
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
