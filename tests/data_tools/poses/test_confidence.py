"""How sure estimated poses are, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pycolmap
import pytest

from data_tools.poses.confidence import (
    Confidence,
    align,
    differences,
    rig_width,
    verdict,
)
from data_tools.poses.mapping import Problem


def test_alignment_of_cameras_in_a_row():
    T = np.tile(np.eye(4), (3, 1, 1))
    T[:, 0, 3] = [0.1, 0, -0.1]
    world = np.eye(4)
    world[:3, :3] = cv2.Rodrigues(np.array([0.3, -0.7, 0.2]))[0]
    world[:3, 3] = [1, 2, 3]
    moved = T @ world
    moved[:, :3, 3] *= 5
    found = align(list(moved), list(T))
    assert found.scale == pytest.approx(0.2)
    rotation, place = differences(list(moved), list(T))
    assert rotation.max() < 1e-6
    assert place.max() < 1e-9
    assert rig_width(T) == pytest.approx(0.2)


def test_verdict_names_what_is_weak():
    camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=640, height=360)
    problem = Problem(("cam00", "cam01"), (), {}, (camera, camera), False, False, 0)
    good = Confidence(900, 4.0, (1.0, 2.0, 4.0), 0.3, {0: 500, 1: 450}, 0.01, 0.1, 0.5, 0.0)
    assert verdict(good, problem) == ("good", [])
    grade, why = verdict(replace(good, focal=5.0, points={0: 500, 1: 100}), problem)
    assert grade == "usable"
    assert "focal lengths are only accurate to 5.0%" in why[0]
    assert "cam01 shares only 100 points with the others" in why[1]
    assert verdict(replace(good, rotation=1.0), problem)[0] == "poor"
    grade, why = verdict(replace(good, aspect=50.0), problem)
    assert grade == "poor"
    assert "--distortion radial" in why[0]
