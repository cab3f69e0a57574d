"""Strands on hair that the photo does not show, with the contrast of those that it does.

The planes of a field are too coarse for strands, so hair is smooth wherever it is only guessed, and a head
turned from its photo seems to wear a cap. Strands run from the crown along the head: noise that is fine
across them and long along them, in several widths, as locks are made of strands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.raster import Coverage
from geoinv_core.mesh.topology import unit
from geoinv_core.mesh.visibility import smooth_step

Float32 = npt.NDArray[np.float32]

_DARK = 0.06
"""Added to colours before their logarithm is taken, so that the noise of dark pixels does not count."""
_SURE = 0.8
"""Share of hair, and of the photo, from which on a texel tells what strands look like."""
_HAIR = (0.5, 0.9)
"""Share of hair over which strands begin."""
_SHARE = 0.7
"""Of the contrast that is seen: its light and shade go down in part to what lies on top of what."""
_FEWEST = 2000
"""Such texels, of a texture of 1024, below which nothing is known of the strands."""
_COARSE = 1 / 64
"""Of the texture's side: what varies slower is no strand."""
_MOST = 0.35
"""Standard deviation of the colours' logarithm that hair can have."""
_BACK = math.radians(20)
_AXIS = np.array([0.0, math.cos(_BACK), -math.sin(_BACK)], np.float32)
"""Strands begin behind the top."""
_STEP = 0.0005
"""World units over which a slope is taken at least."""
_HEIGHT = 0.0006
"""World units that strands rise above each other, standard deviation (.25 mm)."""
_WIDTHS = ((0.02, 4, 0.4), (0.008, 6, 0.7), (0.004, 8, 1.0), (0.002, 10, 1.0))
"""World units across a lock or strand at the usual distance from the crown's axis (8 to .8 mm), how often it
changes along a radian about the head's middle, and how much it counts."""
_RADIUS = 0.2
"""That distance, world units."""
_FADE = (0.8 * _RADIUS, 2 * _RADIUS)
"""Texels across a strand, times that, over which it appears."""
_WAVE = (9, 3, 0.03)
"""How often strands wave around the axis and along a radian, and how far, radians."""
_SEED = 20267


@dataclass(frozen=True)
class Hair:
    """share: float32 [V] or [N], how far each vertex of a mesh, or texel, is hair, 0..1. curly: its strands
    run nowhere in particular."""

    share: Float32
    curly: bool = False

    def at(self, texels: Coverage, faces: npt.NDArray[np.int32]) -> Hair:
        """The same at texels of the mesh."""
        return Hair(texels.interpolate(self.share[:, None], faces)[:, 0], self.curly)


def stranded(texels: Coverage, points: Float32, colour: Float32, hair: Hair, photo: Float32) -> Float32:
    """Colours with strands, float32 [N, 3]; as they were where the photo shows too little hair.

    Args:
        texels: N of them; points: their world positions [N, 3]; colour: encoded 0..1 [N, 3].
        hair: at the texels; photo: [N] how far each is shown by the photo, 0..1.
    """
    depth = _SHARE * contrast(texels, colour, hair.share, photo)
    share = smooth_step(hair.share, *_HAIR) * (1 - photo) * depth
    here = np.flatnonzero(share > 0)
    if not len(here):
        return colour
    change = share[here] * pattern(*_placed(texels, points, hair, here), hair.curly)
    result = colour.copy()
    result[here] = np.clip((colour[here] + _DARK) * np.exp(change)[:, None] - _DARK, 0, 1)
    return result


def strands_slope(texels: Coverage, points: Float32, hair: Hair) -> Float32:
    """How steeply strands rise there, a vector in space float32 [N, 3]. Arguments as for `stranded`."""
    share = smooth_step(hair.share, *_HAIR)
    here = np.flatnonzero(share > 0)
    slope = np.zeros_like(points)
    if len(here):
        at, texel = _placed(texels, points, hair, here)
        across, step = unit(np.cross(_AXIS, at)), np.maximum(texel, _STEP)
        near, far = (pattern(at + side * step[:, None] * across, texel, hair.curly) for side in (-0.5, 0.5))
        slope[here] = (_HEIGHT * share[here] * (far - near) / step)[:, None] * across
    return slope


