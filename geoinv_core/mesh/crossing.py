"""Where a surface passes through itself."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

_FLAT = 1e-9
"""Least angle (its sine, about) between an edge and a triangle that it can be said to pass through."""
_SIZES = (0.0, 0.5, 0.8, 0.95, 1.0)
"""Quantiles of size between which edges and triangles are searched together."""


def crossed_quads(points: npt.NDArray[Any], faces: npt.NDArray[np.int32]) -> Bool:
    """bool [F]: quads [F, 4], split along their first diagonal, that pass through other quads."""
    triangles = np.concatenate([faces[:, :3], faces[:, [0, 2, 3]]])
    crossed = crossed_triangles(points, triangles)
    return np.asarray(crossed[: len(faces)] | crossed[len(faces) :])


def crossed_triangles(
    points: npt.NDArray[Any], triangles: npt.NDArray[Any], among: npt.NDArray[Any] | None = None
) -> Bool:
    """bool [T]: triangles [T, 3] that an edge of another passes through, or whose edge does so to another.

    Edges that end on a vertex of the other triangle do not count, so that neighbours only cross where one
    folds through the other; nor do triangles that lie in one plane.

    Args: among: bool [T], the triangles of interest; pairs without any of these are left out. None: all.
    """
    found = np.zeros(len(triangles), bool)
    if among is not None and not among.any():
        return found
    place = np.asarray(points, np.float64)
    ends, owners = _edges(triangles)
    if among is None:
        edge, triangle = _near(_boxes(place[ends]), _boxes(place[triangles]))
    else:
        own = among[owners].any(1)
        first = _near(_boxes(place[ends[own]]), _boxes(place[triangles]))
        second = _near(_boxes(place[ends[~own]]), _boxes(place[triangles[among]]))
        edge = np.concatenate([np.flatnonzero(own)[first[0]], np.flatnonzero(~own)[second[0]]])
        triangle = np.concatenate([first[1], np.flatnonzero(among)[second[1]]])
    apart = (ends[edge][:, :, None] != triangles[triangle][:, None]).all((1, 2))
    edge, triangle = edge[apart], triangle[apart]
    hit = _passes(place[ends[edge, 0]], place[ends[edge, 1]], place[triangles[triangle]])
    found[triangle[hit]] = True
    found[owners[edge[hit]].ravel()] = True
    return found


def _edges(triangles: npt.NDArray[Any]) -> tuple[Int64, Int64]:
    """Edges by their ends [E, 2], and two triangles of each [E, 2] (one twice at a border)."""
    sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    sides = np.sort(sides.astype(np.int64), 1)
    owner = np.tile(np.arange(len(triangles)), 3)
    key = sides[:, 0] * (int(sides.max()) + 1) + sides[:, 1]
    _, first, number = np.unique(key, return_index=True, return_inverse=True)
    last = np.empty(len(first), np.int64)
    last[number] = np.arange(len(key))
    return sides[first], np.stack([owner[first], owner[last]], 1)


def _boxes(corner: Float64) -> tuple[Float64, Float64]:
    return corner.min(1), corner.max(1)


def _near(one: tuple[Float64, Float64], other: tuple[Float64, Float64]) -> tuple[Int64, Int64]:
    """Pairs (index into one, index into other) of boxes (low [N, 3], high [N, 3]) that overlap."""
    from scipy.spatial import cKDTree

    def sorted_by_size(boxes: tuple[Float64, Float64]) -> list[tuple[Int64, Any, float]]:
        middle, half = (boxes[0] + boxes[1]) / 2, np.linalg.norm(boxes[1] - boxes[0], axis=1) / 2
        order = np.argsort(half, kind="stable")
        cuts = [round(share * len(order)) for share in _SIZES]
        parts = [order[a:b] for a, b in pairwise(cuts) if b > a]
        return [(part, cKDTree(middle[part]), float(half[part[-1]])) for part in parts]

    ours, theirs = [], []
    for mine, tree, reach in sorted_by_size(one):
        for yours, forest, far in sorted_by_size(other):
            close = tree.sparse_distance_matrix(forest, reach + far, output_type="coo_matrix")
            a, b = mine[close.row], yours[close.col]
            keep = ((one[0][a] <= other[1][b]) & (other[0][b] <= one[1][a])).all(1)
            ours.append(a[keep])
            theirs.append(b[keep])
    if not ours:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate(ours), np.concatenate(theirs)


def _passes(start: Float64, end: Float64, corner: Float64) -> Bool:
    """Which edges pass through their triangles [N, 3, 3] (Möller and Trumbore 1997)."""
    u, v = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    way, off = end - start, start - corner[:, 0]
    across, turned = np.cross(way, v), np.cross(off, u)
    det = (u * across).sum(1)
    size = np.linalg.norm(way, axis=1) * np.linalg.norm(np.cross(u, v), axis=1)
    safe = np.where(np.abs(det) > _FLAT * size, det, np.inf)
    s, t, along = (off * across).sum(1) / safe, (way * turned).sum(1) / safe, (v * turned).sum(1) / safe
    inside = (s >= 0) & (t >= 0) & (s + t <= 1) & (along >= 0) & (along <= 1)
    return np.asarray(inside & np.isfinite(safe))
