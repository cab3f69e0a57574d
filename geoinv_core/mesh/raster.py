"""A small vectorised triangle rasteriser: which face covers a pixel, and where inside the face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geoinv_core.camera import project

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_CHUNK = 1 << 20
"""Pixels handled at once; about 100 MB of temporaries."""


@dataclass(frozen=True)
class Coverage:
    """Covered pixels of a square picture, row by row, each once.

    pixel: int64 [N], row * size + column, row 0 at the top. face: int32 [N]. weights: float32 [N, 3], the
    barycentric weights of the face's corners at the pixel's centre.
    """

    size: int
    pixel: Int64
    face: Int32
    weights: Float32

    def interpolate(self, values: npt.NDArray[Any], faces: Int32) -> Float32:
        """Values per vertex [V, C] at the covered pixels, float32 [N, C]."""
        corners = np.asarray(values, np.float32)[faces]
        result = np.empty((len(self.pixel), values.shape[1]), np.float32)
        for start in range(0, len(result), _CHUNK):
            part = slice(start, start + _CHUNK)
            np.einsum("nk,nkc->nc", self.weights[part], corners[self.face[part]], out=result[part])
        return result

    def gather(self, values: npt.NDArray[Any], faces: Int32, count: int) -> Float32:
        """The transpose of `interpolate`: pixels' values [N, C] summed into vertices, float32 [count, C]."""
        total = np.zeros((count, values.shape[1]), np.float32)
        for corner in range(3):
            vertex, weight = faces[self.face, corner], self.weights[:, corner]
            for channel in range(values.shape[1]):
                total[:, channel] += np.bincount(vertex, weight * values[:, channel], count)
        return total

    def only(self, chosen: npt.NDArray[Any]) -> Coverage:
        """Some of the pixels, by mask [N] or by index."""
        return Coverage(self.size, self.pixel[chosen], self.face[chosen], self.weights[chosen])


def rasterise(corners: npt.NDArray[Any], size: int, depth: npt.NDArray[Any] | None = None) -> Coverage:
    """Fill triangles, row by row.

    Args:
        corners: [F, 3, 2] x (right) and y (down) in pixels; pixel centres lie at half numbers. A centre on an
            edge belongs to both faces of the edge, of which one wins.
        size: side of the picture.
        depth: [F, 3]; the smallest wins where triangles overlap. None: the last face wins.
    """
    corners = np.asarray(corners, np.float64)
    to_weights = _barycentric(corners)
    face, row, first, count = _spans(corners, size)
    winner = np.full(size * size, -1, np.int32)
    nearest = np.full(0 if depth is None else size * size, np.inf, np.float32)
    bounds = np.searchsorted(np.cumsum(count), np.arange(_CHUNK, count.sum() + _CHUNK, _CHUNK))
    for part in np.split(np.arange(len(face)), np.unique(bounds)):
        start = np.cumsum(count[part]) - count[part]
        column = np.arange(count[part].sum()) + np.repeat(first[part] - start, count[part])
        pixel = np.repeat(row[part] * size, count[part]) + column
        owner = np.repeat(face[part], count[part])
        if depth is not None:
            weights = _weights_at(to_weights, owner, pixel, size)
            z = np.einsum("nk,nk->n", weights, np.asarray(depth, np.float32)[owner])
            order = np.argsort(-z, kind="stable")  # numpy keeps the last of repeated assignments
            order = order[z[order] < nearest[pixel[order]]]
            pixel, owner = pixel[order], owner[order]
            nearest[pixel] = z[order]
        winner[pixel] = owner
    pixel = np.flatnonzero(winner >= 0)
    return Coverage(size, pixel, winner[pixel], _weights_at(to_weights, winner[pixel], pixel, size))


def _barycentric(corners: Float64) -> Float64:
    """Per face the matrix [3, 3] that takes (x, y, 1) to the corners' weights; zero without an area."""
    (ax, ay), (bx, by), (cx, cy) = (corners[:, i].T for i in range(3))
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    rows = [
        [by - cy, cx - bx, bx * cy - cx * by],
        [cy - ay, ax - cx, cx * ay - ax * cy],
        [ay - by, bx - ax, ax * by - bx * ay],
    ]
    usable = np.abs(area) > 1e-12
    scale = np.where(usable, 1.0 / np.where(usable, area, 1.0), 0.0)
    return np.asarray(np.moveaxis(np.array(rows), 2, 0) * scale[:, None, None], np.float64)


def _spans(corners: Float64, size: int) -> tuple[Int32, Int64, Int64, Int64]:
    """The runs of pixels inside each face: face, row, first column and length, all [S], length above 0."""
    low = np.maximum(np.ceil(corners[..., 1].min(1) - 0.5), 0).astype(np.int64)
    high = np.minimum(np.floor(corners[..., 1].max(1) - 0.5), size - 1).astype(np.int64)
    height = np.maximum(high - low + 1, 0)
    face = np.repeat(np.arange(len(corners), dtype=np.int32), height)
    row = np.arange(height.sum()) + np.repeat(low - (np.cumsum(height) - height), height)
    y = row + 0.5
    left, right = np.full(len(face), np.inf), np.full(len(face), -np.inf)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        (xi, yi), (xj, yj) = corners[face, i].T, corners[face, j].T
        crossed = (np.minimum(yi, yj) <= y) & (y <= np.maximum(yi, yj)) & (yi != yj)
        x = xi + (y - yi) / np.where(yi != yj, yj - yi, 1.0) * (xj - xi)
        left = np.where(crossed, np.minimum(left, x), left)
        right = np.where(crossed, np.maximum(right, x), right)
    # 1e-9: a centre that lies on an edge is inside, whichever way the crossing was rounded
    first = np.maximum(np.ceil(np.clip(left, -1, size + 1) - 0.5 - 1e-9), 0).astype(np.int64)
    last = np.minimum(np.floor(np.clip(right, -1, size + 1) - 0.5 + 1e-9), size - 1).astype(np.int64)
    count = last - first + 1
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    flat = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) <= 1e-12
    full = (count > 0) & ~flat[face]
    return face[full], row[full], first[full], count[full]


def _weights_at(to_weights: Float64, face: Int32, pixel: Int64, size: int) -> Float32:
    result = np.empty((len(pixel), 3), np.float32)
    for start in range(0, len(pixel), _CHUNK):
        part = slice(start, start + _CHUNK)
        row, column = np.divmod(pixel[part], size)
        matrix = to_weights[face[part]]
        x, y = (column + 0.5)[:, None], (row + 0.5)[:, None]
        result[part] = matrix[..., 0] * x + matrix[..., 1] * y + matrix[..., 2]
    return result


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
