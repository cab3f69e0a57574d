"""Exact closest points on a triangle mesh, and which side of it a point lies on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geoinv_core.mesh.topology import unit

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_ON_EDGE = 1e-9  # a barycentric weight below this: the closest point lies on an edge or at a corner


@dataclass(frozen=True)
class Closest:
    """For each of N points, the nearest point of a mesh."""

    distance: Float64
    """[N], unsigned, in the mesh's unit"""
    triangle: Int64
    """[N]"""
    weights: Float64
    """[N, 3] barycentrics in that triangle"""
    point: Float64
    """[N, 3]"""


class ClosestPoints:
    """A mesh made ready for many queries.

    Args:
        vertices: [V, 3]; triangles: integers [T, 3], counter-clockwise from outside.
    """

    def __init__(self, vertices: NDArray[Any], triangles: NDArray[Any]) -> None:
        self.vertices = np.asarray(vertices, np.float64)
        self.triangles = np.asarray(triangles, np.int64)
        self._corners = self.vertices[self.triangles]
        centre = self._corners.mean(1)
        reach = np.linalg.norm(self._corners - centre[:, None], axis=2).max(1)
        # One tree per octave of triangle sizes: a few large triangles would spoil the bound for all.
        octave = np.floor(np.log2(np.maximum(reach, 1e-12))).astype(int)
        self._levels: list[tuple[cKDTree, Int64, float]] = []
        for level in np.unique(octave):
            members = np.flatnonzero(octave == level)
            self._levels.append((cKDTree(centre[members]), members, float(reach[members].max())))

    def __call__(self, points: NDArray[Any]) -> Closest:
        """The nearest points to [N, 3]: the search ends when no triangle left out can be nearer."""
        points = np.asarray(points, np.float64)
        N = len(points)
        best = Closest(np.full(N, np.inf), np.zeros(N, np.int64), np.zeros((N, 3)), np.zeros((N, 3)))
        for tree, members, reach in self._levels:
            todo, count = np.arange(N), min(8, len(members))
            while len(todo):
                to_centre, found = (x.reshape(len(todo), count) for x in tree.query(points[todo], k=count))
                self._improve(best, points, todo, members[found])
                if count == len(members):
                    break
                todo = todo[best.distance[todo] > to_centre[:, -1] - reach]
                count = min(4 * count, len(members))
        return best

    def _improve(self, best: Closest, points: Float64, rows: Int64, candidates: Int64) -> None:
        corners = self._corners[candidates]  # [n, k, 3, 3]
        weights = nearest_weights(points[rows, None], corners)
        at = (weights[..., None] * corners).sum(2)
        distance = np.linalg.norm(at - points[rows, None], axis=2)
        first = distance.argmin(1)
        k = np.arange(len(rows))
        better = distance[k, first] < best.distance[rows]
        k, first, rows = k[better], first[better], rows[better]
        best.distance[rows], best.triangle[rows] = distance[k, first], candidates[k, first]
        best.weights[rows], best.point[rows] = weights[k, first], at[k, first]

    @cached_property
    def face_normals(self) -> Float64:
        """[T, 3] unit, zero for triangles without area."""
        a, b, c = np.moveaxis(self._corners, 1, 0)
        return unit(np.cross(b - a, c - a))

    @cached_property
    def _edge_normals(self) -> Float64:
        """[T, 3, 3] for the edge opposite to each corner: the sum of the normals of its two triangles."""
        ends = np.sort(self.triangles[:, [[1, 2], [2, 0], [0, 1]]], axis=2)
        key = ends[..., 0] * len(self.vertices) + ends[..., 1]
        _, edge = np.unique(key.ravel(), return_inverse=True)
        total = np.zeros((int(edge.max()) + 1, 3))
        np.add.at(total, edge.ravel(), np.repeat(self.face_normals, 3, axis=0))
        return np.asarray(total[edge.ravel()].reshape(-1, 3, 3), np.float64)

    @cached_property
    def _corner_normals(self) -> Float64:
        """[V, 3]: face normals weighted by the angle that each face has at the vertex."""
        total = np.zeros_like(self.vertices)
        for k in range(3):
            here, ahead, behind = (self._corners[:, (k + i) % 3] for i in range(3))
            cosine = (unit(ahead - here) * unit(behind - here)).sum(1).clip(-1, 1)
            np.add.at(total, self.triangles[:, k], np.arccos(cosine)[:, None] * self.face_normals)
        return total

    def outside(self, points: NDArray[Any], closest: Closest) -> NDArray[np.bool_]:
        """[N] whether points lie outside of a closed mesh.

        By the angle-weighted pseudonormal at the closest point (Baerentzen and Aanaes 2005, section 3).
        """
        zero = closest.weights < _ON_EDGE
        normal = self.face_normals[closest.triangle]
        k = np.arange(len(zero))
        edge, corner = zero.sum(1) == 1, zero.sum(1) >= 2
        normal = np.where(edge[:, None], self._edge_normals[closest.triangle, zero.argmax(1)], normal)
        at = self.triangles[closest.triangle, closest.weights.argmax(1)]
        normal = np.where(corner[:, None], self._corner_normals[at], normal)
        offset = np.asarray(points, np.float64)[k] - closest.point
        return np.asarray((offset * normal).sum(1) >= 0)

    def signed_distance(self, points: NDArray[Any]) -> Float64:
        """[N] distances, negative inside; the mesh has to be closed."""
        closest = self(points)
        return np.where(self.outside(points, closest), closest.distance, -closest.distance)


def nearest_weights(points: Float64, corners: Float64) -> Float64:
    """Barycentrics of the nearest point of a triangle.

    Args:
        points: [..., 3]; corners: [..., 3, 3] (corner, coordinate).
    Returns: [..., 3], sums to 1. After Ericson, Real-Time Collision Detection (2005), section 5.1.5: the foot
    of the perpendicular if it lies in the triangle, else the nearest point of the three edges.
    """
    a, b, c = (corners[..., k, :] for k in range(3))
    u, v, w = b - a, c - a, points - a
    uu, uv, vv = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
    wu, wv = (w * u).sum(-1), (w * v).sum(-1)
    area = uu * vv - uv * uv
    safe = np.where(area > 0, area, 1)
    s, t = (vv * wu - uv * wv) / safe, (uu * wv - uv * wu) / safe
    inner = np.stack([1 - s - t, s, t], -1)
    inside = (inner >= 0).all(-1) & (area > 0)
    result, least = inner, np.full(np.broadcast_shapes(area.shape, wu.shape), np.inf)
    for k in range(3):
        start, end = corners[..., k, :], corners[..., (k + 1) % 3, :]
        along = end - start
        length = (along * along).sum(-1)
        r = (((points - start) * along).sum(-1) / np.where(length > 0, length, 1)).clip(0, 1)
        gap = np.square(points - start - r[..., None] * along).sum(-1)
        on_edge = np.zeros(inner.shape)
        on_edge[..., k], on_edge[..., (k + 1) % 3] = 1 - r, r
        nearer = ~inside & (gap < least)
        result = np.where(nearer[..., None], on_edge, result)
        least = np.where(nearer, gap, least)
    return np.asarray(result)
