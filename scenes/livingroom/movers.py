"""The moving objects in the living room: a toy train on its track and two drifting balloons.

All motions are periodic in the clip and wide enough that no pixel is covered for half of the frames.
"""

from __future__ import annotations

import math
from typing import Any

import bpy

from scenes.courtyard import parts as p
from scenes.livingroom import parts as q
from scenes.livingroom import prints

TAU = 2 * math.pi
TRACK_CENTRE = (0.0, 1.78, 0.6)  # on the table
TRACK_RADII = (0.6, 0.25)
CAR_GAP = 0.235  # metres from car to car
NUM_CARS = 3


class Toys:
    """The moving objects; :meth:`pose` moves them to an instant of the loop."""

    def __init__(self) -> None:
        self.cars = [self._empty(f"car {k}") for k in range(NUM_CARS)]
        self.balloons = [self._empty(f"balloon {k}") for k in range(2)]
        self.objects: list[Any] = []
        self._build_engine()
        self._build_wagons()
        self._build_balloons()

    def pose(self, time: float) -> None:
        """Place everything at ``time`` (0..1, one round of the loop)."""
        phase = TAU * time
        for k, car in enumerate(self.cars):
            self._pose_car(car, phase, k * CAR_GAP)
        red, blue = self.balloons
        red.location = (
            -0.35 + 0.85 * math.sin(phase),
            2.75 + 0.22 * math.cos(phase),
            1.5 + 0.09 * math.sin(2 * phase + 0.5),
        )
        red.rotation_euler = (0.15 * math.cos(phase), -0.2 * math.cos(phase), phase)
        blue.location = (
            0.42 - 0.85 * math.sin(phase + 0.9),
            2.55 + 0.2 * math.cos(phase + 0.9),
            1.12 + 0.08 * math.sin(2 * phase),
        )
        blue.rotation_euler = (0.1 * math.sin(phase), 0.2 * math.cos(phase + 0.9), -phase)

    def _pose_car(self, car: Any, phase: float, behind: float) -> None:
        """Place a car on the track, ``behind`` metres behind the engine."""
        a, b = TRACK_RADII
        while behind > 0:
            step = min(behind, 0.01)
            phase -= step / math.hypot(a * math.sin(phase), b * math.cos(phase))
            behind -= step
        x, y, z = TRACK_CENTRE
        car.location = (x + a * math.cos(phase), y + b * math.sin(phase), z)
        car.rotation_euler = (0, 0, math.atan2(b * math.cos(phase), -a * math.sin(phase)))

    def _empty(self, name: str) -> Any:
        empty = bpy.data.objects.new(name, None)
        bpy.context.scene.collection.objects.link(empty)
        return empty

    def _part(self, parent: Any, name: str, shapes: list[p.Shape], material: Any, smooth: bool = False) -> Any:
        thing = p.mesh_object(name, shapes, material, smooth=smooth)
        thing.parent = parent
        self.objects.append(thing)
        return thing

    def _wheels(self, car: Any, material: Any) -> None:
        places = [(x, y, 0.025) for x in (-0.06, 0.0, 0.06) for y in (-0.048, 0.048)]
        wheels = [p.lathe([(0.025, -0.008), (0.025, 0.008)], at, (90, 0, 0), 16) for at in places]
        self._part(car, "wheels", wheels, material)

    def _build_engine(self) -> None:
        paint = prints.stripes((160, 160), 21, ["1f6b4a", "2f8f5a", "e9c46a", "1a4a3a"], 14, across=True)
        green = q.printed("engine", paint, 0.12, roughness=0.35)
        red = q.printed("cab", prints.dots((160, 160), 22, "b8322a", ["f2d27a", "7a1f1a"], 26), 0.12, roughness=0.4)
        black = q.printed("iron", prints.blotches((128, 128), 23, ["17181b", "3a3d44", "6a5a48"], 14), 0.1)
        brass = q.printed("brass", prints.blotches((96, 96), 24, ["8a6420", "e0b850", "c9963a"], 12), 0.08)
        engine = self.cars[0]
        self._part(engine, "frame", [p.box((0.21, 0.085, 0.025), (0, 0, 0.045))], black)
        boiler = p.lathe([(0.042, 0.0), (0.042, 0.13), (0.03, 0.14)], (-0.03, 0, 0.1), (0, 90, 0), 20)
        self._part(engine, "boiler", [boiler], green, smooth=False)
        cab = [p.box((0.07, 0.095, 0.09), (-0.07, 0, 0.1)), p.box((0.1, 0.115, 0.012), (-0.07, 0, 0.16))]
        self._part(engine, "cab", cab, red)
        chimney = p.lathe([(0.012, 0), (0.012, 0.045), (0.022, 0.065), (0.018, 0.066)], (0.075, 0, 0.135))
        self._part(engine, "chimney", [chimney, p.ball(0.018, (0.02, 0, 0.145), 8)], brass)
        self._wheels(engine, black)

    def _build_wagons(self) -> None:
        black = bpy.data.materials["iron"]
        tones = (["c9503a", "e0a458", "8a2f25"], ["2f5f8f", "8fb5d0", "f1e9d6"])
        for k, tone in enumerate(tones):
            car = self.cars[k + 1]
            side = q.printed(f"wagon {k}", prints.stripes((160, 160), 25 + k, tone, 13, across=k == 1), 0.13)
            sides = [p.box((0.2, 0.01, 0.065), (0, y, 0.092)) for y in (-0.045, 0.045)]
            sides += [p.box((0.01, 0.09, 0.065), (x, 0, 0.092)) for x in (-0.095, 0.095)]
            self._part(car, "wagon", [*sides, p.box((0.2, 0.09, 0.02), (0, 0, 0.055))], side)
            self._wheels(car, black)
        tints = ["c9302c", "e0a030", "8fb53a", "d9722f"]
        skin = q.printed("load", prints.blotches((96, 96), 28, ["d8d0c0", "ffffff", "b8a890"], 10), 0.06, tints=tints)
        fruit = [p.ball(0.024, (-0.065 + 0.033 * k, 0.02 * (-1) ** k, 0.115 + 0.01 * (k % 3)), 8) for k in range(5)]
        self._part(self.cars[1], "fruit", fruit, skin, smooth=True)
        blocks = [p.box((0.05, 0.05, 0.05), (-0.06 + 0.058 * k, 0, 0.115), (0, 0, 14 * k - 10)) for k in range(3)]
        letters = prints.abstract((128, 128), 29, ["f4ead2", "e9b93f", "d9472f", "3f8a8a", "20304a"], 24)
        self._part(self.cars[2], "blocks", blocks, q.printed("blocks", letters, 0.05))

    def _build_balloons(self) -> None:
        skins = (
            prints.dots((400, 800), 31, "c8322f", ["f7ead0", "f2c14e", "2f6fa8", "f7ead0"], 70),
            prints.stripes((400, 800), 32, ["2f6fa8", "f2c14e", "f4efe1", "3f9a8a", "e8764a"], 62),
        )
        cord = q.printed("cord", prints.blotches((64, 64), 33, ["b8a88a", "efe6d0"], 9), 0.1)
        profile = [(0.004, -0.2), (0.022, -0.215), (0.014, -0.19)]
        for k in range(15):
            a = math.pi * (k / 14 - 0.5)
            radius = 0.165 * math.cos(a) * (1 - 0.12 * max(0.0, -math.sin(a)))
            profile.append((max(radius, 0.012 if k == 0 else 1e-3), 0.185 * math.sin(a)))
        for empty, skin in zip(self.balloons, skins, strict=True):
            material = q.printed(f"{empty.name} skin", skin, 1.0, roughness=0.25, wrap="SPHERE")
            self._part(empty, f"{empty.name} body", [p.lathe(profile, sides=32)], material, smooth=True)
            line = [(0.02 * math.sin(9 * t), 0.02 * math.cos(7 * t), -0.2 - 0.42 * t) for t in (0, 0.25, 0.5, 0.75, 1)]
            self._part(empty, f"{empty.name} cord", p.chain(line, 0.0035), cord)
