"""The compiled twins of `raster._fragments_torch` and `raster._interpolate_torch`."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np


@numba.njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator, unused-ignore]
def fragments_cpu(corners: Any, triangles: Any, size: int, cull: bool, behind: Any, bias: float) -> Any:
    """See `raster.rasterise`; an empty `behind` means no limit."""
    capacity, n = 1 << 16, 0
    pixel = np.empty(capacity, np.int64)
    triangle = np.empty(capacity, np.int64)
    weights = np.empty((capacity, 3), np.float32)
    depth = np.empty(capacity, np.float32)
    limited = len(behind) > 0
    for t in range(len(triangles)):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, az = corners[i, 0], corners[i, 1], corners[i, 2]
        bx, by, bz = corners[j, 0], corners[j, 1], corners[j, 2]
        cx, cy, cz = corners[k, 0], corners[k, 1], corners[k, 2]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if (cull and area >= 0) or abs(area) < 1e-9:
            continue
        x0 = max(0, math.ceil(min(ax, bx, cx) - 0.5))
        x1 = min(size - 1, math.floor(max(ax, bx, cx) - 0.5))
        y0 = max(0, math.ceil(min(ay, by, cy) - 0.5))
        y1 = min(size - 1, math.floor(max(ay, by, cy) - 0.5))
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                dx, dy = x + 0.5 - cx, y + 0.5 - cy
                l0 = ((by - cy) * dx + (cx - bx) * dy) / area
                l1 = ((cy - ay) * dx + (ax - cx) * dy) / area
                l2 = 1 - l0 - l1
                if l0 < -1e-6 or l1 < -1e-6 or l2 < -1e-6:
                    continue
                q0, q1, q2 = l0 / az, l1 / bz, l2 / cz
                z = 1 / (q0 + q1 + q2)
                if limited and z - bias >= behind[y * size + x]:
                    continue
                if n == capacity:
                    capacity *= 2
                    pixel = np.concatenate((pixel, np.empty_like(pixel)))
                    triangle = np.concatenate((triangle, np.empty_like(triangle)))
                    weights = np.concatenate((weights, np.empty_like(weights)))
                    depth = np.concatenate((depth, np.empty_like(depth)))
                pixel[n], triangle[n], depth[n] = y * size + x, t, z
                weights[n, 0], weights[n, 1], weights[n, 2] = q0 * z, q1 * z, q2 * z
                n += 1
    return pixel[:n], triangle[:n], weights[:n], depth[:n]


@numba.njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator, unused-ignore]
def interpolate_cpu(attributes: Any, triangles: Any, triangle: Any, weights: Any) -> Any:
    """See `raster.interpolate`."""
    n, channels = len(triangle), attributes.shape[1]
    result = np.empty((n, channels), np.float32)
    for f in range(n):
        t = triangle[f]
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        u, v, w = weights[f, 0], weights[f, 1], weights[f, 2]
        for c in range(channels):
            result[f, c] = u * attributes[i, c] + v * attributes[j, c] + w * attributes[k, c]
    return result
