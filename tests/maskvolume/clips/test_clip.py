"""The protocol of clips: a rig's clip keeps to it, at all times with the same cameras."""

from __future__ import annotations

from pathlib import Path

import torch

from maskvolume.clips.clip import Clip, StillClip
from maskvolume.clips.rig import RigClip


def test_a_rig_is_a_clip_whose_cameras_stand_still(tiny_rig: Path) -> None:
    rig = RigClip.open(tiny_rig)
    clip: StillClip = rig
    names = {name for protocol in (Clip, StillClip) for name in vars(protocol) if not name.startswith("_")}
    assert names == {"names", "num_frames", "size", "cameras", "near_far", "read", "read_background"}
    assert all(hasattr(rig, name) for name in names)
    assert torch.equal(clip.cameras(time=1.5).T_cam_world, clip.cameras().T_cam_world)
    assert clip.read(0, clip.num_frames - 1, (24, 32)).shape == (24, 32, 3)
