"""The hand-laid control cage of the head template: under a thousand quads with loops round eyes, mouth, ears.

One half (the subject's left, x >= 0) is laid as a grid of rows (crown to neck) and columns (middle of the
face to middle of the back of the head). Rectangles are left out of the grid for the eye, the ear and the
mouth, and filled with concentric rings, so that poles stand only at the corners of these rectangles. The
other half is its mirror image. Positions are rays towards the mean head's surface, in world units (x to the
subject's left, y up, the face along +z); vertices without a ray settle between their neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Ray = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Start outside the head, and direction inwards."""

AXIS_Z = -0.04
"""Depth of the vertical axis that rays to the sides and the back aim at."""
COLUMNS = 13
ROWS = 21

TAGS = (
    "middle", "rim", "lid", "pocket", "eyeball", "lips", "vermilion", "belly", "lip_line", "bag",
    "ear", "helix", "concha", "neck_ring", "neck", "cranium", "face",
)  # fmt: skip
"""What vertices belong to. A tag covers a refined vertex where it covers all vertices that it comes from."""
CURVES = ("rim", "vermilion", "belly", "lip_line", "helix", "neck_ring")
"""Tags that are lines; they keep their points when the cage is refined."""


@dataclass(frozen=True)
class Cage:
    """The whole cage, right half after the left one.

    starts, directions: float64 [N, 3] a ray for each vertex, NaN where it has none.
    faces: int32 [F, 4], counter-clockwise from outside. tags: bool [N, len(TAGS)].
    mirror: int32 [N] each vertex's counterpart on the other side.
    """

    starts: Float64
    directions: Float64
    faces: Int32
    tags: npt.NDArray[np.bool_]
    mirror: Int32


# Rows: height in the middle of the face; lateral positions (x) of columns 1 to 6 seen from the front, None
# inside the eye's rectangle or the mouth's; height at the side and at the back where it differs.
_EYE_ROWS, _EYE_COLUMNS = (4, 8), (2, 6)
_MOUTH_ROWS, _MOUTH_COLUMN = (12, 16), 3
_EAR_ROWS, _EAR_COLUMNS = (5, 12), (8, 10)
_N = None
_FRONT: dict[int, tuple[float, tuple[float | None, ...]]] = {
    3: (0.105, (0.019, 0.038, 0.059, 0.081, 0.103, 0.122)),
    4: (0.060, (0.016, 0.032, 0.054, 0.078, 0.101, 0.122)),
    5: (0.037, (0.013, 0.027, _N, _N, _N, 0.127)),
    6: (0.014, (0.0115, 0.0235, _N, _N, _N, 0.129)),
    7: (-0.008, (0.012, 0.025, _N, _N, _N, 0.128)),
    8: (-0.031, (0.0135, 0.030, 0.050, 0.073, 0.098, 0.122)),
    9: (-0.054, (0.017, 0.037, 0.056, 0.078, 0.101, 0.123)),
    10: (-0.076, (0.0185, 0.0445, 0.062, 0.083, 0.104, 0.124)),
    11: (-0.094, (0.018, 0.042, 0.068, 0.087, 0.106, 0.124)),
    12: (-0.108, (0.022, 0.046, 0.073, 0.091, 0.108, 0.123)),
    13: (-0.126, (_N, _N, 0.082, 0.097, 0.110, 0.121)),
    14: (-0.148, (_N, _N, 0.086, 0.099, 0.109, 0.118)),
    15: (-0.172, (_N, _N, 0.082, 0.095, 0.104, 0.112)),
    16: (-0.196, (0.026, 0.050, 0.070, 0.085, 0.096, 0.105)),
    17: (-0.226, (0.022, 0.042, 0.060, 0.075, 0.087, 0.097)),
}
_FRONT_DEGREES = (0.0, 9.0, 18.0, 27.0, 37.0, 47.0, 57.0)
_SIDE_DEGREES = (57.0, 75.0, 89.0, 103.0, 125.0, 151.0, 180.0)  # columns 7 to 13
_SIDE_HEIGHTS = {
    3: 0.110, 4: 0.070, 5: 0.040, 6: 0.019, 7: -0.001, 8: -0.021, 9: -0.041, 10: -0.061, 11: -0.081,
    12: -0.103, 13: -0.124, 14: -0.145, 15: -0.166, 16: -0.188, 17: -0.211, 18: -0.235,
    19: -0.260, 20: -0.285, 21: -0.310,
}  # fmt: skip
_NECK_FRONT = {18: -0.247, 19: -0.266, 20: -0.287, 21: -0.310}
_CROWN_ELEVATION = {0: 57.0, 1: 39.0, 2: 22.0}

