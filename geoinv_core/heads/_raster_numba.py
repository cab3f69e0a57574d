"""The compiled twins of `raster._fragments_torch` and `raster._interpolate_torch`."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np


@numba.njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator, unused-ignore]
def _faces(corners: Any, corner: Any, cull: bool) -> float:
    """Twice the area on the picture, negative for front faces; 0 for what is not drawn."""
    a, b, c = corners[corner[0]], corners[corner[1]], corners[corner[2]]
    area: float = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    return 0.0 if (cull and area >= 0) or abs(area) < 1e-9 else area


@numba.njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator, unused-ignore]
def _bounds(corners: Any, corner: Any, size: int) -> Any:
    """First and last column, first and last row whose pixel centres a triangle may cover."""
    a, b, c = corners[corner[0]], corners[corner[1]], corners[corner[2]]
    x0 = max(0, math.ceil(min(a[0], b[0], c[0]) - 0.5))
    x1 = min(size - 1, math.floor(max(a[0], b[0], c[0]) - 0.5))
    y0 = max(0, math.ceil(min(a[1], b[1], c[1]) - 0.5))
    y1 = min(size - 1, math.floor(max(a[1], b[1], c[1]) - 0.5))
    return x0, x1, y0, y1


@numba.njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator, unused-ignore]
def fragments_cpu(corners: Any, triangles: Any, size: int, cull: bool, behind: Any, bias: float) -> Any:
    """See `raster.rasterise`; an empty `behind` means no limit."""
    limited = len(behind) > 0
    # Room for all pixels of the bounding boxes: memory that is never written costs nothing.
    room = 0
    for t in range(len(triangles)):
        if _faces(corners, triangles[t], cull) != 0:
            x0, x1, y0, y1 = _bounds(corners, triangles[t], size)
            room += max(0, x1 - x0 + 1) * max(0, y1 - y0 + 1)
    pixel = np.empty(room, np.int64)
    triangle = np.empty(room, np.int64)
    weights = np.empty((room, 3), np.float32)
    depth = np.empty(room, np.float32)
    n = 0
    for t in range(len(triangles)):
        area = _faces(corners, triangles[t], cull)
        if area == 0:
            continue
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, bx, by = corners[i, 0], corners[i, 1], corners[j, 0], corners[j, 1]
        cx, cy = corners[k, 0], corners[k, 1]
        near_a, near_b, near_c = 1 / corners[i, 2], 1 / corners[j, 2], 1 / corners[k, 2]
        # Barycentrics are linear in x and y.
        l0x, l0y, l1x, l1y = (by - cy) / area, (cx - bx) / area, (cy - ay) / area, (ax - cx) / area
        x0, x1, y0, y1 = _bounds(corners, triangles[t], size)
        for y in range(y0, y1 + 1):
            dy = y + 0.5 - cy
            for x in range(x0, x1 + 1):
                dx = x + 0.5 - cx
                l0, l1 = l0x * dx + l0y * dy, l1x * dx + l1y * dy
                l2 = 1 - l0 - l1
                if l0 < -1e-6 or l1 < -1e-6 or l2 < -1e-6:
                    continue
                q0, q1, q2 = l0 * near_a, l1 * near_b, l2 * near_c
                z = 1 / (q0 + q1 + q2)
                if limited and z - bias >= behind[y * size + x]:
                    continue
                pixel[n], triangle[n], depth[n] = y * size + x, t, z
                weights[n, 0], weights[n, 1], weights[n, 2] = q0 * z, q1 * z, q2 * z
                n += 1
    return pixel[:n], triangle[:n], weights[:n], depth[:n]


@numba.njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator, unused-ignore]
def interpolate_cpu(attributes: Any, triangles: Any, triangle: Any, weights: Any) -> Any:
    """See `raster.interpolate`."""
    n, channels = len(triangle), attributes.shape[1]
    result = np.empty((channels, n), np.float32)
    for f in range(n):
        t = triangle[f]
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        u, v, w = weights[f, 0], weights[f, 1], weights[f, 2]
        for c in range(channels):
            result[c, f] = u * attributes[i, c] + v * attributes[j, c] + w * attributes[k, c]
    return result
