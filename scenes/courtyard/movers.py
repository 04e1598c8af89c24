"""The moving objects of the example scene: a robot that skates in a loop, and a bouncing ball.

Both motions are periodic in the clip, so that it can be played in a loop. They are wide enough that no pixel is
covered for half of the frames, so that the median over time of a camera shows the empty courtyard.
"""

from __future__ import annotations

import math
from typing import Any

import bpy

from scenes.courtyard import parts as p

TAU = 2 * math.pi


class Movers:
    """The moving objects; :meth:`pose` moves them to an instant of the loop."""

    def __init__(self) -> None:
        self.parts: dict[str, Any] = {}
        self._build_robot()
        self._build_ball()

    @property
    def objects(self) -> list[Any]:
        """All visible moving objects."""
        return [thing for thing in self.parts.values() if thing.type == "MESH"]

    def pose(self, time: float) -> None:
        """Place everything at ``time`` (0..1, one round of the loop)."""
        self._pose_robot(TAU * time)
        self._pose_ball(time)

    def _joint(self, name: str, parent: str | None, at: p.Vec) -> None:
        empty = bpy.data.objects.new(name, None)
        empty.location = tuple(at)
        if parent:
            empty.parent = self.parts[parent]
        bpy.context.scene.collection.objects.link(empty)
        self.parts[name] = empty

    def _part(self, name: str, parent: str, shapes: list[p.Shape], material: Any, smooth: bool = False) -> None:
        thing = p.mesh_object(name, shapes, material, smooth=smooth)
        thing.parent = self.parts[parent]
        self.parts[name] = thing

    def _build_robot(self) -> None:
        shell = p.cobbles("shell", ["e76f51", "f4a261", "e9c46a", "d1495b"], "5a1f1a", 13.0, 0.45, False)
        plate = p.checks("plate", "1f5f7a", "cfe3df", 11.0, 0.4)
        joint = p.mottled("joint", ["2b2f36", "6b7480", "c0c6c8"], 30.0, 0.35)
        limb = p.mottled("limb", ["19606b", "3fa3a3", "d6efe0"], 18.0, 0.45)
        red = p.pieces("red", ["c9302c", "e8b030"], 50.0, 0.4)
        eye = p.mottled("eye", ["101418", "f7f3d0", "f7f3d0"], 14.0, 0.3)
        self._joint("robot", None, (0, 0, 0))
        self._joint("hips", "robot", (0, 0, 0.5))
        self._part("pelvis", "hips", [p.box((0.2, 0.15, 0.1))], joint)
        self._joint("chest", "hips", (0, 0, 0.05))
        self._part("torso", "chest", [p.box((0.34, 0.22, 0.34), (0, 0, 0.2))], shell)
        self._part("panel", "chest", [p.box((0.2, 0.02, 0.17), (0, -0.115, 0.22))], plate)
        self._part("knobs", "chest", [p.ball(0.022, (x, -0.13, 0.09), 8) for x in (-0.07, 0, 0.07)], red)
        self._joint("neck", "chest", (0, 0, 0.38))
        self._part("head", "neck", [p.box((0.27, 0.22, 0.22), (0, 0, 0.14))], plate)
        self._part("face", "neck", [p.ball(0.045, (x, -0.1, 0.16), 10) for x in (-0.065, 0.065)], eye, True)
        self._part("mouth", "neck", [p.box((0.13, 0.02, 0.025), (0, -0.11, 0.075))], red)
        self._part("antenna", "neck", [p.rod((0, 0, 0.25), (0, 0, 0.38), 0.007), p.ball(0.03, (0, 0, 0.39), 8)], red)
        for side, x in (("l", -1), ("r", 1)):
            self._joint(f"shoulder {side}", "chest", (0.2 * x, 0, 0.33))
            self._part(
                f"upper arm {side}",
                f"shoulder {side}",
                [p.ball(0.06, rows=8), p.rod((0, 0, 0), (0, 0, -0.2), 0.042, 12)],
                limb,
            )
            self._joint(f"elbow {side}", f"shoulder {side}", (0, 0, -0.21))
            self._part(
                f"fore arm {side}",
                f"elbow {side}",
                [p.ball(0.045, rows=8), p.rod((0, 0, 0), (0, 0, -0.17), 0.036, 12)],
                shell,
            )
            self._part(f"hand {side}", f"elbow {side}", [p.ball(0.055, (0, 0, -0.2), 8)], red)
            self._joint(f"hip {side}", "hips", (0.085 * x, 0, -0.03))
            self._part(
                f"thigh {side}",
                f"hip {side}",
                [p.ball(0.06, rows=8), p.rod((0, 0, 0), (0, 0, -0.2), 0.05, 12)],
                limb,
            )
            self._joint(f"knee {side}", f"hip {side}", (0, 0, -0.21))
            self._part(
                f"shin {side}",
                f"knee {side}",
                [p.ball(0.05, rows=8), p.rod((0, 0, 0), (0, 0, -0.17), 0.045, 12)],
                plate,
            )
            wheels = [p.lathe([(0.028, -0.02), (0.028, 0.02)], (0, y, -0.245), (0, 90, 0), 12) for y in (-0.1, 0.05)]
            self._part(f"skate {side}", f"knee {side}", [p.box((0.1, 0.22, 0.05), (0, -0.03, -0.2)), *wheels], red)

    def _pose_robot(self, phase: float) -> None:
        """Move around an ellipse, facing forward, with two strides per round."""
        x, y = 0.92 * math.sin(phase), 2.5 - 0.32 * math.cos(phase)
        dx, dy = 0.92 * math.cos(phase), 0.32 * math.sin(phase)
        stride = 2 * phase
        robot = self.parts["robot"]
        robot.location = (x - 0.02, y, 0.02 + 0.03 * math.cos(2 * stride))
        robot.rotation_euler = (0, 0, math.atan2(dx, -dy))
        self._turn("hips", 10, 7 * math.sin(stride), 0)
        self._turn("chest", 6, 5 * math.sin(stride), 14 * math.sin(stride))
        self._turn("neck", -8, -6 * math.sin(stride), -25 * math.sin(phase + 0.6))
        for side, sign in (("l", 1), ("r", -1)):
            swing = sign * math.sin(stride)
            lift = max(0.0, sign * math.sin(stride + 0.9))
            self._turn(f"shoulder {side}", 48 * swing, sign * (16 + 10 * math.cos(stride)), 0)
            self._turn(f"elbow {side}", -40 - 22 * swing, 0, 0)
            self._turn(f"hip {side}", -34 * swing - 12, sign * (6 + 8 * lift), 0)
            self._turn(f"knee {side}", 14 + 50 * lift, 0, 0)

    def _turn(self, name: str, x: float, y: float, z: float) -> None:
        self.parts[name].rotation_euler = (math.radians(x), math.radians(y), math.radians(z))

    def _build_ball(self) -> None:
        s = p.Shader("ball", 0.4)
        at = s.coords("Object")
        sectors = s.node("TexGradient", 0, {"gradient_type": "RADIAL"}, Vector=at)
        color = s.ramp(sectors, ["d6283c", "f7ead0", "1f5fa8", "f2b632", "2f8f5a", "f7ead0"], steps=True)
        dots = s.node("TexVoronoi", "Distance", Vector=at, Scale=16.0)
        spotted = s.mix(s.ramp(dots, ["ffffff", "000000"], steps=True, high=0.5), color, "2a2233")
        self.parts["ball"] = p.mesh_object(
            "ball", [p.ball(0.17, rows=24)], s.done(s.dirt(spotted, 25.0, 0.3)), smooth=True
        )

    def _pose_ball(self, time: float) -> None:
        """Bounce three times per round, to and fro across the yard, behind and in front of the robot."""
        phase = TAU * time + 0.5 * math.pi
        bounce = (3 * time + 0.25) % 1.0
        ball = self.parts["ball"]
        ball.location = (
            -1.12 * math.sin(phase),
            2.45 + 0.3 * math.cos(phase),
            0.17 + 3.2 * bounce * (1 - bounce),
        )
        ball.rotation_euler = (0.5 + TAU * time, 2 * math.sin(phase) * 2.5, TAU * time)
