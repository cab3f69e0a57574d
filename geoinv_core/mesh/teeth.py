"""Teeth, gums and tongue of any head: closed shells of quads, laid by rule, for no photo shows them whole.

Millimetres, x to the subject's left, y up, z forward; the origin lies where the middle incisors meet, at
their front. Sizes of crowns and the arch's shape are those of anatomy books, rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Bool = npt.NDArray[np.bool_]

UPPER = ((8.6, 10.5, 7.0), (6.6, 9.0, 6.0), (7.6, 10.0, 7.5), (7.0, 8.5, 9.0), (6.8, 8.0, 9.0))
LOWER = ((5.3, 9.0, 5.8), (5.9, 9.3, 6.2), (6.8, 10.5, 7.2), (7.0, 8.7, 7.8), (7.2, 8.0, 8.2))
"""Width, height and depth of the crowns of one side, from the middle to the second premolar: what shows."""
_ARCH = 0.029
"""How far an arch has gone back where it is so wide: z = -_ARCH x^2."""
_OVERLAP = 1.8
"""How far upper incisors reach below the line where the rows meet."""
_BEFORE = 4.0
"""How far they stand before the lower ones, which a lip drawn up by a wide smile is pressed upon."""
_LEAN = 0.3
"""How far roots lie behind edges, of a lower tooth's height."""
_BLOCK, _TONGUE_BLOCK = 3, 6
"""Quads along an edge of a tooth, and of the tongue."""
_ROUND = 5.0
"""Exponent of the superellipsoid that a tooth is; 2: an egg, more: a box."""
_GUM = (5.0, 0.7)
"""Half the height of a gum, and how far it stands out before its teeth."""
_RING, _ALONG = 8, 24
"""Quads round a gum (its ends are laid for 8), and along it."""
_TONGUE = (16.0, 5.5, 21.0)
"""Half the tongue's width, height and length."""
PARTS = ("teeth", "gums", "tongue")
_PLACES = {"upper": (0.006, 0.137, 0.192, 0.258), "lower": (0.802, 0.137, 0.988, 0.258)}
"""Where the texture is free for each jaw: u and v of the lower left and the upper right corner."""
_BANDS = {"teeth": (0.42, 1.0), "gums": (0.22, 0.4), "tongue": (0.0, 0.2)}
"""Of these, from bottom to top."""


@dataclass(frozen=True, eq=False)
class Shells:
    """vertices: float64 [V, 3] mm. faces: int32 [F, 4]. uv: float32 [F, 4, 2]. part: int [V], which of PARTS.
    lower: bool [V], whether it goes with the lower jaw. tip: [V], 0 at the tongue's root to 1 at its tip, 0
    elsewhere."""

    vertices: Float64
    faces: Int32
    uv: Float32
    part: npt.NDArray[np.int64]
    lower: Bool
    tip: Float64


@cache
def shells() -> Shells:
    """All of them."""
    made = []
    for lower, crowns in ((False, UPPER), (True, LOWER)):
        jaw = "lower" if lower else "upper"
        row = _row(crowns, lower)
        for number, (points, faces, uv) in enumerate(row):
            made.append((points, faces, _within(uv, _cell(_band(jaw, "teeth"), number, len(row))), 0, lower))
        points, faces, uv = _gum(crowns, lower)
        made.append((points, faces, _within(uv, _band(jaw, "gums")), 1, lower))
    points, faces, uv = _tongue()
    made.append((points, faces, _within(uv, _band("lower", "tongue")), 2, True))
    counts = [len(points) for points, *_ in made]
    starts = np.cumsum([0, *counts[:-1]])
    vertices = np.concatenate([m[0] for m in made])
    part = np.repeat([m[3] for m in made], counts)
    forward = vertices[part == 2, 2]
    tip = np.zeros(len(vertices))
    tip[part == 2] = (forward - forward.min()) / np.ptp(forward)
    return Shells(
        vertices,
        np.concatenate([m[1] + start for m, start in zip(made, starts, strict=True)]).astype(np.int32),
        np.concatenate([m[2] for m in made]).astype(np.float32),
        part,
        np.repeat([m[4] for m in made], counts),
        tip,
    )


def patches() -> list[tuple[str, tuple[float, float, float, float]]]:
    """Which part of PARTS a rectangle of the texture (u, v, u, v) is for."""
    return [(part, _band(jaw, part)) for jaw in _PLACES for part in PARTS]


