"""What a photo sees of a surface, and how well: a weight in 0..1 for any point.

The weight is the product of what the camera sees (depth test), how squarely it sees it (angle), and how far
the pixel is from a silhouette: a slightly wrong outline would paint background on the head.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.raster import camera_position, project_points

Float32 = npt.NDArray[np.float32]

_EDGE = (0.012, 0.06)
"""Distance to the head's outline, in picture widths, where the photo's weight starts and is full."""
_INNER_EDGE = (0.006, 0.024)
"""The same for outlines within the head, such as the nose's in front of a cheek."""
_COSINE = (0.2, 0.55)
"""Cosine between normal and view, likewise: below .2 a pixel stretches over five texel lengths."""
_DEPTH_TOLERANCE = 0.02
"""World units that a point may lie behind the depth map (8 mm on a head)."""
_STEP = 0.05
"""A jump of depth within three pixels that is an outline and no slope, world units at 128 pixels."""


class Sight:
    """One camera in front of one head."""

    def __init__(
        self, camera: npt.NDArray[Any], depth: Float32, mask: npt.NDArray[Any] | None = None
    ) -> None:
        """camera: [25]; depth: [R, R] distance along the ray, not finite or <= 0 where there is no head;
        mask: [M, M], above 0.5 (or True) where the photo shows the head, None: wherever depth is."""
        self.camera = camera
        self._reliable = _reliability(depth, mask)
        self._farthest = _farthest_nearby(depth)

    def cosine(self, points: Float32, normals: Float32) -> Float32:
        """Cosine between the unit normals [N, 3] and the way to the camera, float32 [N]."""
        away = camera_position(self.camera) - points
        away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)
        return np.asarray(np.einsum("ij,ij->i", away, normals), np.float32)

    def weigh(self, points: Float32, cosine: Float32) -> tuple[Float32, Float32]:
        """How well world points [N, 3], seen at `cosine` [N], are seen.

        Returns: weights 0..1 [N], positions in picture widths [N, 2] (0..1 inside, y down).
        """
        position, distance = project_points(self.camera, points)
        weight = sample(self._reliable, position)[:, 0] * smooth_step(cosine, *_COSINE)
        behind = distance - sample(self._farthest, position)[:, 0]
        weight *= 1.0 - smooth_step(behind, _DEPTH_TOLERANCE, 2 * _DEPTH_TOLERANCE)
        weight *= ((position > 0) & (position < 1)).all(1)
        return np.asarray(weight, np.float32), position


def sample(picture: Float32, position: Float32, interpolation: int = cv2.INTER_LINEAR) -> Float32:
    """A picture [S, S] or [S, S, C] at positions [N, 2] in widths, float32 [N, C]; borders are repeated."""
    height, width = picture.shape[:2]
    # OpenCV wants maps of fewer than 32768 rows and columns
    side = 4096
    padded = np.zeros((-(-max(len(position), 1) // side) * side, 2), np.float32)
    padded[: len(position)] = position * (width, height) - 0.5
    maps = padded.reshape(-1, side, 2)
    rows = [
        cv2.remap(picture, block[..., 0], block[..., 1], interpolation, borderMode=cv2.BORDER_REPLICATE)
        for block in np.split(maps, range(8192, len(maps), 8192))
    ]
    found = np.concatenate(rows).reshape(side * len(maps), -1)
    return np.asarray(found[: len(position)], np.float32)


def smooth_step(value: npt.NDArray[Any], low: float, high: float) -> Float32:
    """0 up to `low`, 1 from `high` on, smooth between; float32 [N]."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), np.float32)


def _reliability(depth: Float32, mask: npt.NDArray[Any] | None) -> Float32:
    """How far each pixel is from outlines and holes, as a weight 0..1, float32 [R, R]."""
    size = depth.shape[0]
    head = np.isfinite(depth) & (depth > 0)
    if mask is not None:
        resized = cv2.resize(np.asarray(mask, np.float32), (size, size), interpolation=cv2.INTER_AREA)
        head &= resized > 0.5
    cross = np.ones((3, 3), np.uint8)
    highest = cv2.dilate(np.where(head, depth, -1e6).astype(np.float32), cross)
    lowest = cv2.erode(np.where(head, depth, 1e6).astype(np.float32), cross)
    smooth = highest - lowest < max(_STEP * 128 / size, 0.012)
    weight = smooth_step(_distance_inside(head), *_EDGE)
    weight *= smooth_step(_distance_inside(smooth | ~head), *_INNER_EDGE)
    return np.asarray(cv2.GaussianBlur(weight, (0, 0), max(size / 200, 0.8)), np.float32)


def _distance_inside(region: npt.NDArray[np.bool_]) -> Float32:
    """Distance to the region's border in picture widths; the picture's own border counts. float32 [R, R]."""
    padded = np.pad(region, 1).astype(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance[1:-1, 1:-1] / len(region), np.float32)


def _farthest_nearby(depth: Float32) -> Float32:
    """The largest depth in 3x3 pixels (empty ones ignored), so that a slope does not hide itself."""
    filled = np.where(np.isfinite(depth) & (depth > 0), depth, 0.0).astype(np.float32)
    return np.asarray(cv2.dilate(filled, np.ones((3, 3), np.uint8)), np.float32)