def _placed(
    texels: Coverage, points: Float32, hair: Hair, here: npt.NDArray[np.int64]
) -> tuple[Float32, Float32]:
    """Some of the points from the hair's middle [M, 3], and how wide a texel is there [M], world units."""
    middle = np.average(points, 0, hair.share).astype(np.float32)
    place = np.full(texels.size**2, -1, np.int64)
    place[texels.pixel] = np.arange(len(points))
    width = np.zeros(len(here), np.float32)
    for step in (1, texels.size):
        beside = place[(texels.pixel[here] + step) % texels.size**2]
        apart = np.linalg.norm(points[beside] - points[here], axis=1)
        width = np.maximum(width, np.where(beside < 0, 0, apart))
    return points[here] - middle, width


def contrast(texels: Coverage, colour: Float32, hair: Float32, photo: Float32) -> float:
    """Standard deviation of the logarithm of the photo's hair about its surroundings; 0 where it shows too
    little hair. hair: its share [N]; else as for `stranded`."""
    known = (np.minimum(hair, photo) > _SURE).astype(np.float32)
    if known.sum() < _FEWEST * (texels.size / 1024) ** 2:
        return 0.0
    light = np.log(colour.mean(1) + _DARK) * known

    def smooth(values: Float32) -> Float32:
        picture = np.zeros(texels.size**2, np.float32)
        picture[texels.pixel] = values
        square = picture.reshape(texels.size, texels.size)
        blurred = cv2.GaussianBlur(square, (0, 0), texels.size * _COARSE)
        return np.asarray(blurred, np.float32).ravel()[texels.pixel]

    apart = (light - smooth(light) / np.maximum(smooth(known), 1e-6))[known > 0]
    low, high = np.quantile(apart, (0.16, 0.84))  # one standard deviation, whatever single pixels do
    return min(float(high - low) / 2, _MOST)


def pattern(points: Float32, texel: Float32, curly: bool = False) -> Float32:
    """Strands at points [N, 3], world units from the hair's middle: float32 [N], mean 0 and deviation 1.

    texel: [N] how wide they are, world units; strands that are finer fade out.
    curly: they are as long as they are wide.
    """
    random = np.random.default_rng(_SEED)
    ahead = np.array([0.0, math.sin(_BACK), math.cos(_BACK)], np.float32)
    out = unit(points)
    # the seam lies in front, where the photo looks
    around = np.arctan2(-out[:, 0], -(out @ ahead)) + math.pi
    along = np.arccos(np.clip(out @ _AXIS, -1, 1))
    radius = np.linalg.norm(points, axis=1) * np.sin(along)
    turns, waves, far = _WAVE
    around = around + far * _noise(random, around, along, turns, waves)
    total, power = np.zeros(len(points)), np.zeros(len(points))
    for width, rows, weight in _WIDTHS:
        cells = round(2 * math.pi * _RADIUS / width)
        rows = round(_RADIUS / width) if curly else rows
        fine = weight * smooth_step(width * radius / np.maximum(texel, 1e-6), *_FADE)
        total += fine * _noise(random, around, along, cells, rows)
        power += fine**2
    return np.asarray(total / np.sqrt(np.maximum(power, 0.1)), np.float32)


def _noise(
    random: np.random.Generator, around: npt.NDArray[Any], along: npt.NDArray[Any], cells: int, rows: int
) -> npt.NDArray[np.float64]:
    """Smooth noise of deviation 1 [N]: `cells` around the full turn, `rows` along a radian."""
    height = math.ceil(rows * math.pi) + 1
    lattice = random.standard_normal((height, cells + 1))
    lattice[:, -1] = lattice[:, 0]
    x, y = np.mod(around / (2 * math.pi), 1) * cells, along * rows
    column, row = np.minimum(x.astype(np.int64), cells - 1), np.minimum(y.astype(np.int64), height - 2)
    u, v = (t * t * (3 - 2 * t) for t in (x - column, y - row))
    corners = [(0, 0, (1 - u) * (1 - v)), (0, 1, u * (1 - v)), (1, 0, (1 - u) * v), (1, 1, u * v)]
    value = sum(share * lattice[row + i, column + j] for i, j, share in corners)
    return np.asarray(value / np.sqrt(sum(share**2 for _, _, share in corners)), np.float64)
