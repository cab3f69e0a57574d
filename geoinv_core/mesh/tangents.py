"""The axes of a normal map on a mesh: tangents, which grow with u."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.topology import unit

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


def tangent_frames(vertices: Float32, faces: Int32, uv: Float32) -> tuple[Float32, Float32]:
    """Where u grows, unit float32 [F, 3, 3] per corner; and per face whether v grows along normal x tangent
    (1) or against it (-1).

    A vertex shares its tangent among the faces that share its UV and its hand, each weighted by the corner's
    angle, as MikkTSpace does (Mikkelsen, "Simulation of Wrinkled Surfaces Revisited", 2008).
    """
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    (u1, v1), (u2, v2) = (uv[:, i].astype(np.float64).T - uv[:, 0].astype(np.float64).T for i in (1, 2))
    area = u1 * v2 - u2 * v1
    hand = np.where(area < 0, -1.0, 1.0)
    along = unit(((b - a) * v2[:, None] - (c - a) * v1[:, None]) * hand[:, None])
    corners = np.stack([a, b, c], 1)
    to_next = unit(np.roll(corners, -1, 1) - corners)
    angle = np.arccos(np.clip((to_next * -np.roll(to_next, 1, 1)).sum(2), -1, 1))
    weighted = along[:, None] * angle[..., None]
    bits = np.ascontiguousarray(uv.reshape(-1, 2), np.float32).view(np.int32)
    key = np.column_stack([faces.reshape(-1), bits, np.repeat(hand, 3).astype(np.int64)])
    _, place = np.unique(key, axis=0, return_inverse=True)
    place = place.reshape(-1)
    total = np.stack([np.bincount(place, weighted[..., i].reshape(-1)) for i in range(3)], 1)
    return unit(total)[place].reshape(-1, 3, 3).astype(np.float32), hand.astype(np.float32)


def across(tangents: npt.NDArray[Any], normals: npt.NDArray[Any]) -> Float32:
    """Tangents [N, 3] at right angles to the unit normals [N, 3], unit float32; any where there is none."""
    beside = tangents - normals * (tangents * normals).sum(1, keepdims=True)
    lost = np.linalg.norm(beside, axis=1) < 1e-6
    beside[lost] = np.cross(normals[lost], np.eye(3)[np.abs(normals[lost]).argmin(1)])
    return unit(beside).astype(np.float32)
