"""Eyeballs and the pockets behind the lids, placed from the rims of the lids alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.cage import TAGS
from geoinv_core.mesh.subdivide import edges

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]

_RADIUS = 0.54
"""The eyeball's radius in widths of the eye's opening."""
_FLAT = 0.72
"""The eyeball is wider than high by the inverse of this, so that its pockets at the corners stay shallow."""
_GAP = 0.0010
"""World units between the lids' rims and the eyeball."""
_SPREAD = 1.22
"""How far the modelled part of the eyeball goes on behind the lids, in sizes of the opening."""


def place_eyeballs(points: Float64, faces: Int32, tags: Bool) -> Float64:
    """Points [V, 3] with both eyeballs and lid pockets laid anew behind the lids' rims."""
    points = points.copy()
    for side in (1.0, -1.0):
        own = tags[:, TAGS.index("pocket")] | tags[:, TAGS.index("eyeball")]
        own &= side * points[:, 0] > 0
        _place(points, faces, tags, own, side)
    return points


def _place(points: Float64, faces: Int32, tags: Bool, own: Bool, side: float) -> None:
    eyeball = own & tags[:, TAGS.index("eyeball")]
    rim = own & tags[:, TAGS.index("rim")]
    e = edges(faces).ends
    e = e[own[e].all(1)]
    edge_of_ball = eyeball & np.isin(np.arange(len(points)), e[(eyeball[e].sum(1) == 1)].ravel())
    # how many edges from the rim each pocket vertex lies, and which rim vertex it belongs to
    level = np.where(rim, 0, 99)
    source = np.where(rim, np.arange(len(points)), -1)
    for step in range(1, 9):
        for a, b in ((0, 1), (1, 0)):
            new = (level[e[:, a]] == 99) & (level[e[:, b]] == step - 1) & (~eyeball[e[:, b]])
            source[e[new, a]], level[e[new, a]] = source[e[new, b]], step
    lid = tags[:, TAGS.index("lid")] & (side * points[:, 0] > 0)
    centre, radius = eyeball_of(points[rim], points[lid])
    squeeze = np.array([_FLAT, 1.0, 1.0])
    middle = points[rim].mean(0)
    last = int(level[edge_of_ball].max())
    for v in np.flatnonzero(own & ~rim & (level < 99)):
        t = level[v] / last
        start = points[source[v]]
        outward = start - middle
        outward[2] = 0.0
        goal = (start + (_SPREAD - 1) * t * outward - centre) * squeeze
        reach = np.linalg.norm((start - centre) * squeeze)
        goal *= (radius + (reach - radius) * (1 - t) ** 3) / np.linalg.norm(goal)
        points[v] = centre + goal / squeeze
    inner = np.flatnonzero(eyeball & (level == 99))
    ball = e[eyeball[e].all(1)]
    degree = np.bincount(ball.ravel(), minlength=len(points))[:, None].clip(1)
    points[inner] = points[edge_of_ball].mean(0)
    for _ in range(600):
        total = np.zeros_like(points)
        np.add.at(total, ball[:, 0], points[ball[:, 1]])
        np.add.at(total, ball[:, 1], points[ball[:, 0]])
        points[inner] = (total / degree)[inner]
    ray = (points[inner] - centre) * squeeze
    points[inner] = centre + ray / np.linalg.norm(ray, axis=1, keepdims=True) * radius / squeeze


def eyeball_of(rim: Float64, lids: Float64) -> tuple[Float64, float]:
    """Centre [3] and radius of the ball that lies just behind all points of the lids [N, 3].

    Its size and place across come from their rim [M, 3].
    """
    radius = _RADIUS * float(np.ptp(rim[:, 0]))
    middle = 0.5 * (rim.max(0) + rim.min(0))
    off = (((lids - middle) * (_FLAT, 1.0, 1.0))[:, :2] ** 2).sum(1)
    depth = (lids[:, 2] - np.sqrt(np.maximum((radius + _GAP) ** 2 - off, 0.0))).min()
    return np.array([middle[0], middle[1], depth]), radius
