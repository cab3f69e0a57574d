"""Points with exact targets, taken from drawn pictures: no ray is marched, so a step is cheap on a CPU.

From a pixel with depth comes a surface point with colour, albedo and normal. Moved along its normal by t it
has
signed distance t; between camera and surface, and along rays that miss the head, space is empty.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from geoinv_core.camera import rays
from geoinv_core.train.dataset import DEPTH

TRUNCATION = 0.04  # distances are only trusted this near to the surface, world units
# Of heads.SEGMENTS: eyes, teeth, brows and lashes are few but matter.
_SEGMENT_WEIGHT = (0.0, 1.0, 4.0, 4.0, 2.0, 4.0, 4.0, 1.0, 2.0)
_BEHIND = 3.0  # views from behind are few, and what stands there stands nowhere else
_AIR = 0.15  # share of pixels far from the head, where nothing may float
_BOX = 0.49
_CHANGED_ALBEDO = 10  # of 255
_CHANGED_DEPTH = 0.0025  # world units, 1 mm


@dataclass(frozen=True)
class Points:
    """A batch of supervised points, world units; colours sRGB 0..1."""

    surface: Tensor
    """[B, S, 3] on or within a few millimetres of the surface"""
    distance: Tensor
    """[B, S] signed distance of those points"""
    colour: Tensor
    """[B, S, 6] lit rgb, albedo rgb"""
    near: Tensor
    """[B, N, 3] off the surface along its normal"""
    near_distance: Tensor
    """[B, N]"""
    free: Tensor
    """[B, E, 3] in empty space"""
    margin: Tensor
    """[B, E] at least this far from the surface"""
    core: Tensor
    """[B, I, 3] deep inside every head"""
    twins: int = 0
    """The first so many surface points of heads 2i and 2i + 1, variants of one head, are the same pixels'."""

    def to(self, device: torch.device | str) -> Points:
        return _moved(self, device)


def points_from_pictures(
    batch: dict[str, Tensor],
    surface: int,
    near: int,
    free: int,
    core: int,
    generator: torch.Generator | None = None,
    paired: bool = False,
) -> Points:
    """Random supervised points of a batch from `HeadSet.batch` (rgb, albedo, mask, depth, normal, segment,
    camera).

    paired: heads 2i and 2i + 1 are variants of one head. Half of the points go where the two differ, and half
    of the surface points are the same for both, so that the difference between the two can be supervised.
    """
    B, V, S = batch["mask"].shape[:3]

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    def gaussian(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def flat(key: str, channels: int) -> Tensor:
        return batch[key].reshape(B, V * S * S, channels)

    depth = batch["depth"].reshape(B, -1)
    mask = batch["mask"].reshape(B, -1)
    weight, solid = _importance(batch, paired)
    twins = surface // 2 if paired else 0
    origins, directions = rays(batch["camera"].reshape(B * V, 25), S)
    origins, directions = origins[:, 0].reshape(B, V, 3), directions.reshape(B, V * S * S, 3)
    away = depth_from(batch)[..., None]

    def take(x: Tensor, index: Tensor) -> Tensor:
        return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))

    def along(index: Tensor, at: Tensor) -> Tensor:
        view = index // (S * S)
        return take(origins, view) + take(directions, index) * (at[..., None] + take(away, view))

    index = torch.multinomial(weight, surface, replacement=True, generator=generator)
    if paired:
        both = weight[0::2] * solid[1::2]
        same = torch.multinomial(both, twins, replacement=True, generator=generator)
        index[:, :twins] = same.repeat_interleave(2, 0)
    distance = DEPTH[0] + depth.gather(1, index) * DEPTH[1]
    exact = along(index, distance)
    normal = take(flat("normal", 3), index).float() / 127
    colour = torch.cat([take(flat(k, 3), index) for k in ("rgb", "albedo")], -1).float() / 255
    t = gaussian(B, surface) * 0.003
    if paired:
        t[1::2, :twins] = t[0::2, :twins]
    # Points further off: a sample of the surface points, moved both ways.
    pick = torch.randint(surface, (B, near), generator=generator)
    off = (uniform(B, near) * 2 - 1) * 0.06
    moved = take(exact, pick) + take(normal, pick) * off[..., None]
    # Empty space: half before the surface, half along rays that miss.
    half = free // 2
    before = torch.randint(surface, (B, half), generator=generator)
    front = distance.gather(1, before)
    # Denser near the surface, where it shapes silhouettes and concavities.
    gap = 0.004 + (front - 2.2).clamp_min(0.02) * uniform(B, half) ** 3
    missed = torch.multinomial((mask == 0).float() + 1e-9, free - half, replacement=True, generator=generator)
    passing = 2.2 + 1.0 * uniform(B, free - half)
    empty = torch.cat([along(index.gather(1, before), front - gap), along(missed, passing)], 1)
    margin = torch.cat([(gap * 0.3).clamp(max=0.03), torch.full_like(passing, 0.012)], 1)
    margin = torch.where(empty.abs().amax(-1) < _BOX, margin, torch.full_like(margin, -1.0))
    inside = gaussian(B, core, 3)
    inside = inside / inside.norm(dim=-1, keepdim=True) * uniform(B, core, 1) ** (1 / 3)
    inside = inside * torch.tensor([0.09, 0.12, 0.10]) + torch.tensor([0.0, 0.02, -0.02])
    return Points(
        exact + normal * t[..., None],
        t,
        colour,
        moved,
        off.clamp(-TRUNCATION, TRUNCATION),
        empty,
        margin,
        inside,
        twins,
    )