_EYE_RIM = (  # 16 points counter-clockwise from the inner upper corner of the rectangle: x, y
    (0.0515, 0.0195), (0.0450, 0.0150), (0.0398, 0.0103), (0.0452, 0.0062), (0.0520, 0.0042),
    (0.0602, 0.0030), (0.0690, 0.0026), (0.0778, 0.0032), (0.0858, 0.0047), (0.0925, 0.0074),
    (0.0982, 0.0115), (0.0932, 0.0165), (0.0862, 0.0203), (0.0782, 0.0222), (0.0690, 0.0228),
    (0.0598, 0.0221),
)  # fmt: skip
# 11 points from the middle of the lower lip round the corner to the middle of the upper lip: x, y
_VERMILION = (
    (0.0, -0.1722), (0.0125, -0.1716), (0.0262, -0.1682), (0.0395, -0.1622), (0.0520, -0.1555),
    (0.0622, -0.1486), (0.0532, -0.1440), (0.0410, -0.1390), (0.0270, -0.1338), (0.0125, -0.1302), (0.0,
-0.1326), )  # fmt: skip
_LIP_LINE = (
    (0.0, -0.1484), (0.0115, -0.1484), (0.0235, -0.1484), (0.0355, -0.1485), (0.0475, -0.1485),
    (0.0565, -0.1481), (0.0475, -0.1477), (0.0355, -0.1476), (0.0235, -0.1474), (0.0115, -0.1472), (0.0,
-0.1472), )  # fmt: skip
_EAR_CENTRE, _EAR_HALF = (-0.036, -0.053), (0.063, 0.037)  # y, z; half height, half width


@dataclass
class _Half:
    """The left half while it is being laid; key: any hashable name of a vertex."""

    index: dict[object, int] = field(default_factory=dict)
    rays: list[Ray | None] = field(default_factory=list)
    tags: list[set[str]] = field(default_factory=list)
    quads: list[tuple[int, int, int, int]] = field(default_factory=list)

    def vertex(self, key: object, ray: Ray | None = None, *tags: str) -> int:
        if key not in self.index:
            self.index[key] = len(self.rays)
            self.rays.append(ray)
            self.tags.append(set())
        number = self.index[key]
        self.tags[number] |= set(tags)
        return number

    def strip(self, outer: Sequence[int], inner: Sequence[int], closed: bool) -> None:
        """Quads between two chains of equal length, the inner one to the left of the outer one's way."""
        count = len(outer)
        for a in range(count if closed else count - 1):
            b = (a + 1) % count
            self.quads.append((outer[a], outer[b], inner[b], inner[a]))

    def grid(self, table: Sequence[Sequence[int]]) -> None:
        """Quads of a table of rows, downwards and to the left side of the face."""
        for upper, lower in pairwise(table):
            for a in range(len(upper) - 1):
                self.quads.append((upper[a], lower[a], lower[a + 1], upper[a + 1]))


def cage() -> Cage:
    """The cage with its rays."""
    half = _Half()
    _lay_grid(half)
    _lay_crown(half)
    _lay_eye(half)
    _lay_mouth(half)
    _lay_ear(half)
    return _mirrored(half)


