"""What of the sky each point of a mesh sees, by depth maps from many directions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geoinv_core.heads.raster import rasterise

_DIRECTIONS, _PIXELS = 192, 512


def directions(count: int) -> Tensor:
    """Unit vectors [count, 3] spread evenly over the sphere (a Fibonacci lattice)."""
    i = torch.arange(count, dtype=torch.float64) + 0.5
    polar, turn = torch.acos(1 - 2 * i / count), math.pi * (1 + math.sqrt(5)) * i
    return torch.stack([turn.cos() * polar.sin(), polar.cos(), turn.sin() * polar.sin()], 1).float()


def blocked(
    points: Tensor, normals: Tensor, vertices: Tensor, triangles: Tensor, bias: float, reach: float = math.inf
) -> Tensor:
    """Share [N] of the light from above each point that a mesh keeps away, weighted by the cosine.

    Args:
        points, normals: [N, 3]; vertices: [V, 3], triangles: [T, 3], any unit of length.
        bias: a surface nearer than this blocks nothing. reach: neither does one further away along the
        direction.
    """
    used = vertices[triangles.unique()]
    centre, width = (used.amax(0) + used.amin(0)) / 2, float((used.amax(0) - used.amin(0)).norm())
    lost, total = torch.zeros(len(points)), torch.zeros(len(points))
    for towards in directions(_DIRECTIONS):
        right = torch.linalg.cross(-towards, torch.tensor([0.0, 1.0, 0.0]))
        right = right / right.norm()
        frame = torch.stack([right, torch.linalg.cross(-towards, right), -towards])

        def seen(x: Tensor, frame: Tensor = frame) -> Tensor:
            local = (x - centre) @ frame.T
            return torch.cat([(local[:, :2] / width + 0.5) * _PIXELS, local[:, 2:] + 2 * width], 1)

        fragments = rasterise(seen(vertices), triangles, _PIXELS, cull=False)
        empty = torch.full((_PIXELS * _PIXELS,), math.inf)
        nearest = empty.scatter_reduce(0, fragments.pixel, fragments.z, "amin").view(_PIXELS, _PIXELS)
        x, y, z = seen(points).unbind(1)
        column, row = (v.long().clamp(0, _PIXELS - 1) for v in (x, y))
        before = z - nearest[row, column]
        cosine = (normals @ towards).clamp_min(0)
        lost += cosine * ((before > bias) & (before < reach))
        total += cosine
    return lost / total.clamp_min(1e-6)