def _band(jaw: str, part: str) -> tuple[float, float, float, float]:
    u0, v0, u1, v1 = _PLACES[jaw]
    low, high = _BANDS[part]
    return u0, v0 + low * (v1 - v0), u1, v0 + high * (v1 - v0)


def _cell(
    place: tuple[float, float, float, float], number: int, count: int
) -> tuple[float, float, float, float]:
    """The place of one of `count` (an even number) in two rows."""
    u0, v0, u1, v1 = place
    row, column = divmod(number, count // 2)
    wide, high = (u1 - u0) / (count // 2), (v1 - v0) / 2
    return u0 + column * wide, v0 + row * high, u0 + (column + 1) * wide, v0 + (row + 1) * high


def _within(uv: Float64, place: tuple[float, float, float, float]) -> Float64:
    """UVs 0..1 laid into the inner nine tenths of a place."""
    low, high = np.array(place[:2]), np.array(place[2:])
    result: Float64 = low + (0.05 + 0.9 * uv) * (high - low)
    return result


def _block(n: int) -> tuple[Float64, Int32, Float64]:
    """The surface of the cube -1..1: vertices, quads of n x n a side, and UVs [F, 4, 2], side beside side."""
    steps = np.linspace(-1, 1, n + 1)
    points: list[Float64] = []
    uv: list[Float64] = []
    for side in range(6):
        axis, sign = side // 2, 1.0 if side % 2 else -1.0
        b, a = np.meshgrid(steps, steps)  # a along the rows
        grid = np.empty((n + 1, n + 1, 3))
        grid[..., axis] = sign
        grid[..., (axis + 1) % 3], grid[..., (axis + 2) % 3] = a, b * sign
        at = np.stack([(a + 1) / 2, (b + 1) / 2], -1) * 0.96 + 0.02
        flat = (at + np.array([side % 3, side // 3])) / [3, 2]
        for corners, kept in ((grid, points), (flat, uv)):
            kept.append(
                np.stack([corners[:-1, :-1], corners[1:, :-1], corners[1:, 1:], corners[:-1, 1:]], 2).reshape(
                    -1, 4, corners.shape[-1]
                )
            )
    every = np.concatenate(points)
    vertices, index = np.unique(np.round(every.reshape(-1, 3), 9), axis=0, return_inverse=True)
    return vertices, index.reshape(-1, 4).astype(np.int32), np.concatenate(uv)


def _rounded(points: Float64, exponent: float) -> Float64:
    """Points of the cube on the superellipsoid of this exponent."""
    reach = (np.abs(points) ** exponent).sum(1) ** (1 / exponent)
    result: Float64 = points / reach[:, None]
    return result


def _along(length: npt.ArrayLike) -> tuple[Float64, Float64]:
    """Places [..., 2] (x, z) at these lengths along the arch from its middle, and its directions there."""
    x = np.linspace(0, 60, 2401)
    slope = -2 * _ARCH * x
    middle = np.hypot(1, (slope[1:] + slope[:-1]) / 2) * np.diff(x)
    far = np.concatenate([[0.0], np.cumsum(middle)])
    wanted = np.asarray(length, np.float64)
    at = np.sign(wanted) * np.interp(np.abs(wanted), far, x)
    direction = np.stack([np.ones_like(at), -2 * _ARCH * at], -1)
    return np.stack([at, -_ARCH * at**2], -1), direction / np.linalg.norm(direction, axis=-1, keepdims=True)


def _row(crowns: tuple[tuple[float, float, float], ...], lower: bool) -> list[tuple[Float64, Int32, Float64]]:
    """The teeth of one jaw, from the subject's right to the left."""
    cube, faces, uv = _block(_BLOCK)
    down, back = _offset(lower)
    row, gone = [], 0.0
    for width, height, depth in crowns:
        (x, z), (dx, dz) = _along(gone + width / 2)
        gone += width
        p = _rounded(cube, _ROUND)
        edge = 0.5 - 0.5 * p[:, 1]  # 0 at the gum, 1 at the cutting edge
        thin = 1 - (0.55 if depth < 8.5 else 0.15) * edge
        across = width / 2 * 0.985 * (0.82 + 0.18 * edge) * p[:, 0]
        deep = depth / 2 * (thin * p[:, 2] + (1 - thin)) - depth / 2  # fronts stand in one line
        place = np.stack(
            [x + dx * across - dz * deep, height / 2 * (p[:, 1] + 1), z + dz * across + dx * deep], 1
        )
        if lower:
            place[:, 1] *= -1
            place[:, 2] += _LEAN * place[:, 1]
        place += [0.0, down, back]
        turned = faces[:, ::-1] if lower else faces  # a mirrored tooth is inside out
        row.append((place, turned, uv[:, ::-1] if lower else uv))
    opposite = [(p * [-1.0, 1, 1], f[:, ::-1], u[:, ::-1]) for p, f, u in row[::-1]]
    return [*opposite, *row]


def _offset(lower: bool) -> tuple[float, float]:
    """Height of a row's cutting edges, and how far its front lies behind that of the upper one."""
    return (0.3, -_BEFORE) if lower else (-_OVERLAP, 0.0)


def _gum(crowns: tuple[tuple[float, float, float], ...], lower: bool) -> tuple[Float64, Int32, Float64]:
    """A tube along the necks of a row."""
    down, back = _offset(lower)
    half, out = _GUM
    reach = sum(width for width, _, _ in crowns) + 1.0
    lengths = np.linspace(-reach, reach, _ALONG + 1)
    places, directions = _along(lengths)
    ends = np.cumsum([width for width, _, _ in crowns])
    which = np.searchsorted(ends, np.abs(lengths)).clip(0, len(crowns) - 1)
    height, depth = (np.array([crown[k] for crown in crowns])[which] for k in (1, 2))
    # heights change from tooth to tooth, a gum only gently
    height, depth = (np.convolve(np.pad(v, 2, "edge"), np.full(5, 0.2), "valid") for v in (height, depth))
    angle = np.linspace(0, 2 * np.pi, _RING, endpoint=False) + np.pi / _RING
    up = half * np.sin(angle)
    forward = (depth[:, None] / 2 + out) * np.cos(angle) - depth[:, None] / 2
    rings = np.stack(
        [
            places[:, None, 0] - directions[:, None, 1] * forward,
            np.broadcast_to(height[:, None] + 0.65 * half + up, forward.shape),
            places[:, None, 1] + directions[:, None, 0] * forward,
        ],
        -1,
    )
    rings[..., 1] = down + (rings[..., 1] if not lower else -rings[..., 1])
    if lower:
        rings[..., 2] += _LEAN * (rings[..., 1] - down)
    rings[..., 2] += back
    faces, uv = _tube(_ALONG)
    return rings.reshape(-1, 3), (faces if lower else faces[:, ::-1]), (uv if lower else uv[:, ::-1])


def _tube(along: int) -> tuple[Int32, Float64]:
    """Quads and UVs of a closed tube of rings of 8 vertices, whose ends are three quads each."""
    around = _RING
    i, k = (v.ravel() for v in np.meshgrid(np.arange(along), np.arange(around), indexing="ij"))
    after = (k + 1) % around
    wall = np.stack([i * around + k, i * around + after, (i + 1) * around + after, (i + 1) * around + k], 1)
    u, v = i / along, k / around
    flat = np.stack([u, v, u, v + 1 / around, u + 1 / along, v + 1 / around, u + 1 / along, v], 1)
    cap = np.array([[0, 7, 2, 1], [7, 6, 3, 2], [6, 5, 4, 3]])
    ring = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], 1) * 0.5 + 0.5
    end = ring[cap]
    faces = np.concatenate([wall, cap, cap[:, ::-1] + along * around])
    body = flat.reshape(-1, 4, 2) * [0.84, 1.0]
    caps = [end * [0.06, 0.4] + [0.9, low] for low in (0.05, 0.55)]
    return faces.astype(np.int32), np.concatenate([body, caps[0], caps[1][:, ::-1]])


def _tongue() -> tuple[Float64, Int32, Float64]:
    """Flat, broad, with a furrow, its root behind."""
    cube, faces, uv = _block(_TONGUE_BLOCK)
    p = _rounded(cube, 2.6)
    wide, high, long = _TONGUE
    narrow = 1 - 0.35 * np.clip(p[:, 2], 0, 1) ** 2
    y = high * p[:, 1] - 1.6 * np.exp(-((p[:, 0] / 0.25) ** 2)) * np.clip(p[:, 1], 0, 1)
    y += 3.0 * (1 - p[:, 2] ** 2) - 2.0
    place = np.stack([wide * narrow * p[:, 0], y - high - 0.5, long * p[:, 2] - long - 11.0], 1)
    return place, faces, uv
