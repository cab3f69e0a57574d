"""Where rays enter and leave: fixed numbers, the box ("auto"), a sphere."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Bound = float | Tensor | Literal["auto"]


def box_limits(origins: Tensor, directions: Tensor, side: float) -> tuple[Tensor, Tensor]:
    """Slab test against the cube of the given side around the origin (EG3D's "auto").

    Args:
        origins, directions: [B, R, 3].
    Returns: near, far [B, R]. A ray that misses gets the smallest near of those that hit, and, as EG3D does,
        the largest *near* as its far; when all miss, half a side around the origin's distance.
    """
    tiny = torch.finfo(directions.dtype).tiny
    safe = torch.where(directions.abs() < tiny, torch.full_like(directions, tiny), directions)
    first, second = (-side / 2 - origins) / safe, (side / 2 - origins) / safe
    near = torch.minimum(first, second).amax(-1)
    far = torch.maximum(first, second).amin(-1)
    hit = near < far
    lowest = torch.where(hit, near, torch.inf).amin()
    highest = torch.where(hit, near, -torch.inf).amax()
    distance = origins.norm(dim=-1)
    near_miss = torch.where(lowest.isfinite(), lowest, distance - side / 2)
    far_miss = torch.where(highest.isfinite(), highest, distance + side / 2)
    return torch.where(hit, near, near_miss), torch.where(hit, far, far_miss)


def sphere_limits(
    origins: Tensor, directions: Tensor, radius: float, near: Tensor, far: Tensor
) -> tuple[Tensor, Tensor]:
    """The part of [near, far] inside a sphere around the origin.

    A ray that misses keeps a span of a hundredth of the radius around its closest approach: it stays a ray.
    Args:
        origins, directions (unit): [B, R, 3]; near, far: [B, R].
    """
    middle = -(origins * directions).sum(-1)
    closest = (origins * origins).sum(-1) - middle * middle
    half = (radius * radius - closest).clamp_min(1e-4 * radius * radius).sqrt()
    start = torch.minimum(torch.maximum(middle - half, near), far)
    end = torch.maximum(torch.minimum(middle + half, far), near)
    thin = (end - start) < 1e-3 * radius
    return torch.where(thin, middle - 0.005 * radius, start), torch.where(thin, middle + 0.005 * radius, end)


def limits(
    origins: Tensor, directions: Tensor, near: Bound, far: Bound, side: float, radius: float | None
) -> tuple[Tensor, Tensor]:
    """Near and far per ray, [B, R], detached: where to sample is not something to differentiate.

    Args:
        near, far: numbers, tensors that broadcast to [B, R], or both "auto" (the box of that side).
        radius: not None bounds the result by a sphere as well.
    """
    with torch.no_grad():
        shape = origins.shape[:2]
        if isinstance(near, str) or isinstance(far, str):
            if near != "auto" or far != "auto":
                raise ValueError(f'near and far are numbers, tensors or "auto", got {near!r} and {far!r}.')
            start, end = box_limits(origins, directions, side)
        else:
            start, end = (torch.as_tensor(v, dtype=origins.dtype, device=origins.device) for v in (near, far))
            try:
                start, end = start.expand(shape), end.expand(shape)
            except RuntimeError:
                got = f"{list(start.shape)} and {list(end.shape)}"
                raise ValueError(f"near and far have to broadcast to {list(shape)}, got {got}.") from None
        if radius is not None:
            start, end = sphere_limits(origins, directions, radius, start, end)
        return start.contiguous(), end.contiguous()
