"""Builds renderers that fit into memory from the options of a program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import maskvolume
from maskvolume.clips import backgrounds
from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera, nearest_cameras
from maskvolume.geometry.paths import join_paths
from maskvolume.mpi.blending import BlendedRenderer
from maskvolume.mpi.checkpoints import load_model
from maskvolume.mpi.memory import GB, SHARE, budget_of, make_plan
from maskvolume.mpi.model import MaskVolumeModel
from maskvolume.mpi.options import DEFAULT_STILL_SOURCES, MPIOptions
from maskvolume.mpi.references import choose_references
from maskvolume.mpi.renderer import ClipRenderer, RenderSettings
from maskvolume.ops import available_backends, missing_backends
from maskvolume.rendering.output_folder import RenderFolder, digest
from maskvolume.rendering.shots import Shots
from maskvolume.runtime.devices import resolve_precision
from maskvolume.runtime.errors import InputError
from maskvolume.runtime.processes import Processes

DEFAULT_SOURCES = 4  # cameras, if the architecture takes any number
BACKGROUND_FRAMES = 100  # evenly spaced frames whose median is the background, as in collect_data


@dataclass(frozen=True)
class Session:
    """A clip, a model on a device, and the settings of their renderers; create it with :meth:`open`.

    Attributes:
        options: the options of the program.
        clip: the clip; its ``background_dir`` is where backgrounds are or will be.
        model: the model, with the chosen precision and backend.
        settings: the settings of all renderers; ``size`` is set.
        makes_backgrounds: whether the clip lacks backgrounds, which :meth:`make_backgrounds` then computes.
    """

    options: MPIOptions
    clip: RigClip
    model: MaskVolumeModel
    settings: RenderSettings
    makes_backgrounds: bool

    @classmethod
    def open(
        cls, options: MPIOptions, clip: RigClip, settings: RenderSettings, folder: RenderFolder, device: torch.device
    ) -> Session:
        """Load the checkpoint and choose the folder of the backgrounds.

        Args:
            options: the options of the program.
            clip: a clip opened by ``maskvolume.clips.recordings.open_clip``.
            settings: the settings of all renderers.
            folder: the output folder, which stores the backgrounds of a clip that has none.
            device: the device to compute on.

        Returns:
            The session.

        Raises:
            InputError: the backend is unavailable, or the checkpoint can't be read or lacks the mask network that
                ``settings.masks`` needs.
        """
        model = load_checkpoint(options, device)
        if settings.masks and not model.has_mask:
            raise InputError(
                f"{options.ckpt_path}: a stage-one checkpoint has no mask; leave out --save_mask, or give one of stage "
                "two"
            )
        if model.has_mask and options.bg_dir is None:
            clip = replace(clip, background_dir=background_folder(clip, folder))
        makes_backgrounds = model.has_mask and clip.background_dir == folder.background
        return cls(options, clip, model, replace(settings, size=settings.size or clip.size), makes_backgrounds)

    def renderer(self, targets: Camera, *, references: int = 1, reach: Camera | None = None) -> BlendedRenderer:
        """Build the renderer of targets from the cameras named in the options, or from those that suit the targets.

        Args:
            targets: ``[N]``, all cameras to render.
            references: number of references per view; see ``choose_references`` for more than one.
            reach: ``[M]``, additional cameras that the planes must cover; used with a single reference only.

        Returns:
            The renderer.

        Raises:
            InputError: a named camera does not exist or is repeated, or there are too few or too many of them.
        """
        clip, model, limit = self.clip, self.model, self.model.arch.max_views
        named_cameras = self._named_cameras()
        background_count = self._still_sources(named_cameras)
        if references > 1:
            path_references = choose_references(
                clip.cameras(self.settings.size),
                targets,
                *clip.near_far(),
                count=references,
                max_sources=limit or (DEFAULT_SOURCES if named_cameras is None else len(named_cameras)),
                max_still_sources=background_count,
                candidates=named_cameras,
            )
            return BlendedRenderer.of(clip, model, path_references, self.settings, targets=targets)
        nearest = nearest_cameras(clip.cameras(), targets, max(limit or DEFAULT_SOURCES, background_count))
        indices = named_cameras or nearest[: limit or DEFAULT_SOURCES]
        others = tuple(index for index in nearest if index not in indices)[: max(background_count - len(indices), 0)]
        covered_targets = targets if reach is None else join_paths([targets, reach])
        clip_renderer = ClipRenderer(clip, model, indices, self.settings, targets=covered_targets, still_indices=others)
        return BlendedRenderer([clip_renderer])

    def fit(self, renderer: BlendedRenderer, shots: Shots, processes: Processes) -> str:
        """Choose the tiles of a renderer, the same in all processes.

        Args:
            renderer: the renderer; it is set to work in tiles if whole frames don't fit.
            shots: all shots to render.
            processes: the processes that share the rendering.

        Returns:
            A line that describes the plan.

        Raises:
            InputError: not even the smallest tiles fit, or the renderer can't show a time of the shots.
        """
        device, memory_gb = renderer.device, self.options.memory_gb
        job = renderer.job_of(shots)
        budget, why = budget_of(device, processes.local_world), f"{SHARE:.0%} of what is free"
        if memory_gb is not None:
            budget, why = round(memory_gb * GB), "--memory_gb"
        budgets = [each for each in processes.gather(budget) if each is not None]
        if not budgets:
            return f"memory: free memory on {device.type} is unknown; frames are made whole unless --memory_gb is given"
        plan = make_plan(job, min(budgets), why=why)
        if not plan.tiling.is_whole:
            renderer.use_tiles(plan.tiling)
        return str(plan)

    def make_backgrounds(self, cameras: Sequence[int], *, keep: bool) -> None:
        """Compute the backgrounds of cameras if the clip has none; see the module's ``make_backgrounds``."""
        if self.makes_backgrounds:
            make_backgrounds(self.clip, cameras, self.clip.background_dir, keep=keep)

    def pixels_made_of(self, renderer: BlendedRenderer, targets: Camera) -> dict[str, object]:
        """Everything that determines the pixels of views from targets ``[N]``, by name, to validate a continued run.

        The pictures of the clip are represented by their location and number only.
        """
        clip, model, poses = self.clip, self.model, self.clip.poses
        return {
            "version": maskvolume.__version__,
            "root_dir": str(clip.root_dir.resolve()),
            "bg_dir": str(clip.background_dir.resolve()) if model.has_mask else None,
            "clip_frames": clip.num_frames,
            "poses": digest(poses.cameras.T_cam_world, poses.cameras.K, poses.bounds),
            "ckpt_path": digest(Path(self.options.ckpt_path)),
            "path": digest(targets.T_cam_world, targets.K),
            "indices": self._names(renderer.indices),
            "backgrounds": self._names(renderer.background_indices) if model.has_mask else None,
            "references": None if renderer.references is None else self._references(renderer),
            "img_wh": [renderer.size[1], renderer.size[0]],
            "num_planes": len(renderer.depths),
            "margin": self.settings.margin,
            "device": renderer.device.type,
            "precision": model.precision,
            "backend": model.backend,
        }

    def describe_sources(self, renderer: BlendedRenderer) -> list[str]:
        """Lines that list the cameras of the background and of the references, where they differ from the sources."""
        lines = []
        others = [index for index in renderer.background_indices if index not in renderer.indices]
        if others:
            lines.append(f"background also from {', '.join(self._names(others))}")
        if renderer.references is not None:
            sources = self._references(renderer)[1:]
            lines.append(f"references (and their sources): {', '.join(map(str, sources))}")
        return lines

    def describe_computing(self, processes: Processes) -> str:
        """A line that describes where and how the networks run."""
        model, device = self.model, next(self.model.parameters()).device
        sharing = f" in {processes.world} processes" if processes.world > 1 else ""
        return f"on {device.type}{sharing}: networks in {model.precision}, planes by the {model.backend!r} backend"

    def _named_cameras(self) -> tuple[int, ...] | None:
        names = self.options.indices
        if names is None:
            return None
        numbers = tuple(self.clip.index(name) for name in names)
        if len(set(numbers)) != len(numbers):
            raise InputError(f"--indices: different cameras are needed, got {' '.join(names)}")
        return numbers

    def _still_sources(self, named_cameras: tuple[int, ...] | None) -> int:
        """Minimum number of cameras of the background; 0: the sources only."""
        count, clip = self.options.background_cameras, self.clip
        if count is not None:
            if self.model.arch.max_views is not None or not self.model.has_mask:
                raise InputError(
                    f"--background_cameras: {self.options.ckpt_path} makes no background from more cameras than a "
                    "frame; leave it out"
                )
            return count
        has_all_backgrounds = self.makes_backgrounds or all(map(clip.has_background, range(len(clip.names))))
        return DEFAULT_STILL_SOURCES if named_cameras is None and has_all_backgrounds else 0

    def _names(self, cameras: Iterable[int]) -> list[str]:
        return [self.clip.names[index] for index in cameras]

    def _references(self, renderer: BlendedRenderer) -> list[object]:
        """The number of references per view, then each reference with its other sources: cam02 (cam03 cam07)."""
        count = 1 if renderer.references is None else renderer.references.count
        sources = (self._names(each.indices) for each in renderer.renderers)
        return [count, *(f"{first} ({' '.join(others)})" for first, *others in sources)]


