"""A small vectorised triangle rasteriser: which face covers a pixel, and where inside the face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geoinv_core.camera import project

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_CHUNK = 2_000_000
"""Candidate pixels handled at once; about 150 MB of temporaries."""


@dataclass(frozen=True)
class Coverage:
    """Covered pixels of a square picture, in any order, each once.

    pixel: int64 [N], row * size + column, row 0 at the top. face: int32 [N]. weights: float32 [N, 3], the
    barycentric weights of the face's corners at the pixel's centre.
    """

    size: int
    pixel: npt.NDArray[np.int64]
    face: Int32
    weights: Float32

    def interpolate(self, values: npt.NDArray[Any], faces: Int32) -> Float32:
        """Values per vertex [V, C] at the covered pixels, float32 [N, C]."""
        corners = faces[self.face]
        total = values[corners[:, 0]] * self.weights[:, :1]
        for i in (1, 2):
            total = total + values[corners[:, i]] * self.weights[:, i : i + 1]
        return np.asarray(total, np.float32)


def rasterise(corners: npt.NDArray[Any], size: int, depth: npt.NDArray[Any] | None = None) -> Coverage:
    """Fill triangles.

    Args:
        corners: [F, 3, 2] x (right) and y (down) in pixels; pixel centres lie at half numbers.
        size: side of the picture.
        depth: [F, 3]; the smallest wins where triangles overlap. None: the last face wins.
    """
    corners = np.asarray(corners, np.float64)
    low = np.maximum(np.ceil(corners.min(1) - 0.5), 0).astype(np.int64)
    high = np.minimum(np.floor(corners.max(1) - 0.5), size - 1).astype(np.int64)
    extent = np.maximum(high - low + 1, 0)
    count = extent.prod(1)
    winner = np.full(size * size, -1, np.int32)
    weight = np.zeros((size * size, 3), np.float32)
    nearest = np.full(size * size, np.inf, np.float32)
    alive = np.flatnonzero(count)
    bounds = np.searchsorted(np.cumsum(count[alive]), np.arange(_CHUNK, count.sum() + _CHUNK, _CHUNK))
    for part in np.split(alive, np.unique(bounds)):
        if len(part):
            _fill(part, corners, low, extent, count, size, depth, winner, weight, nearest)
    pixel = np.flatnonzero(winner >= 0)
    return Coverage(size, pixel, winner[pixel], weight[pixel])


def _fill(
    part: npt.NDArray[np.int64],
    corners: npt.NDArray[np.float64],
    low: npt.NDArray[np.int64],
    extent: npt.NDArray[np.int64],
    count: npt.NDArray[np.int64],
    size: int,
    depth: npt.NDArray[Any] | None,
    winner: Int32,
    weight: Float32,
    nearest: Float32,
) -> None:
    face = np.repeat(part, count[part])
    start = np.cumsum(count[part]) - count[part]
    local = np.arange(len(face)) - np.repeat(start, count[part])
    column = low[face, 0] + local % extent[face, 0]
    row = low[face, 1] + local // extent[face, 0]
    a, b, c = (corners[face, i] for i in range(3))
    px, py = column + 0.5, row + 0.5
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    usable = np.abs(area) > 1e-12
    safe = np.where(usable, area, 1.0)
    wb = ((px - a[:, 0]) * (c[:, 1] - a[:, 1]) - (py - a[:, 1]) * (c[:, 0] - a[:, 0])) / safe
    wc = ((b[:, 0] - a[:, 0]) * (py - a[:, 1]) - (b[:, 1] - a[:, 1]) * (px - a[:, 0])) / safe
    wa = 1.0 - wb - wc
    inside = usable & (wa >= -1e-9) & (wb >= -1e-9) & (wc >= -1e-9)
    pixel = (row * size + column)[inside]
    weights = np.stack([wa, wb, wc], 1)[inside].astype(np.float32)
    owner = face[inside]
    if depth is not None:
        z = (weights * depth[owner]).sum(1).astype(np.float32)
        order = np.argsort(-z, kind="stable")  # numpy keeps the last of repeated assignments: the nearest
        order = order[z[order] < nearest[pixel[order]]]
        pixel, weights, owner, z = pixel[order], weights[order], owner[order], z[order]
        nearest[pixel] = z
    winner[pixel] = owner
    weight[pixel] = weights


def project_points(camera: npt.NDArray[Any], points: npt.NDArray[Any]) -> tuple[Float32, Float32]:
    """World points [N, 3] to the picture of a camera [25].

    Returns: positions [N, 2] in picture widths (0..1 inside, y down), distances along the ray [N].
    """
    import torch

    position, distance = project(
        torch.from_numpy(np.asarray(camera, np.float32).reshape(1, 25)),
        torch.from_numpy(np.ascontiguousarray(points, np.float32))[None],
    )
    return position[0].numpy(), distance[0].numpy()


def camera_position(camera: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """World position of a camera [25]; float64 [3]."""
    return np.asarray(camera, np.float64).reshape(25)[[3, 7, 11]]


def depth_map(vertices: Float32, faces: Int32, camera: npt.NDArray[Any], resolution: int) -> Float32:
    """Distance along the ray to the mesh, world units, float32 [R, R]; infinite where nothing is hit."""
    position, distance = project_points(camera, vertices)
    covered = rasterise((position * resolution)[faces], resolution, distance[faces])
    picture = np.full(resolution * resolution, np.inf, np.float32)
    picture[covered.pixel] = covered.interpolate(distance[:, None], faces)[:, 0]
    return picture.reshape(resolution, resolution)
