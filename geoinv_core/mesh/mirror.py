"""Each vertex' partner on the other half of the head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_ROUNDS = 4
_POINTS = 3000
_LIMIT = np.array([0.1, 0.1, 0.03])
"""Largest believable tilt of the plane of symmetry (radians, two axes) and offset (world units)."""


@dataclass(frozen=True)
class Mirrored:
    """points: world float32 [V, 3] on the surface, where each vertex' mirror image lies; vertex: int32 [V],
    the nearest vertex there; gap: float32 [V], world units by which the mirror image misses the surface."""

    points: Float32
    vertex: Int32
    gap: Float32


def mirror(vertices: Float32, normals: Float32) -> Mirrored:
    """Reflect a head's vertices [V, 3] (unit normals [V, 3]) at its plane of symmetry, onto its surface.

    The plane is x = 0 as the models have it, corrected by a few rounds of closest points between the front
    of the head and its mirror image (point to plane: Chen and Medioni 1991).
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(vertices)
    front = np.flatnonzero(normals[:, 2] > 0)
    front = front[:: max(1, len(front) // _POINTS)]
    plane = np.zeros(3)
    for _ in range(_ROUNDS):
        image = _reflect(vertices[front], plane)
        near = tree.query(image)[1]
        target, facing = vertices[near].astype(np.float64), normals[near].astype(np.float64)
        error = ((target - image) * facing).sum(1)
        x, y, z = vertices[front].astype(np.float64).T
        zero = np.zeros_like(x)
        moves = ((-2 * y, -2 * x, zero), (-2 * z, zero, -2 * x), (zero + 2, zero, zero))
        slope = np.stack([(np.stack(move, 1) * facing).sum(1) for move in moves], 1)
        trust = 1 / (1 + (error / (2 * np.median(np.abs(error)) + 1e-6)) ** 2)
        system = (slope * trust[:, None]).T @ slope + 1e-6 * len(front) * np.eye(3)
        plane = np.clip(plane + np.linalg.solve(system, (slope * trust[:, None]).T @ error), -_LIMIT, _LIMIT)
    image = _reflect(vertices, plane)
    near = tree.query(image)[1]
    facing = normals[near].astype(np.float64)
    off = ((image - vertices[near]) * facing).sum(1, keepdims=True)
    on_surface = image - off * facing
    gap = np.linalg.norm(on_surface - vertices[near], axis=1) + np.abs(off[:, 0])
    return Mirrored(on_surface.astype(np.float32), near.astype(np.int32), gap.astype(np.float32))


def _reflect(points: Float32, plane: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Points [N, 3] reflected at the plane x + plane[0] y + plane[1] z = plane[2]."""
    normal = np.array([1.0, plane[0], plane[1]])
    height = (points @ normal - plane[2]) / (normal @ normal)
    return np.asarray(points - 2 * height[:, None] * normal, np.float64)
