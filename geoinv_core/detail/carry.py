"""Detail under edits: it goes where the generator's displacement fields take what stands on the planes.

E3DGE aligns the residual picture to the edited head with a network (its section 3.3). This generator says
itself what moves where: its planes are a fixed picture, flowing. What a place shows in two codes is compared
by the place it flowed from.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from geoinv_core.detail.bake import Lookup, Texture
from geoinv_core.detail.sides import Side
from geoinv_core.generator import TriplaneGenerator

_ROUNDS, _STRIDE = 12, 0.7
"""Of the fixed-point iteration that inverts a displacement, damped where it turns over itself."""


def origins(generator: TriplaneGenerator, ws: Tensor) -> Tensor:
    """Where the content of every texel of the planes came from, [P, 2, (D,) H, W]: u and v, -1..1."""
    k = generator.config
    R = k.plane_resolution
    at = (torch.arange(R, device=ws.device) * 2 + 1) / R - 1
    v, u = torch.meshgrid(at, at, indexing="ij")
    ramps = torch.stack([u, v])
    if k.plane_depth > 1:
        ramps = ramps[:, None].expand(2, k.plane_depth, R, R)
    ramps = ramps.expand(1, len(k.axes), *ramps.shape).contiguous()
    flow = generator.backbone.flow
    return (ramps if flow is None else flow(ramps, ws[:, 0]))[0]


def followed(now: Tensor, before: Tensor, at: Tensor, third: Tensor) -> Tensor:
    """Where on the plane, before an edit, stood what now is at a place.

    Args: now, before: [2, (D,) H, W], one plane of `origins`. at: [N, 2] u, v; third: [N].
    Returns: [N, 2].
    """
    wanted = _sample(now, at, third)
    place = at
    for _ in range(_ROUNDS):
        place = place + _STRIDE * (wanted - _sample(before, place, third))
    return place


def _sample(maps: Tensor, at: Tensor, third: Tensor) -> Tensor:
    if maps.dim() == 3:
        found = grid_sample(maps[None], at[None, None], padding_mode="border", align_corners=False)
        return found[0, :, 0].T
    where = torch.cat([at, third[:, None]], 1)[None, None, None]
    return grid_sample(maps[None], where, padding_mode="border", align_corners=False)[0, :, 0, 0].T


def carried(
    generator: TriplaneGenerator, sides: list[Side], texture: Texture, before: Tensor, now: Tensor
) -> Texture:
    """The texture of a head after its styles changed from `before` to `now`, both [1, L, w_dim]."""
    if generator.backbone.flow is None:
        return texture
    was, new = origins(generator, before), origins(generator, now)
    R = texture.change.shape[-1]
    at = (torch.arange(R, device=now.device) * 2 + 1) / R - 1
    v, u = torch.meshgrid(at, at, indexing="ij")
    at = torch.stack([u, v], -1).view(-1, 2)
    change, height = [], []
    for i, s in enumerate(sides):
        where = followed(new[s.plane], was[s.plane], at, texture.height[i].reshape(-1).to(at))
        both = torch.cat([texture.change[i], texture.height[i, None]]).to(at)
        moved = grid_sample(both[None], where.view(1, R, R, 2), align_corners=False)[0]
        change.append(moved[:3])
        height.append(moved[3])
    return replace(texture, change=torch.stack(change), height=torch.stack(height))


def carried_lookup(
    generator: TriplaneGenerator, sides: list[Side], where: Lookup, third: Tensor, before: Tensor, now: Tensor
) -> Lookup:
    """The same for points of the edited head: where in the unedited texture they read; third: [S, N] plane
    coordinates."""
    if generator.backbone.flow is None:
        return where
    was, new = origins(generator, before), origins(generator, now)
    at = [followed(new[s.plane], was[s.plane], where.at[i], third[i]) for i, s in enumerate(sides)]
    return replace(where, at=torch.stack(at))
