"""Planes that read the same two coordinates are one plane, whose texels are added up once.

EG3D's own axes hold such a pair, (x, z) and (z, x), so a third of all reads falls away.
"""

from __future__ import annotations

import weakref
from dataclasses import replace

import torch
from torch import Tensor

from geoinv_core.render.field import Field

Reading = tuple[int, bool]
"""Which plane a plane can be added to, and whether with rows and columns exchanged."""


def readings(field: Field) -> list[Reading]:
    """For every plane the first one that reads the same coordinates: itself, if there is none before it."""
    maps = [list(zip(*m, strict=True)) for m in field.plane_maps().tolist()]  # columns: u, v, third
    square = field.planes.shape[-1] == field.planes.shape[-2]
    flat = field.planes.dim() == 5

    def same(p: int, q: int) -> Reading | None:
        (u, v, w), (s, t, r) = maps[p], maps[q]
        if flat or w == r:
            if (u, v) == (s, t):
                return q, False
            if (u, v) == (t, s) and square:
                return q, True
        return None

    found = []
    for p in range(len(maps)):
        earlier = (same(p, q) for q in range(p))
        found.append(next((r for r in earlier if r is not None), (p, False)))
    return found


_last: tuple[weakref.ref[Tensor], list[Reading], Tensor] | None = None


def merged(field: Field, rows: Tensor) -> tuple[Field, Tensor]:
    """The same field with fewer planes, where some read the same coordinates; not for gradients of planes.

    The last result is kept for as long as its rows live.

    Args: rows: the planes [B, P, texels, channels] as `job.pack` gives them.
    """
    global _last
    reads = readings(field)
    kept = [p for p, (at, _) in enumerate(reads) if at == p]
    if len(kept) == len(reads):
        return field, rows
    share = len(kept) / len(reads)  # features are the mean over the planes
    shape_only = field.planes[:, : len(kept)]  # not read, and a copy takes as long as a picture
    fewer = replace(field, planes=shape_only, axes=field.axes[kept], w1=field.w1 * share)
    if _last is not None and _last[0]() is rows and _last[1] == reads:
        return fewer, _last[2]
    total = rows.new_empty(rows.shape[0], len(kept), *rows.shape[2:])
    texels = (rows.shape[0], *field.planes.shape[3:], rows.shape[-1])
    for k, first in enumerate(kept):
        to, own = total[:, k].view(texels), rows[:, first].view(texels)
        also = [(rows[:, p].view(texels), turned) for p, (at, turned) in enumerate(reads) if at == first != p]
        if not also:
            to.copy_(own)
        for other, turned in also:
            torch.add(own, other.transpose(-2, -3) if turned else other, out=to)
            own = to
    _last = weakref.ref(rows), reads, total
    return fewer, total