def front(x: float, y: float) -> Ray:
    """A ray from before the face straight backwards."""
    return (x, y, 0.5), (0.0, 0.0, -1.0)


def around(degrees: float, y: float) -> Ray:
    """A level ray towards the axis; 0 degrees from the front, 90 from the subject's left."""
    s, c = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    return (0.5 * s, y, AXIS_Z + 0.5 * c), (-s, 0.0, -c)


def above(degrees: float, elevation: float) -> Ray:
    """A ray towards the middle of the skull."""
    s, c = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    up, level = np.sin(np.radians(elevation)), np.cos(np.radians(elevation))
    d = np.array([s * level, up, c * level])
    start = np.array([0.0, 0.08, AXIS_Z]) + 0.5 * d
    return tuple(start.tolist()), tuple((-d).tolist())


def _lay_grid(half: _Half) -> None:
    for row in range(ROWS + 1):
        for column in range(COLUMNS + 1):
            if not _in_hole(row, column):
                half.vertex((row, column), _grid_ray(row, column), *_grid_tags(row, column))
    for row in range(ROWS):
        for column in range(COLUMNS):
            corners = [(row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1)]
            if not _cell_in_hole(row, column):
                a, b, c, d = (half.index[corner] for corner in corners)
                half.quads.append((a, b, c, d))


def _inside(value: int, span: tuple[int, int]) -> bool:
    return span[0] < value < span[1]


def _in_hole(row: int, column: int) -> bool:
    eye = _inside(row, _EYE_ROWS) and _inside(column, _EYE_COLUMNS)
    mouth = _inside(row, _MOUTH_ROWS) and column < _MOUTH_COLUMN
    return eye or mouth or (_inside(row, _EAR_ROWS) and _inside(column, _EAR_COLUMNS))


def _cell_in_hole(row: int, column: int) -> bool:
    eye = _EYE_ROWS[0] <= row < _EYE_ROWS[1] and _EYE_COLUMNS[0] <= column < _EYE_COLUMNS[1]
    mouth = _MOUTH_ROWS[0] <= row < _MOUTH_ROWS[1] and column < _MOUTH_COLUMN
    ear = _EAR_ROWS[0] <= row < _EAR_ROWS[1] and _EAR_COLUMNS[0] <= column < _EAR_COLUMNS[1]
    return eye or mouth or ear


def _grid_ray(row: int, column: int) -> Ray | None:
    if row in _CROWN_ELEVATION:
        degrees = _FRONT_DEGREES[column] if column < 7 else _SIDE_DEGREES[column - 7]
        return above(degrees, _CROWN_ELEVATION[row])
    if column <= 6 and row in _FRONT:
        y, across = _FRONT[row]
        x = 0.0 if column == 0 else across[column - 1]
        return None if x is None else front(x, y + (_SIDE_HEIGHTS[row] - y) * max(0, column - 4) / 4)
    if column <= 6:
        y, side = _NECK_FRONT[row], _SIDE_HEIGHTS[row]
        return around(_FRONT_DEGREES[column], y + (side - y) * column / 7)
    return around(_SIDE_DEGREES[column - 7] + (6.0 if column == 7 else 0.0), _SIDE_HEIGHTS[row])


def _grid_tags(row: int, column: int) -> list[str]:
    tags = ["middle"] if column in (0, COLUMNS) else []
    if row == ROWS:
        tags.append("neck_ring")
    if row >= 17 and not (row == 17 and column < 7):
        tags.append("neck")
    if (column >= 7 and row <= 17) or row <= 3:
        tags.append("cranium")
    if 2 <= row <= 18 and column <= 8:
        tags.append("face")
    return tags


