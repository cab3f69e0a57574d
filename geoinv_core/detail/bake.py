"""Changes of colour into extra channels of a field, which every renderer draws without knowing of them.

A side's texels stand on the plane across its axis, so both ends of the head would show them. A gate keeps
them apart: with u well above zero on the side's own half of the head and well below on the other one,
softplus(x + u) - softplus(u) is x there and nothing here, and it is nothing everywhere where x is zero. So
the decoder gets hidden units of its own for the sides and stays as it was for all else: the row of the
density has no weight on them, and geometry does not change at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad, softplus

from geoinv_core.detail.sides import Side, sides_of
from geoinv_core.detail.tint import tinted
from geoinv_core.render import Field

GATE = 12.0
_RAMP = 0.04
"""World units from the middle to a fully open gate."""


@dataclass(frozen=True, eq=False)
class Texture:
    """The detail of one head: plain data, kept with it."""

    change: Tensor
    """[S, 3, R, R] logits of sRGB, in the layout of each side's plane, shared out over the sides"""
    height: Tensor
    """[S, R, R] where the surface is along the plane's third coordinate, -1..1"""
    middle: Tensor
    """[S] world coordinate at which a side's half of the head ends"""
    tint: Tensor
    """[3, 4] what all colours of the head, in logits, go through before (`detail.tint`)"""


def heights(points: Tensor, field: Field, sides: list[Side]) -> Tensor:
    """Third plane coordinates [S, R, R] of upright points [S, 3, R, R], laid out like the planes."""
    maps = field.plane_maps()
    return torch.stack(
        [
            s.laid(torch.einsum("xhw,x->hw", p, maps[s.plane, :, 2]))
            for s, p in zip(sides, points, strict=True)
        ]
    )


def fade(height: Tensor, depth: int) -> Tensor:
    """What a tri-grid of equal slices leaves of a value at a third coordinate: it fades out beyond the
    outermost slices, being zero outside. `depth` 0: a plain plane."""
    if not depth:
        return torch.ones_like(height)
    return (1 - (height.abs() - 1 + 1 / depth) * depth / 2).clamp(0.25, 1)


def bake(field: Field, texture: Texture) -> Field:
    """The colour field of a head (rows: density, lit colour, unlit colour if any) with its detail.

    Raises: ValueError for a field whose colours are no sigmoids, or that has no such sides.
    """
    sides = sides_of(field)
    if field.activation != "sigmoid" or len(sides) != len(texture.change):
        raise ValueError("Detail is for fields with sigmoid colours and the sides that it was made for.")
    field = tinted(field, texture.tint)
    B, P, C = field.planes.shape[:3]
    shape = field.planes.shape[3:]
    depth = shape[0] if len(shape) == 3 else 0
    S, outputs = len(sides), field.w2.shape[0]
    axes = sorted({s.axis for s in sides})
    extra = field.planes.new_zeros(P, 3 * S + len(axes), *shape[-2:])
    change = texture.change.to(extra) / fade(texture.height.to(extra), depth)[:, None]
    for i, s in enumerate(sides):
        extra[s.plane, 3 * i : 3 * i + 3] = change[i]
    for k, axis in enumerate(axes):
        i = next(i for i, s in enumerate(sides) if s.axis == axis)
        plane, gate = _gate(field, axis, texture.middle[i].to(extra))
        extra[plane, 3 * S + k] = gate
    if depth:
        extra = extra[:, :, None].expand(-1, -1, depth, -1, -1)
    planes = torch.cat([field.planes, extra.expand(B, *extra.shape)], 2)

    # a mean over the planes is P times less than what stands on one of them
    w1, w2 = field.w1.new_zeros(4 * S, extra.shape[1]), field.w2.new_zeros(outputs, 4 * S)
    for i, s in enumerate(sides):
        rows = slice(4 * i, 4 * i + 4)
        w1[rows, 3 * S + axes.index(s.axis)] = s.sign * P
        for k in range(3):
            w1[4 * i + k, 3 * i + k] = P
            for row in range(1 + k, outputs, 3):  # lit, and unlit where there is one
                w2[row, 4 * i + k], w2[row, 4 * i + 3] = 1, -1
    hidden = field.w1.shape[0]
    first = torch.cat([pad(field.w1, (0, w1.shape[1])), pad(w1, (C, 0))])
    if first.shape != (hidden + 4 * S, C + extra.shape[1]):
        raise AssertionError(f"The widened decoder has the shape {tuple(first.shape)}.")
    return replace(
        field, planes=planes, w1=first, b1=pad(field.b1, (0, 4 * S)), w2=torch.cat([field.w2, w2], 1)
    )


def _gate(field: Field, axis: int, middle: Tensor) -> tuple[int, Tensor]:
    """A plane that runs along a world axis, and its gate [R, R]: -GATE..GATE, positive above `middle`."""
    half = field.box_warp / 2
    for p, axes in enumerate(field.axes.tolist()):
        for k in (0, 1):
            if abs(axes[k][axis]) == 1:
                R = field.planes.shape[-1 - k]
                at = ((torch.arange(R, device=middle.device) * 2 + 1) / R - 1) * half * axes[k][axis]
                ramp = GATE * ((at - middle) / _RAMP).clamp(-1, 1)
                H, W = field.planes.shape[-2:]
                return p, (ramp[None] if k == 0 else ramp[:, None]).expand(H, W)
    raise ValueError("No plane of this field runs along the axis.")


@dataclass(frozen=True, eq=False)
class Lookup:
    """Where points read a texture, and with which share: what `bake` makes the renderer do, for training."""

    at: Tensor
    """[S, N, 2] u, v"""
    gate: Tensor
    """[S, N] 0..1"""


def lookup(field: Field, middle: Tensor, points: Tensor) -> Lookup:
    """Of world points [N, 3]."""
    maps = field.plane_maps()
    sides = sides_of(field)
    at = torch.stack([points @ maps[s.plane, :, :2] for s in sides])
    u = torch.stack(
        [
            s.sign * GATE * ((points[:, s.axis] - m) / _RAMP).clamp(-1, 1)
            for s, m in zip(sides, middle, strict=True)
        ]
    )
    return Lookup(at, torch.sigmoid(u))


def read(change: Tensor, where: Lookup) -> Tensor:
    """change [S, 3, R, R] as the planes lie, at points: [N, 3] logits, differentiable."""
    found = grid_sample(change, where.at[:, :, None], align_corners=False)[..., 0]  # [S, 3, N]
    u = torch.logit(where.gate, 1e-7)[:, None]
    return (softplus(found + u) - softplus(u)).sum(0).T
