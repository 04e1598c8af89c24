"""Make the pictures of the player for the documentation from the export of `make demo`.

make demo && .venv/bin/python docs/make_player_pictures.py    # needs an installed Chromium
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cost.browser import (
    MISSING,
    OpenPage,
    find_chromium,
    launch_chromium,
    new_page,
)
from maskvolume.io.files import atomic_path
from maskvolume.options import option, parse_options
from maskvolume.runtime.errors import InputError, run_program

ROOT = Path(__file__).resolve().parents[1]
STEPS = 40  # pictures in the animation
WINDOW = (960, 680)
PICTURE_WH = (640, 453)
QUALITY = 62


@dataclass(frozen=True)
class PlayerPictureOptions:
    """Options of make_player_pictures."""

    viewer_dir: str = option(str(ROOT / "out/demo/viewer"), "folder of the export")
    out_dir: str = option(str(ROOT / "docs/pictures"), "folder for the pictures")


def shot(page: OpenPage) -> Image.Image:
    """A screenshot of the window."""
    return Image.open(io.BytesIO(page.page.screenshot())).convert("RGB")


def animate(page: OpenPage, limits: dict[str, float], frames: int) -> list[Image.Image]:
    """Play the clip twice while the viewpoint moves in a circle; then freeze time and spread the layers apart."""
    pictures = []
    for step in range(STEPS):
        angle = 2 * math.pi * step / STEPS
        bullet = step >= STEPS * 3 // 4
        page.run("(frame) => player.seek(frame)", (step * 2 * frames // STEPS) % frames if not bullet else frames // 2)
        mode = "layers" if step >= STEPS * 7 // 8 else "disparity" if bullet else "color"
        page.run("(mode) => player.setMode(mode)", mode)
        offset = [0.9 * limits["x"] * math.sin(angle), 0.9 * limits["y"] * math.cos(angle), 0.0]
        page.run("(offset) => player.setOffset(...offset)", offset)
        page.page.wait_for_timeout(400)  # the player renders at full resolution once nothing moves
        pictures.append(shot(page).resize(PICTURE_WH, Image.Resampling.LANCZOS))
    return pictures


def main(argv: Sequence[str] | None = None) -> None:
    """Play the export and write the pictures."""
    options = parse_options(PlayerPictureOptions, argv, prog="make_player_pictures.py", description=__doc__ or "")
    folder, out = Path(options.viewer_dir), Path(options.out_dir)
    if not (folder / "manifest.json").is_file():
        raise InputError(f"{folder}: no exported clip; run make demo first")
    chromium = find_chromium()
    if chromium is None:
        raise InputError(MISSING)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    width, height = WINDOW
    with (
        launch_chromium(chromium) as browser,
        new_page(browser, folder, viewport={"width": width, "height": height}) as page,
    ):
        page.goto()
        page.run("() => window.playerReady")
        pictures = animate(page, manifest["view"]["limits"], manifest["frames"])
    with atomic_path(out / "player.webp") as temporary:
        first, *others = pictures
        first.save(
            temporary, "WEBP", save_all=True, append_images=others, duration=120, loop=0, quality=QUALITY, method=6
        )
    with atomic_path(out / "player.jpg") as temporary:
        sheet = Image.new("RGB", (2 * PICTURE_WH[0], 2 * PICTURE_WH[1]))
        for number, step in enumerate((3, 17, 31, STEPS - 1)):
            sheet.paste(pictures[step], (number % 2 * PICTURE_WH[0], number // 2 * PICTURE_WH[1]))
        sheet.save(temporary, quality=88)
    for name in ("player.webp", "player.jpg"):
        print(f"{out / name}: {(out / name).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    run_program(main)
