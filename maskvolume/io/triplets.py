"""Fixed validation views: a target and its sources, one choice per line of text.

SCENE TARGET SOURCE SOURCE [...]       timestamps in microseconds; # starts a comment
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskvolume.io.files import atomic_path
from maskvolume.io.shards import SceneShards
from maskvolume.runtime.errors import InputError

_HEADING = "# scene, target, sources; timestamps in microseconds"
_BETWEEN = 0.6  # share of targets between the two sources; the others are up to a stride outside


@dataclass(frozen=True)
class ViewChoice:
    """A target view and the source views that it is predicted from.

    Attributes:
        scene: name of the scene.
        target: timestamp in microseconds.
        sources: timestamps in microseconds, two or more.
    """

    scene: str
    target: int
    sources: tuple[int, ...]


def read_triplets(path: str | Path) -> list[ViewChoice]:
    """Read choices.

    Raises:
        InputError: the file is missing, holds no choice, or has a malformed line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file of validation choices; check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; lines `SCENE TARGET SOURCE SOURCE` expected") from None
    choices = []
    for number, line in enumerate(lines, start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            target, *sources = (int(word) for word in words[1:])
        except ValueError:
            target, sources = 0, []
        if len(sources) < 2:
            raise InputError(
                f"{path}: line {number}: `SCENE TARGET SOURCE SOURCE` with timestamps in microseconds expected, "
                f"got `{line.strip()}`; correct the line"
            )
        choices.append(ViewChoice(words[0], target, tuple(sources)))
    if not choices:
        raise InputError(f"{path}: holds no choice; lines `SCENE TARGET SOURCE SOURCE` expected")
    return choices


def write_triplets(path: str | Path, choices: Sequence[ViewChoice]) -> None:
    """Write choices; the inverse of :func:`read_triplets`."""
    lines = [" ".join(str(word) for word in (c.scene, c.target, *c.sources)) for c in choices]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join([_HEADING, *lines]) + "\n", encoding="utf-8")


def draw_triplets(
    shards: SceneShards, count: int, seed: int = 0, strides: tuple[int, int] = (3, 10)
) -> list[ViewChoice]:
    """Draw choices of two sources and a target, the same for the same data and seed.

    Every scene is used once before any is used again. The sources are ``strides[0]`` to ``strides[1]`` frames apart,
    fewer in a scene that is too short.

    Raises:
        InputError: no scene has three frames.
    """
    fewest, most = strides
    if not 2 <= fewest <= most:
        raise ValueError(f"strides: two numbers of frames, 2 or more, the fewest first, expected, got {strides}")
    scenes = [scene for scene in range(len(shards)) if shards.count(scene) >= 3]
    if not scenes:
        raise InputError(f"{shards.folder}: no scene has three frames, which a validation choice needs; add scenes")
    rng = np.random.default_rng(seed)
    order = rng.permutation(scenes)
    choices = []
    for number in range(count):
        scene = int(order[number % len(order)])
        frames = shards.count(scene)
        stride = min(int(rng.integers(fewest, most + 1)), frames - 1)
        first = int(rng.integers(frames - stride))
        second = first + stride
        outside = [f for f in range(first - stride, second + stride + 1) if not first <= f <= second]
        outside = [f for f in outside if 0 <= f < frames]
        is_between = rng.random() < _BETWEEN or not outside
        target = int(rng.choice(range(first + 1, second) if is_between else outside))
        stamps = shards.timestamps(scene)
        choices.append(ViewChoice(shards.names[scene], int(stamps[target]), (int(stamps[first]), int(stamps[second]))))
    return choices
