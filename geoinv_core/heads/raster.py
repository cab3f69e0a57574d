"""Triangles to fragments: which triangle covers which pixel centre, with perspective-correct barycentrics.

The CPU path is compiled by numba when it is installed; the torch path does the same on any device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

try:
    from geoinv_core.heads._raster_numba import fragments_cpu, interpolate_cpu
except ImportError:  # numba is optional: the torch path below does the same, slower
    fragments_cpu = interpolate_cpu = None  # type: ignore[assignment]


class Fragments(NamedTuple):
    """Covered pixel centres, unordered."""

    pixel: Tensor
    """int64 [n], row * width + column"""
    triangle: Tensor
    """int64 [n]"""
    weights: Tensor
    """float32 [n, 3] barycentrics, perspective-correct"""
    z: Tensor
    """float32 [n] camera z"""

    def keep(self, index: Tensor) -> Fragments:
        """Those of an int64 index [m]; a mask would be searched once for each of the tensors."""
        return Fragments(*(x.index_select(0, index) for x in self))


def project(vertices: Tensor, camera: Tensor, size: int) -> Tensor:
    """World [V, 3] to (pixel x, pixel y, camera z) [V, 3] for a camera [25] and a picture `size` pixels
    wide."""
    cam2world, K = camera[:16].view(4, 4), camera[16:].view(3, 3)
    local = (vertices - cam2world[:3, 3]) @ cam2world[:3, :3]
    picture = local @ K.T
    return torch.cat([picture[:, :2] / local[:, 2:] * size, local[:, 2:]], 1)


def rasterise(
    corners: Tensor, triangles: Tensor, size: int, cull: bool, behind: Tensor | None = None, bias: float = 0.0
) -> Fragments:
    """All fragments of the triangles.

    Args:
        corners: float32 [V, 3] from `project`.
        triangles: int64 [T, 3].
        cull: drop triangles that face away.
        behind: float32 [size * size] camera z; fragments more than `bias` behind it are dropped.
    """
    if corners.device.type == "cpu" and fragments_cpu is not None:
        limit: Any = np.zeros(0, np.float32) if behind is None else behind.numpy()
        return Fragments(
            *(
                torch.from_numpy(x)
                for x in fragments_cpu(corners.numpy(), triangles.numpy(), size, cull, limit, bias)
            )
        )
    fragments = _fragments_torch(corners, triangles, size, cull)
    if behind is None:
        return fragments
    return fragments.keep((fragments.z - bias < behind[fragments.pixel]).nonzero()[:, 0])


def _fragments_torch(corners: Tensor, triangles: Tensor, size: int, cull: bool) -> Fragments:
    a, b, c = (corners[triangles[:, k]] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    xy = torch.stack([a[:, :2], b[:, :2], c[:, :2]])
    first = (xy.amin(0) - 0.5).ceil().clamp(0, size).long()
    last = ((xy.amax(0) - 0.5).floor() + 1).clamp(0, size).long()
    extent = (last - first).clamp_min(0)
    count = extent[:, 0] * extent[:, 1]
    front = (
        area < -1e-9 if cull else area.abs() > 1e-9
    )  # pixels run downwards, so front faces have negative area
    index = ((count > 0) & front).nonzero()[:, 0]
    count = count[index]
    which = torch.repeat_interleave(torch.arange(len(index), device=corners.device), count)
    k = torch.arange(len(which), device=corners.device) - (count.cumsum(0) - count)[which]
    triangle = index[which]
    width = extent[triangle, 0].clamp_min(1)
    column = first[triangle, 0] + k % width
    row = first[triangle, 1] + torch.div(k, width, rounding_mode="floor")
    A, B, C, inverse = a[triangle], b[triangle], c[triangle], 1 / area[triangle]
    dx, dy = column + 0.5 - C[:, 0], row + 0.5 - C[:, 1]
    l0 = ((B[:, 1] - C[:, 1]) * dx + (C[:, 0] - B[:, 0]) * dy) * inverse
    l1 = ((C[:, 1] - A[:, 1]) * dx + (A[:, 0] - C[:, 0]) * dy) * inverse
    linear = torch.stack([l0, l1, 1 - l0 - l1], 1)
    inside = (linear >= -1e-6).all(1)
    linear = linear[inside] / torch.stack([A[:, 2], B[:, 2], C[:, 2]], 1)[inside]
    z = 1 / linear.sum(1)
    return Fragments((row * size + column)[inside], triangle[inside], linear * z[:, None], z)


def nearest(fragments: Fragments, pixels: int) -> tuple[Tensor, Tensor]:
    """The front fragment of every covered pixel: pixel int64 [m], fragment index int64 [m]."""
    # z and the fragment's number share one integer, so that one minimum decides both.
    n = torch.arange(len(fragments.z), device=fragments.z.device)
    key = ((fragments.z * 2**26).long() << 32) | n
    best = torch.full((pixels,), 2**62, dtype=torch.int64, device=key.device).scatter_reduce(
        0, fragments.pixel, key, "amin"
    )
    hit = (best < 2**62).nonzero()[:, 0]
    return hit, best[hit] & 0xFFFFFFFF


def interpolate(attributes: Tensor, triangles: Tensor, fragments: Fragments) -> Tensor:
    """Vertex attributes [V, C] at the fragments [C, n]."""
    if attributes.device.type == "cpu" and interpolate_cpu is not None:
        arrays = (attributes, triangles, fragments.triangle, fragments.weights)
        return torch.from_numpy(interpolate_cpu(*(x.contiguous().numpy() for x in arrays)))
    return _interpolate_torch(attributes, triangles, fragments)


def _interpolate_torch(attributes: Tensor, triangles: Tensor, fragments: Fragments) -> Tensor:
    corner = triangles[fragments.triangle]
    return torch.einsum("nkc,nk->cn", attributes[corner], fragments.weights)