@dataclass(frozen=True)
class Pixels:
    """A batch of rays and what their pixels show."""

    origins: Tensor
    """[B, R, 3] world units"""
    directions: Tensor
    """[B, R, 3], unit length"""
    colour: Tensor
    """[B, R, 6] lit rgb, albedo rgb, sRGB 0..1, black where nothing is"""
    mask: Tensor
    """[B, R] 0..1"""
    depth: Tensor
    """[B, R] along the ray, 0 where nothing is"""

    def to(self, device: torch.device | str) -> Pixels:
        return _moved(self, device)


Batch = TypeVar("Batch", Points, Pixels)


def random_pixels(
    batch: dict[str, Tensor], count: int, generator: torch.Generator | None = None, paired: bool = False
) -> Pixels:
    """Random pixels of a batch: two thirds where points would be taken, the others mostly around the head."""
    B, V, S = batch["mask"].shape[:3]
    weight, _ = _importance(batch, paired)
    mask = batch["mask"].reshape(B, V * S * S).float() / 255
    far = S // 16
    rows = max_pool2d(mask.view(B, V, S, S), (1, 2 * far + 1), 1, (0, far))
    near = max_pool2d(rows, (2 * far + 1, 1), 1, (far, 0)).reshape(B, -1)
    parts = ((weight, count - count // 3), (near + _AIR, count // 3))
    index = torch.cat([torch.multinomial(w, n, replacement=True, generator=generator) for w, n in parts], 1)
    origins, directions = rays(batch["camera"].reshape(B * V, 25), S)

    def take(x: Tensor) -> Tensor:
        flat = x.reshape(B, V * S * S, -1)
        return flat.gather(1, index[..., None].expand(-1, -1, flat.shape[-1]))

    shown = take(mask)
    colour = torch.cat([take(batch[k]) for k in ("rgb", "albedo")], -1).float() / 255 * shown
    code = take(batch["depth"])[..., 0]
    start = DEPTH[0] + depth_from(batch).gather(1, index // (S * S))
    depth = torch.where(code > 0, start + code * DEPTH[1], 0.0)
    return Pixels(take(origins), take(directions), colour, shown[..., 0], depth)


def _moved(x: Batch, device: torch.device | str) -> Batch:
    moved: dict[str, Any] = {k: v.to(device) for k, v in vars(x).items() if isinstance(v, Tensor)}
    return replace(x, **moved)


def _importance(batch: dict[str, Tensor], paired: bool) -> tuple[Tensor, Tensor]:
    """How often a pixel should be learnt from, and whether it shows the head at all, both [B, V S S]."""
    B = len(batch["mask"])
    solid = ((batch["depth"] > 0) & (batch["mask"] > 127)).reshape(B, -1)
    behind = 1 + (_BEHIND - 1) * (batch["camera"][..., 11] < 0).float()  # the camera's z, [B, V]
    weight = torch.tensor(_SEGMENT_WEIGHT)[batch["segment"].long()] * behind[..., None, None]
    weight = weight.reshape(B, -1) * solid
    return (_favour(weight, changed(batch).reshape(B, -1)) if paired else weight), solid


def depth_from(batch: dict[str, Tensor]) -> Tensor:
    """What is to be added to the depths of a batch's views: [B, V]."""
    usual = torch.zeros(batch["mask"].shape[:2])
    return batch.get("depth_from", usual)


def changed(batch: dict[str, Tensor]) -> Tensor:
    """Where a head and its variant look different to one camera: bool [B, V, S, S], the same for both."""

    def gap(key: str) -> Tensor:
        first, second = batch[key].int()[0::2], batch[key].int()[1::2]
        return (first - second).abs()

    moved = gap("depth") * DEPTH[1] > _CHANGED_DEPTH
    return (moved | (gap("albedo").amax(-1) > _CHANGED_ALBEDO)).repeat_interleave(2, 0)


def _favour(weight: Tensor, chosen: Tensor) -> Tensor:
    """weight [B, P] with the chosen entries raised until they hold half of the sum, at most 30-fold."""
    inside = (weight * chosen).sum(1, keepdim=True)
    factor = ((weight.sum(1, keepdim=True) - inside) / inside.clamp_min(1e-6)).clamp(1, 30)
    return torch.where(chosen, weight * factor, weight)
