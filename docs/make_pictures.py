"""Make the pictures of the documentation from the output of `make demo`.

make demo && .venv/bin/python docs/make_pictures.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import imageio.v3 as iio
import numpy as np
from PIL import Image

from maskvolume.clips.layouts import list_pictures
from maskvolume.io.files import atomic_path
from maskvolume.options import option, parse_options
from maskvolume.runtime.errors import InputError, run_program

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class PictureOptions:
    """Options of make_pictures."""

    demo_dir: str = option(str(ROOT / "out/demo"), "output folder of the demo")
    out_dir: str = option(str(ROOT / "docs/pictures"), "folder for the pictures")
    width: int = option(480, "width of the animation, in pixels")
    fps: float = option(15.0, "frames a second of the animation")
    quality: int = option(60, "quality of the animation and of the sheet, 0 to 100")


def main(argv: Sequence[str] | None = None) -> None:
    """Write demo.webp, an animation that loops, and demo.jpg, the contact sheet."""
    options = parse_options(PictureOptions, argv, prog="make_pictures.py", description=(__doc__ or "").split("\n")[0])
    demo, out = Path(options.demo_dir), Path(options.out_dir)
    sheet = demo / "contact_sheet.png"
    if not sheet.is_file():
        raise InputError(f"{sheet}: no such picture; run make demo first")
    frames = [Image.open(path).convert("RGB") for path in list_pictures(demo / "frames").values()]
    size = (options.width, round(options.width * frames[0].height / frames[0].width))
    frames = [frame.resize(size, Image.Resampling.LANCZOS) for frame in frames]
    with atomic_path(out / "demo.webp") as path:
        iio.imwrite(
            path,
            np.stack([np.asarray(frame) for frame in frames]),
            extension=".webp",
            duration=round(1000 / options.fps),
            loop=0,
            quality=options.quality,
            method=4,
        )
    with atomic_path(out / "demo.jpg") as path:
        Image.open(sheet).convert("RGB").save(path, quality=max(options.quality, 80), optimize=True)
    print(f"written: {out / 'demo.webp'}, {out / 'demo.jpg'}")


if __name__ == "__main__":
    run_program(main)
