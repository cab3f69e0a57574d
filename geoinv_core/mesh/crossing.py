"""Where a surface passes through itself: by the native library, or its twin here."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int64, c_void_p
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from geoinv_core.render.job import UnavailableError
from geoinv_core.render.library import library

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Boxes = tuple[Float64, Float64]
"""Their low and high corners, each [N, 3]."""

_FLAT = 1e-9
"""Least angle (its sine, about) between an edge and a triangle that it can be said to pass through."""
_SIZES = (0.0, 0.5, 0.8, 0.95, 1.0)
"""Quantiles of size between which edges and triangles are searched together."""


class Cross(ctypes.Structure):
    """native/cross.h, field by field."""

    _fields_ = (
        ("triangles", c_int64),
        ("edges", c_int64),
        ("sorted", c_int64),
        ("flat", c_double),
        *((name, c_void_p) for name in ("points", "corners", "ends", "owners", "among", "order", "found")),
    )


def crossed_quads(points: npt.NDArray[Any], faces: npt.NDArray[np.int32]) -> Bool:
    """bool [F]: quads [F, 4], split along their first diagonal, that pass through other quads."""
    triangles = np.concatenate([faces[:, :3], faces[:, [0, 2, 3]]])
    crossed = crossed_triangles(points, triangles)
    return np.asarray(crossed[: len(faces)] | crossed[len(faces) :])


def crossed_triangles(
    points: npt.NDArray[Any], triangles: npt.NDArray[Any], among: npt.NDArray[Any] | None = None
) -> Bool:
    """bool [T]: triangles [T, 3] that cross others, see `Crossings`."""
    return Crossings(triangles)(points, among)


class Crossings:
    """Finds where surfaces of one topology, triangles [T, 3], pass through themselves."""

    def __init__(self, triangles: npt.NDArray[Any]) -> None:
        self.triangles = np.ascontiguousarray(triangles, np.int64)
        self.ends, self.owners = _edges(self.triangles)
        self._order: Int64 | None = None
        """Of triangles, so that neighbours in space stand together: as it was at the first search"""

    def __call__(self, points: npt.NDArray[Any], among: npt.NDArray[Any] | None = None) -> Bool:
        """bool [T]: triangles that an edge of another passes through, or whose edge does so to another.

        Edges that end on a vertex of the other triangle do not count, so that neighbours only cross where one
        folds through the other; nor do triangles that lie in one plane.

        Args:
            points: [V, 3]. among: bool [T], the triangles of interest; pairs without any of these are left
            out. None: all.
        Raises: ValueError for points that are no numbers.
        """
        place = np.ascontiguousarray(points, np.float64)
        if not np.isfinite(place).all():
            raise ValueError("A surface with NaN or inf in it cannot be searched for crossing faces.")
        among = np.ones(len(self.triangles), bool) if among is None else np.ascontiguousarray(among, bool)
        if not among.any():
            return np.zeros(len(self.triangles), bool)
        try:
            native = library(torch.float64)
        except UnavailableError:
            return self.twin(place, among)  # the renderer says why
        found, order = np.zeros(len(self.triangles), bool), self._order
        job = Cross(len(self.triangles), len(self.ends), order is not None, _FLAT)
        order = np.empty(len(self.triangles), np.int64) if order is None else order
        own = {"corners": self.triangles, "ends": self.ends, "owners": self.owners, "order": order}
        for name, array in (own | {"points": place, "among": among, "found": found}).items():
            setattr(job, name, array.ctypes.data)
        native.cross(job)
        self._order = order
        return found

    def twin(self, place: Float64, among: Bool) -> Bool:
        """The same in NumPy and SciPy, for points [V, 3] and some triangles [T]."""
        triangles, ends, owners = self.triangles, self.ends, self.owners
        edges, faces = _boxes(place, ends), _boxes(place, triangles)
        own = among[owners].any(1)
        first = _near_of(edges, np.flatnonzero(own), faces, np.arange(len(triangles)))
        second = _near_of(edges, np.flatnonzero(~own), faces, np.flatnonzero(among))
        edge, triangle = np.concatenate([first, second], 1)
        apart = (ends[edge][:, :, None] != triangles[triangle][:, None]).all((1, 2))
        edge, triangle = edge[apart], triangle[apart]
        hit = _passes(place[ends[edge, 0]], place[ends[edge, 1]], place[triangles[triangle]])
        found = np.zeros(len(triangles), bool)
        found[triangle[hit]] = True
        found[owners[edge[hit]].ravel()] = True
        return found


def _edges(triangles: Int64) -> tuple[Int64, Int64]:
    """Edges by their ends [E, 2], and two triangles of each [E, 2] (one twice at a border)."""
    sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    sides = np.sort(sides, 1)
    owner = np.tile(np.arange(len(triangles)), 3)
    key = sides[:, 0] * (int(sides.max()) + 1) + sides[:, 1]
    _, first, number = np.unique(key, return_index=True, return_inverse=True)
    last = np.empty(len(first), np.int64)
    last[number] = np.arange(len(key))
    return sides[first], np.stack([owner[first], owner[last]], 1)


def _boxes(place: Float64, corners: npt.NDArray[Any]) -> Boxes:
    """Of edges or triangles by their corners [N, K]; one by one, since short axes are slow."""
    each = [place[column] for column in corners.T]
    return reduce(np.minimum, each), reduce(np.maximum, each)


def _all(each: Bool) -> Bool:
    return np.asarray(each[:, 0] & each[:, 1] & each[:, 2])


def _some(boxes: Boxes, index: Int64) -> Boxes:
    return boxes[0][index], boxes[1][index]


def _near_of(one: Boxes, mine: Int64, other: Boxes, yours: Int64) -> Int64:
    """`_near` among some of the boxes, by their own numbers: [2, N]."""
    first, second = _near(_some(one, mine), _some(other, yours))
    return np.stack([mine[first], yours[second]])


def _near(one: Boxes, other: Boxes) -> tuple[Int64, Int64]:
    """Pairs (index into one, index into other) of boxes (low [N, 3], high [N, 3]) that overlap."""
    from scipy.spatial import cKDTree

    def sorted_by_size(boxes: Boxes) -> list[tuple[Int64, Any, float]]:
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
            keep = _all((one[0][a] <= other[1][b]) & (other[0][b] <= one[1][a]))
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