def _lay_crown(half: _Half) -> None:
    """The top: a grid whose border is row 0, three quads from the middle to the side, seven deep."""
    wide, deep = 3, COLUMNS - 6
    border = [(u, 0) for u in range(wide + 1)]
    border += [(wide, v) for v in range(1, deep + 1)]
    border += [(u, deep) for u in range(wide - 1, -1, -1)]
    at = {place: half.index[(0, column)] for column, place in enumerate(border)}
    for v in range(deep + 1):
        for u in range(wide + 1):
            if (u, v) not in at:
                at[u, v] = half.vertex(("crown", u, v), None, *(["middle"] if u == 0 else []), "cranium")
    half.grid([[at[u, v] for u in range(wide + 1)] for v in range(deep, -1, -1)])


def _rectangle(rows: tuple[int, int], columns: tuple[int, int]) -> list[tuple[int, int]]:
    """The border of a rectangle of the grid, counter-clockwise seen from outside, from its upper inner
    corner."""
    (top, bottom), (inner, outer) = rows, columns
    down = [(row, inner) for row in range(top, bottom)]
    out = [(bottom, column) for column in range(inner, outer)]
    up = [(row, outer) for row in range(bottom, top, -1)]
    return [*down, *out, *up, *((top, column) for column in range(outer, inner, -1))]


def _ring(half: _Half, name: str, rays: Sequence[Ray | None], *tags: str) -> list[int]:
    return [half.vertex((name, j), ray, *tags) for j, ray in enumerate(rays)]


def _fill(half: _Half, ring: Sequence[int], name: str, high: int, wide: int, *tags: str) -> None:
    """Close a ring that is laid as a rectangle's border with a grid of high x wide quads."""
    border = _rectangle((0, high), (0, wide))
    at = dict(zip(border, ring, strict=True))
    for number in ring:
        half.tags[number] |= set(tags)
    for row in range(high + 1):
        for column in range(wide + 1):
            if (row, column) not in at:
                at[row, column] = half.vertex((name, row, column), None, *tags)
    half.grid([[at[row, column] for column in range(wide + 1)] for row in range(high + 1)])


def _lay_eye(half: _Half) -> None:
    """Orbit (the grid), two lid loops, the rim, a pocket behind the lids, and the visible eyeball."""
    orbit = [half.index[key] for key in _rectangle(_EYE_ROWS, _EYE_COLUMNS)]
    count = len(orbit)
    rim_rays = [front(x, y) for x, y in _EYE_RIM]
    outer = _ring(half, "lid1", [None] * count, "face")
    x0, y0 = np.mean(_EYE_RIM, 0)
    around_rim = [front(x0 + 1.15 * (x - x0), y0 + 1.5 * (y - y0)) for x, y in _EYE_RIM]
    inner = _ring(half, "lid2", around_rim, "lid", "face")
    rim = _ring(half, "rim", rim_rays, "rim", "lid", "pocket", "face")
    pocket = _ring(half, "pocket", [None] * count, "pocket")
    for a, b in ((orbit, outer), (outer, inner), (inner, rim), (rim, pocket)):
        half.strip(a, b, closed=True)
    high, wide = (span[1] - span[0] for span in (_EYE_ROWS, _EYE_COLUMNS))
    _fill(half, pocket, "eyeball", high, wide, "eyeball")


