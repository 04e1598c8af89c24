"""Views of the bundled rig from outside, and paths along its rows."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.quality.rig_views import end_of_row, outside_views
from maskvolume.clips.rig import RigClip

SIZE = (48, 64)


def test_the_bundled_rig_is_seen_from_its_upper_row(repo_root: Path) -> None:
    clip = RigClip.open(repo_root / "examples" / "rig")
    views = outside_views(clip, SIZE)
    assert [view.name for view in views] == ["cam00, 1 outside", "cam00, 2 outside", "cam00, 3 outside"]
    assert [view.indices[:2] for view in views] == [(1, 2), (2, 3), (3, 4)]
    assert [set(view.indices[2:4]) for view in views] == [{6, 7}, {7, 8}, {8, 9}]
    assert all(0 not in view.indices and 5 not in view.indices for view in views)
    expected = torch.from_numpy(clip.read(0, 3, SIZE)).permute(2, 0, 1) / 255
    assert torch.equal(views[2].picture(clip.frame_names[3]), expected)


def test_a_row_goes_as_far_as_its_cameras() -> None:
    line = torch.tensor([[0.0, 0, 0], [3, 0, 0], [1, 0.1, 0], [2, -0.1, 0], [7, 0, 0]], dtype=torch.float64)
    target, row, beside = end_of_row(line)
    assert (target, row) == (0, (2, 3, 1))
    assert beside(1) == [2, 3, 1, 4]
    assert beside(3) == [1, 4]
    alone = torch.tensor([[0.0, 0, 0], [1, 0, 0]], dtype=torch.float64)
    assert len(end_of_row(alone)[1]) == 1, "one other camera: no pair"