def load_checkpoint(options: MPIOptions, device: torch.device) -> MaskVolumeModel:
    """Load the model onto a device; a stage-one checkpoint renders each frame without mask and background.

    Raises:
        InputError: the backend is unavailable, or the checkpoint can't be read.
    """
    backends = available_backends(device)
    if options.backend is not None and options.backend not in backends:
        raise InputError(
            f"--backend: {options.backend} can't run on {device.type}; choose one of {', '.join(backends)}"
        )
    precision = resolve_precision(options.precision, device)
    return load_model(options.ckpt_path, device, precision, backend=options.backend or backends[0])


def describe_missing(device: torch.device) -> list[str]:
    """Lines that list the faster backends that are unavailable, and why."""
    return [
        f"backend {name!r}, which is faster, is unavailable: {reason}"
        for name, reason in missing_backends(device).items()
    ]


def background_folder(clip: RigClip, folder: RenderFolder) -> Path:
    """The folder of the backgrounds: the clip's own if it exists, otherwise the output's."""
    return clip.background_dir if clip.background_dir.is_dir() else folder.background


def make_backgrounds(clip: RigClip, cameras: Sequence[int], folder: Path, *, keep: bool) -> None:
    """Write the median over time of each camera as ``camNN.png``.

    Args:
        clip: the recording.
        cameras: numbers of the cameras.
        folder: the output folder.
        keep: keep existing pictures.

    Raises:
        InputError: a frame can't be read, or the folder can't be written.
    """
    frames = backgrounds.evenly_spaced(clip.num_frames, BACKGROUND_FRAMES)
    notice = f"{folder}: making backgrounds, the median over {len(frames)} frames, since the clip has none"
    backgrounds.make_backgrounds(clip.layout, cameras, folder, frames, overwrite=not keep, notice=notice)
