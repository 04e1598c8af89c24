"""The options shared by all programs that render a clip from multiplane images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from maskvolume.options import Size, option, required

MIN_SIDE = 16  # pixels; smaller pictures are useless to the networks
DEFAULT_STILL_SOURCES = 6  # cameras of the background, which is computed once per clip


@dataclass(frozen=True)
class MPIOptions:
    """What is rendered, from which cameras, and how the networks run."""

    root_dir: str = required(
        "a collected clip, a frame folder (camNN/00000.jpg ...), a folder of camNN.mp4, of a COLMAP model or of a "
        "transforms.json"
    )
    ckpt_path: str = required("checkpoint: .safetensors, or a .ckpt of the original")
    out_dir: str = required("output folder, created if missing")
    bg_dir: str | None = option(
        None, "folder of the backgrounds camNN.png; none: the clip's, or made in the output where it has none"
    )
    images: str | None = option(
        None, "folder of a COLMAP model's pictures, or a clip whose cameras have their names; none: as the model says"
    )
    img_wh: Size | None = option(
        None,
        "width and height at which pictures are read and rendered, K scaled per axis; none: the clip's",
        low=MIN_SIDE,
    )
    indices: tuple[str, ...] | None = option(
        None,
        "source cameras, two or more names or numbers, the first the reference; none: those nearest to the middle of "
        "what is rendered",
    )
    background_cameras: int | None = option(
        None,
        f"cameras that the background is made from, once, the sources among them; none: {DEFAULT_STILL_SOURCES} that "
        "are nearest to the path, or those of indices, or the sources where others have no background",
        low=2,
        high=64,
    )
    num_planes: int | None = option(
        None, "planes of the multiplane images; none: as the checkpoint was trained", low=2, high=1024
    )
    device: Literal["auto", "cuda", "mps", "cpu"] = option("auto", "where to compute")
    precision: Literal["auto", "fp32", "bf16"] = option("auto", "of the networks; auto: bf16 where it is fast")
    memory_gb: float | None = option(
        None,
        "memory that the program may take, in GB; none: 80 % of what is free. Frames that need more go in tiles",
        low=0.1,
        high=1e5,
    )
    backend: str | None = option(None, "implementation of the sweep and of the rendering; none: the fastest")
