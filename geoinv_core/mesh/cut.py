"""Cutting a triangle mesh with a horizontal plane, leaving one planar open ring."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.topology import boundary_loops, compact

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


def cut_below(vertices: Float32, faces: Int32, y: float, snap: float = 0.0) -> tuple[Float32, Int32]:
    """What lies above height y, with triangles split exactly along the plane.

    Args:
        vertices: [V, 3]; faces: [F, 3].
        snap: vertices closer than this to the plane are moved onto it first, which avoids slivers.
    Returns: vertices and faces of the part above; the opening is not closed.
    """
    points = vertices.copy()
    height = points[:, 1] - np.float32(y)
    near = np.abs(height) <= snap
    points[near, 1] = y
    side = np.where(near, 0, np.sign(height)).astype(np.int8)[faces]
    whole = faces[(side >= 0).all(1) & (side > 0).any(1)]
    crossing = (side > 0).any(1) & (side < 0).any(1)
    split, side = faces[crossing], side[crossing]

    above, below = (side > 0).sum(1), (side < 0).sum(1)
    # turn each face so that the corner that differs from the other two comes first
    odd = np.where(above == 1, (side > 0).argmax(1), (side < 0).argmax(1))
    has_zero = (above == 1) & (below == 1)
    odd = np.where(has_zero, (side == 0).argmax(1), odd)
    order = (odd[:, None] + np.arange(3)) % 3
    a, b, c = np.take_along_axis(split, order, 1).T
    first_up = np.take_along_axis(side, order, 1)

    new = _PlanePoints(points, y)
    one_down = (below == 1) & ~has_zero
    one_up = (above == 1) & ~has_zero
    zero_up = has_zero & (first_up[:, 1] > 0)
    zero_down = has_zero & (first_up[:, 1] < 0)
    ab, ca, bc = new.between(a, b), new.between(c, a), new.between(b, c)
    pieces = [
        whole,
        np.stack([ab, b, c], 1)[one_down],
        np.stack([ab, c, ca], 1)[one_down],
        np.stack([a, ab, ca], 1)[one_up],
        np.stack([a, b, bc], 1)[zero_up],
        np.stack([a, bc, c], 1)[zero_down],
    ]
    return compact(new.all_points(), np.concatenate(pieces).astype(np.int32))


def keep_one_opening(vertices: Float32, faces: Int32) -> tuple[Float32, Int32]:
    """Close every open ring but the one that spans the largest area, each with a fan around its middle."""
    loops = boundary_loops(faces)
    if len(loops) < 2:
        return vertices, faces
    largest = max(range(len(loops)), key=lambda i: _spanned_area(vertices[loops[i]]))
    points, triangles = [vertices], [faces]
    for index, loop in enumerate(loops):
        if index == largest:
            continue
        middle = len(vertices) + len(points) - 1
        points.append(vertices[loop].mean(0, keepdims=True))
        triangles.append(np.stack([np.roll(loop, -1), loop, np.full(len(loop), middle)], 1).astype(np.int32))
    return np.concatenate(points), np.concatenate(triangles)


def _spanned_area(ring: Float32) -> float:
    offset = ring.astype(np.float64) - ring.mean(0)
    return float(np.linalg.norm(np.cross(offset, np.roll(offset, -1, 0)).sum(0)))


class _PlanePoints:
    """New vertices where edges meet the plane; an edge shared by two faces gets one."""

    def __init__(self, points: Float32, y: float) -> None:
        self._points = points
        self._y = y
        self._new: list[Float32] = []
        self._numbers: dict[tuple[int, int], int] = {}

    def between(self, start: npt.NDArray[np.integer], end: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:  # type: ignore[type-arg]
        """Vertex numbers int64 [N] of the crossings; -1 where an edge does not cross."""
        result = np.full(len(start), -1, np.int64)
        low, high = np.minimum(start, end), np.maximum(start, end)
        h0, h1 = (self._points[i, 1].astype(np.float64) - self._y for i in (low, high))
        for i in np.flatnonzero(h0 * h1 < 0).tolist():
            key = (int(low[i]), int(high[i]))
            number = self._numbers.get(key)
            if number is None:
                t = h0[i] / (h0[i] - h1[i])
                point = self._points[key[0]] + np.float32(t) * (self._points[key[1]] - self._points[key[0]])
                point[1] = self._y
                number = len(self._points) + len(self._new)
                self._numbers[key] = number
                self._new.append(point)
            result[i] = number
        return result

    def all_points(self) -> Float32:
        """Old and new vertices, float32 [V, 3]."""
        return np.concatenate([self._points, np.array(self._new, np.float32).reshape(-1, 3)])
