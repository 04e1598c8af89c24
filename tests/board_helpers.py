"""Pictures of a chessboard, rendered through a lens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lens_helpers import picture_rays, take_picture

from maskvolume.geometry.lenses import (
    Lens,
)
from maskvolume.io.images import write_image


def draw_board(fine: Lens, rays: np.ndarray, turn: np.ndarray, place: np.ndarray, board: tuple[int, int]) -> np.ndarray:
    """Render a chessboard with unit squares.

    Args:
        fine: the lens at four times the picture size.
        rays: ``[4 h, 4 w, 3]`` viewing directions of its pixels.
        turn: rotation of the board, axis times angle.
        place: centre of the board in the camera frame.
        board: inner corners (columns, rows).
    """
    angle = np.linalg.norm(turn)
    x, y, z = turn / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    T = np.eye(4)
    T[:3, :3] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    T[:3, 3] = place - T[:3, :3] @ [(board[0] - 1) / 2, (board[1] - 1) / 2, 0]

    def colour(points: np.ndarray) -> np.ndarray:
        squares = np.floor(points)
        on_board = (squares >= -1).all(axis=-1) & (squares[..., 0] < board[0]) & (squares[..., 1] < board[1])
        dark = on_board & (squares.sum(axis=-1) % 2 == 0)
        return np.repeat(np.where(dark, 0.1, 0.9)[..., None], 3, axis=-1)

    picture = take_picture(fine, T, colour, 0.0, rays)
    return picture.reshape(fine.size[0] // 4, 4, fine.size[1] // 4, 4, 3).mean(axis=(1, 3)).round().astype(np.uint8)


BOARD = (7, 5)


BOARD_RAYS: dict[str, np.ndarray] = {}  # rays of each lens model, computed once


def write_boards(folder: Path, lens: Lens, count: int = 8, tilt: float = 0.45) -> None:
    fine = lens.scaled((4 * lens.size[0], 4 * lens.size[1]))
    if lens.model not in BOARD_RAYS:
        BOARD_RAYS[lens.model] = picture_rays(fine)
    rays = BOARD_RAYS[lens.model]
    for i in range(count):
        angle = 2 * np.pi * i / count
        turn = tilt * np.array([np.cos(angle), np.sin(angle), 0.2 * (i % 3 - 1)]) + [1e-6, 0, 0]
        distance = 9.0 + 2 * (i % 3) if lens.model == "pinhole" else 6.0 + i % 3
        place = np.array([0.16 * np.cos(2 * angle), 0.12 * np.sin(2 * angle), 1.0]) * distance
        write_image(folder / f"{i:03d}.png", draw_board(fine, rays, turn, place, BOARD))
