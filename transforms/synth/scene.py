"""What the camera sees: the inside of a textured cube, through a pinhole, at one instant.

The camera only turns, so each wall of the cube maps to the picture by one homography, ``K Rᵀ``: exact for
any distance, and cheap. The walls darken from the ceiling to the floor, and a
dark rail runs around them at the height of the eye, so the picture shows which way is down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from align.transforms.synth.options import SynthOptions
from align.transforms.synth.story import generator

# One thread: more save no CPU here, and a child forked from a process that started them would hang.
cv2.setNumThreads(1)

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]

FIELD_OF_VIEW = math.radians(70)
"""Horizontal."""
WHITE, BLACK, GREY = 235, 16, 128
_PAD = 3  # texels beyond a wall's edge, so that neighbouring walls leave no crack between them
_TEXTURE_SIDE_MAX = 1536
_SHADE = 30  # luma that the walls lose from their middle to the floor
_RAIL, _RAIL_SHADE = 0.03, 35  # half the rail's height, the wall's being 1, and the luma that it lacks

# Per wall: right, down and outward normal in world axes, and mean luma.
_WALLS = (
    ((1, 0, 0), (0, 1, 0), (0, 0, 1), 112),
    ((-1, 0, 0), (0, 1, 0), (0, 0, -1), 104),
    ((0, 0, -1), (0, 1, 0), (1, 0, 0), 122),
    ((0, 0, 1), (0, 1, 0), (-1, 0, 0), 96),
    ((1, 0, 0), (0, 0, 1), (0, -1, 0), 155),
    ((1, 0, 0), (0, 0, -1), (0, 1, 0), 70),
)


def camera_matrix(options: SynthOptions) -> Floats:
    """Pinhole intrinsics, float64 [3, 3], pixel centres at whole numbers."""
    focal = options.width / 2 / math.tan(FIELD_OF_VIEW / 2)
    centre = (options.width - 1) / 2, (options.height - 1) / 2
    return np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]], np.float64)


@dataclass(frozen=True, slots=True)
class Scene:
    """A world to look at.

    Attributes:
        camera: intrinsics, float64 [3, 3].
        walls: uint8 [6, side, side, 2], luma of the coarse and the fine texture.
        disc: uint8 [d, d], luma of the foreground object; None without one.
        orbit: the object's path: (frequency in Hz, phase in rad) across and down.
    """

    width: int
    height: int
    camera: Floats
    walls: Bytes
    disc: Bytes | None
    orbit: Floats

    def render(self, orientation: Floats, hue: float, pace: float, seconds: float) -> Bytes:
        """One frame.

        Args:
            orientation: float64 [3, 3], camera → world.
            hue: tint of the scene, in [0, 1].
            pace: share of the fine texture, in [0, 1].
            seconds: when, for the object in the foreground.

        Returns:
            uint8 [height · 3 / 2, width], planar YUV 4:2:0, BT.601, limited range.
        """
        frame = blank(self.width, self.height, luma=BLACK)
        layers = np.full((self.height, self.width, 2), BLACK, np.uint8)
        for wall in self._facing(orientation):
            cv2.warpPerspective(
                self.walls[wall],
                self._homography(orientation, wall),
                (self.width, self.height),
                dst=layers,
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_TRANSPARENT,
            )
        frame[: self.height] = cv2.transform(layers, np.array([[1 - pace, pace]]))
        blue, red = frame[self.height :].reshape(2, self.height // 2, self.width // 2)
        # From red over yellow, green and turquoise to blue: not the whole circle, so the ends stay apart.
        tint = math.radians(70 + 324 * hue)
        blue[:] = round(GREY + 45 * math.cos(tint))
        red[:] = round(GREY + 45 * math.sin(tint))
        if self.disc is not None:
            self._paste(frame[: self.height], self.disc, seconds)
        return frame

    def _facing(self, orientation: Floats) -> list[int]:
        """Of each pair of opposite walls, the one that the camera faces: the other would show mirrored."""
        forward = orientation[:, 2]
        dots = [float(forward @ np.array(w[2])) for w in _WALLS]
        return [k if dots[k] >= dots[k + 1] else k + 1 for k in (0, 2, 4)]

    def _homography(self, orientation: Floats, wall: int) -> Floats:
        side = self.walls.shape[1]
        middle, half = (side - 1) / 2, side / 2 - _PAD
        to_plane = np.array([[1 / half, 0, -middle / half], [0, 1 / half, -middle / half], [0, 0, 1]])
        to_world = np.array(_WALLS[wall][:3], np.float64).T
        product: Floats = self.camera @ orientation.T @ to_world @ to_plane
        return product

    def _paste(self, luma: Bytes, disc: Bytes, seconds: float) -> None:
        size = len(disc)
        swing = np.sin(2 * math.pi * self.orbit[:, 0] * seconds + self.orbit[:, 1])
        x = round((self.width - size) * (1 + float(swing[0])) / 2)
        y = round((self.height - size) * (1 + float(swing[1])) / 2)
        spot = luma[y : y + size, x : x + size]
        np.copyto(spot, disc, where=disc > 0)


def blank(width: int, height: int, *, luma: int) -> Bytes:
    """A uniform grey frame, uint8 [height · 3 / 2, width], planar YUV 4:2:0."""
    frame = np.full((height * 3 // 2, width), GREY, np.uint8)
    frame[:height] = luma
    return frame


def build(options: SynthOptions, index: int) -> Scene:
    """The world of recording ``index``."""
    rng = generator(options, index, 2)
    camera = camera_matrix(options)
    side = min(round(2 * camera[0, 0]), _TEXTURE_SIDE_MAX) + 2 * _PAD
    cell = side / 150  # the fine texture's grain: some 4 pixels at 640 x 360
    walls = np.empty((len(_WALLS), side, side, 2), np.uint8)
    height = np.linspace(1, -1, side, dtype=np.float32)[:, None]
    fall = _SHADE * height - _RAIL_SHADE * (np.abs(height) < _RAIL)
    for wall, (_, down, _, mean) in zip(walls, _WALLS, strict=True):
        level = mean + fall * down[1]
        wall[:, :, 0] = level + 36 * np.tanh(_noise(rng, side, 5 * cell) + 0.4 * _noise(rng, side, 2 * cell))
        wall[:, :, 1] = level + 36 * np.tanh(_noise(rng, side, cell) + 0.4 * _noise(rng, side, 3 * cell))
    orbit = np.stack([rng.uniform(0.1, 0.25, 2), rng.uniform(0, 2 * math.pi, 2)], axis=1)
    disc = _disc(rng, min(options.width, options.height) // 2) if options.foreground else None
    return Scene(options.width, options.height, camera, walls, disc, orbit)


def _noise(rng: np.random.Generator, side: int, cell: float) -> NDArray[np.float32]:
    """Smooth noise of unit variance at its cells, float32 [side, side]."""
    cells = max(2, round(side / cell))
    coarse = rng.standard_normal((cells, cells), np.float32)
    return np.asarray(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)


def _disc(rng: np.random.Generator, size: int) -> Bytes:
    texture = np.clip(120 + 45 * np.tanh(1.5 * _noise(rng, size, size / 12)), 40, 200).astype(np.uint8)
    mask = np.zeros((size, size), np.uint8)
    cv2.circle(mask, (size // 2, size // 2), size // 2 - 1, 1, -1)
    return np.asarray(texture * mask, np.uint8)