def _lay_mouth(half: _Half) -> None:
    """Two loops outside the lips, the red's border, the lips' belly, the line where they meet, and the bag
    behind."""
    (top, bottom), side = _MOUTH_ROWS, _MOUTH_COLUMN
    keys = [(bottom, column) for column in range(side)]
    keys += [(row, side) for row in range(bottom, top, -1)]
    keys += [(top, column) for column in range(side, -1, -1)]
    border = [half.index[key] for key in keys]
    count = len(border)
    belly: list[Ray | None] = []
    for (x0, y0), (x1, y1) in zip(_VERMILION, _LIP_LINE, strict=True):
        belly.append(front(0.5 * (x0 + x1), 0.5 * (y0 + y1)))

    def ring(name: str, rays: Sequence[Ray | None], *tags: str) -> list[int]:
        numbers = _ring(half, name, rays, *tags)
        for end in (0, -1):
            half.tags[numbers[end]].add("middle")
        return numbers

    chains = [
        border,
        ring("lips_outer", [None] * count, "face"),
        ring("vermilion", [front(*p) for p in _VERMILION], "vermilion", "lips", "face"),
        ring("lip_belly", belly, "belly", "lips", "face"),
        ring("lip_line", [front(*p) for p in _LIP_LINE], "lip_line", "lips", "bag", "face"),
        ring("bag1", [None] * count, "bag"),
        ring("bag2", [None] * count, "bag"),
    ]
    for a, b in pairwise(chains):
        half.strip(a, b, closed=False)
    # the back of the bag: rows downwards, columns from the middle to the side
    last, high = chains[-1], bottom - top
    at = {(high, column): last[column] for column in range(side)}
    at |= {(high - step, side): last[side + step] for step in range(high + 1)}
    at |= {(0, side - step): last[side + high + step] for step in range(side + 1)}
    for row in range(1, high):
        for column in range(side):
            at[row, column] = half.vertex(
                ("bag", row, column), None, "bag", *(["middle"] if column == 0 else [])
            )
    half.grid([[at[row, column] for column in range(side + 1)] for row in range(high + 1)])


def _lay_ear(half: _Half) -> None:
    """The root (the grid), the back of the ear, the helix, its inner side, and the concha."""
    keys = _rectangle(_EAR_ROWS, _EAR_COLUMNS)
    root = [half.index[key] for key in keys]
    for number in root:
        half.tags[number].add("ear")
    high, wide = (span[1] - span[0] for span in (_EAR_ROWS, _EAR_COLUMNS))
    rings = {  # share of the outline, how far from the skull in front and behind, tags
        "ear_back": (0.80, 0.007, 0.018, ("ear",)),
        "helix": (0.98, 0.012, 0.036, ("ear", "helix")),
        "ear_front": (0.80, 0.013, 0.034, ("ear",)),
        "concha": (0.52, 0.000, 0.020, ("ear", "concha")),
    }
    before = root
    for name, (share, front_lift, back_lift, tags) in rings.items():
        rays: list[Ray | None] = []
        for number in range(len(keys)):
            turn = 2 * np.pi * (number + 1) / len(keys)  # from the top, forwards
            across, up = -np.sin(turn), np.cos(turn)
            lift = front_lift + (back_lift - front_lift) * (0.5 + 0.5 * across) * (0.75 + 0.25 * up)
            y = _EAR_CENTRE[0] + share * _EAR_HALF[0] * up
            z = _EAR_CENTRE[1] - share * _EAR_HALF[1] * across * (0.88 + 0.12 * up) - 0.006 * up
            rays.append(((0.163 - 0.012 * (0.5 - 0.5 * up) + lift, y, z), (0.0, 0.0, 0.0)))
        ring = _ring(half, name, rays, *tags)
        half.strip(before, ring, closed=True)
        before = ring
    _fill(half, before, "concha", high, wide, "concha", "ear")


def _mirrored(half: _Half) -> Cage:
    count = len(half.rays)
    tags = np.array([[tag in own for tag in TAGS] for own in half.tags])
    middle = tags[:, TAGS.index("middle")]
    other = np.arange(count, dtype=np.int32)
    other[~middle] = count + np.arange((~middle).sum(), dtype=np.int32)
    nothing = ((np.nan,) * 3, (np.nan,) * 3)
    rays = np.array([nothing if ray is None else ray for ray in half.rays])  # [N, 2, 3]
    left = np.array(half.quads, np.int32)
    flip = np.array([-1.0, 1.0, 1.0])
    rays = np.concatenate([rays, rays[~middle] * flip])
    mirror = np.concatenate([other, np.flatnonzero(~middle).astype(np.int32)])
    return Cage(
        rays[:, 0],
        rays[:, 1],
        np.concatenate([left, other[left][:, ::-1]]),
        np.concatenate([tags, tags[~middle]]),
        mirror,
    )
