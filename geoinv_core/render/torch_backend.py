"""The renderer in plain PyTorch, in chunks: the reference of the other backends, and what runs without them.

Quadrature and importance sampling do what EG3D's do (written from a description of their behaviour): coarse
depths, fine ones drawn from the smoothed coarse weights, all sorted and marched once over midpoints, whose
raw densities are averaged before the density rule.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as fn

from geoinv_core.render.field import Field
from geoinv_core.render.lookup import channels_last, plane_features
from geoinv_core.render.march import Gradients, March, Sums, Wanted

CHUNK_POINTS = 1 << 14
"""Points decoded at once: small enough for the caches, large enough to hide PyTorch's overhead."""
BACK_POINTS = 1 << 16
"""As many on the way back, where each chunk clears and adds a gradient of all planes."""


def activate(field: Field, x: Tensor) -> Tensor:
    if field.activation == "sigmoid":
        return torch.sigmoid(x) * 1.002 - 0.001
    if field.activation == "lrelu":
        return fn.leaky_relu(x, 0.2) * math.sqrt(2.0)
    return x


def density_of(field: Field, raw: Tensor) -> Tensor:
    """Raw (mid-point) values to density per world unit, >= 0."""
    if field.density == "softplus":
        return fn.softplus(raw - 1)
    if field.density == "sdf":
        return torch.sigmoid(-raw / field.beta) / field.beta
    return raw.clamp_min(0)


def raw_of(field: Field, row0: Tensor, points: Tensor) -> Tensor:
    """Decoder row 0 [..., 1] to raw density, or signed distance in world units."""
    if field.density != "sdf":
        return row0
    # The root of the sum, not norm(): its second derivative at the origin is finite with the small constant.
    length = (points.square().sum(-1, keepdim=True) + 1e-20).sqrt()
    return field.distance_scale * row0 + (length - field.distance_radius)


def decode(
    field: Field, batch: int, points: Tensor, maps: Tensor, smooth: bool = False
) -> tuple[Tensor, Tensor]:
    """Raw density or distance [N, 1] and features [N, F] at world points [N, 3] of one batch entry."""
    mean = plane_features(field.planes[batch], maps, points, smooth)
    out = fn.linear(fn.softplus(fn.linear(mean, field.w1, field.b1)), field.w2, field.b2)
    return raw_of(field, out[:, :1], points), activate(field, out[:, 1:])


def decode_for_march(field: Field, batch: int, points: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """As `decode`, with the crop of PanoHead, which applies to rendering only."""
    raw, features = decode(field, batch, points, maps)
    if field.crop is not None:
        limit = field.box_warp / 2 - field.crop
        inside = (points[:, 0:1].abs() <= limit) & (points[:, 2:3].abs() <= limit)
        raw = torch.where(inside, raw, torch.full_like(raw, -1e3))
    return raw, features


def coarse_depths(near: Tensor, far: Tensor, count: int, jitter: Tensor | float, disparity: bool) -> Tensor:
    """[R, count] from near, far [R]; jitter in steps, [R, count] or a number."""
    t = torch.arange(count, dtype=near.dtype, device=near.device) / (count - 1)
    near, far = near.unsqueeze(-1), far.unsqueeze(-1)
    if disparity:
        t = t + jitter / (count - 1)
        return 1 / ((1 - t) / near + t / far)
    # Counted from the nearer end with one rounding (a fused multiply-add), as torch.linspace does in EG3D:
    # the planes of a real model make 1e-4 of a different last bit.
    step = (far - near) / (count - 1)
    index = torch.arange(count, dtype=torch.float64, device=near.device)
    first, last, stride = near.double(), far.double(), step.double()
    even = torch.where(index < count // 2, first + stride * index, last - stride * (count - 1 - index)).to(
        near
    )
    return even + jitter * step


def march_weights(field: Field, raw: Tensor, depths: Tensor) -> Tensor:
    """Weight of every interval, [R, n - 1], from raw values and sorted depths [R, n]."""
    step = depths[:, 1:] - depths[:, :-1]
    middle = (raw[:, 1:] + raw[:, :-1]) * 0.5
    alpha = 1 - torch.exp(-density_of(field, middle) * step)
    through = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha + 1e-10], 1), 1)[:, :-1]
    return alpha * through


def fine_depths(depths: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Depths drawn from the smoothed coarse weights, in the order of u.

    Args:
        depths: [R, n]; weights: [R, n - 1]; u: [R, m] in 0..1.
    Returns: [R, m].
    """
    smooth = fn.avg_pool1d(fn.max_pool1d(weights.unsqueeze(1), 2, 1, padding=1), 2, 1).squeeze(1) + 0.01
    bins = (depths[:, 1:] + depths[:, :-1]) * 0.5
    mass = smooth[:, 1:-1] + 1e-5
    cdf = torch.cumsum(mass / mass.sum(-1, keepdim=True), -1)
    cdf = torch.cat([torch.zeros_like(cdf[:, :1]), cdf], -1)
    index = torch.searchsorted(cdf, u, right=True)
    below = (index - 1).clamp_min(0)
    above = index.clamp_max(cdf.shape[1] - 1)
    cdf_low, cdf_high = cdf.gather(1, below), cdf.gather(1, above)
    low, high = bins.gather(1, below), bins.gather(1, above)
    span = cdf_high - cdf_low
    span = torch.where(span < 1e-5, torch.ones_like(span), span)
    return low + (u - cdf_low) / span * (high - low)


def render_chunk(
    field: Field,
    batch: int,
    maps: Tensor,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    counts: tuple[int, int],
    jitter: tuple[Tensor | float, Tensor | None],
    disparity: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """March R rays of one batch entry.

    Args:
        origins, directions: [R, 3]; near, far: [R]; jitter: coarse [R, nc] or a number, fine u
            [R, nf] or None.
    Returns: sum of w c [R, F], sum of w z [R], sum of w [R], sorted depths [R, n], weights [R, n - 1].
    """
    R, (coarse, fine) = origins.shape[0], counts

    def look(z: Tensor) -> tuple[Tensor, Tensor]:
        points = origins.unsqueeze(1) + z.unsqueeze(-1) * directions.unsqueeze(1)
        raw, features = decode_for_march(field, batch, points.reshape(-1, 3), maps)
        return raw.view(R, -1), features.view(R, z.shape[1], -1)

    z = coarse_depths(near, far, coarse, jitter[0], disparity)
    raw, features = look(z)
    if fine:
        with torch.no_grad():
            u = jitter[1]
            if u is None:
                u = ((torch.arange(fine, dtype=z.dtype, device=z.device) + 0.5) / fine).expand(R, fine)
            z_fine = fine_depths(z, march_weights(field, raw, z), u.contiguous())
        raw_fine, features_fine = look(z_fine)
        z, order = torch.cat([z, z_fine], 1).sort(1)
        raw = torch.cat([raw, raw_fine], 1).gather(1, order)
        features = torch.cat([features, features_fine], 1)
        features = features.gather(1, order.unsqueeze(-1).expand(-1, -1, features.shape[-1]))
    weights = march_weights(field, raw, z)
    # Sum of w times mid-point = sum of feature times the mean of the two weights around it: one tensor fewer.
    share = fn.pad(weights, (1, 0)) + fn.pad(weights, (0, 1))
    total = torch.bmm(share.unsqueeze(1) * 0.5, features).squeeze(1)
    depth = (weights * (z[:, 1:] + z[:, :-1])).sum(1) * 0.5
    return total, depth, weights.sum(1), z, weights


def _lying(field: Field) -> Field:
    return replace(field, planes=channels_last(field.planes))


def _chunks(march: March, points: int) -> list[tuple[int, slice]]:
    B, R = march.origins.shape[:2]
    rays = max(1, points // max(march.coarse, march.fine))
    return [(b, slice(first, first + rays)) for b in range(B) for first in range(0, R, rays)]


def _march_part(
    field: Field, maps: Tensor, march: March, part: tuple[int, slice], origins: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    u = (
        march.jitter if march.u_coarse is None else march.u_coarse[part],
        None if march.u_fine is None else march.u_fine[part],
    )
    return render_chunk(
        field,
        part[0],
        maps,
        origins[part],
        directions[part],
        march.near[part],
        march.far[part],
        (march.coarse, march.fine),
        u,
        march.disparity,
    )


def render(field: Field, march: March) -> Sums:
    """Differentiable when gradients are on; memory then grows with the samples (see `render_back`)."""
    field, maps = _lying(field), field.plane_maps()
    B, R = march.origins.shape[:2]
    F, n = field.feature_count, march.coarse + march.fine
    parts = [
        _march_part(field, maps, march, p, march.origins, march.directions)
        for p in _chunks(march, CHUNK_POINTS)
    ]
    if not parts:
        zero = march.origins.new_zeros
        kept = (zero(B, 0, n - 1), zero(B, 0, n)) if march.keep else (zero(0), zero(0))
        return Sums(zero(B, 0, F), zero(B, 0), zero(B, 0), zero(B, 0, 2), *kept)
    total, depth, opacity = (torch.cat([p[k] for p in parts]) for k in range(3))
    extent = torch.cat([p[3][:, :: n - 1].detach() for p in parts])
    if march.keep:
        depths, weights = (torch.cat([p[k].detach() for p in parts]).view(B, R, -1) for k in (3, 4))
    else:
        depths, weights = total.new_empty(0), total.new_empty(0)
    return Sums(
        total.view(B, R, F), depth.view(B, R), opacity.view(B, R), extent.view(B, R, 2), weights, depths
    )


def _leaves(field: Field, wanted: Wanted) -> tuple[Field, dict[str, Tensor]]:
    """The field with fresh leaves where a gradient is wanted."""
    names = ["planes"] * wanted.planes + ["w1", "b1", "w2", "b2"] * wanted.decoder + ["beta"] * wanted.beta
    leaves = {name: getattr(field, name).detach().requires_grad_() for name in names}
    changed: dict[str, Any] = dict(leaves)
    return replace(field, **changed), leaves


def _gather(leaves: dict[str, Tensor]) -> Gradients:
    return Gradients(**{k: torch.zeros_like(v) if v.grad is None else v.grad for k, v in leaves.items()})


def render_back(field: Field, march: March, g: Sums, wanted: Wanted) -> Gradients:
    """Gradients chunk by chunk, each computed again: memory does not grow with the rays."""
    with torch.enable_grad():
        field, leaves = _leaves(_lying(field), wanted)
        maps = field.plane_maps()
        if wanted.rays:
            leaves |= {k: getattr(march, k).detach().requires_grad_() for k in ("origins", "directions")}
        origins, directions = leaves.get("origins", march.origins), leaves.get("directions", march.directions)
        for part in _chunks(march, BACK_POINTS):
            total, depth, opacity, _, _ = _march_part(field, maps, march, part, origins, directions)
            torch.autograd.backward([total, depth, opacity], [g.total[part], g.depth[part], g.opacity[part]])
        return _gather(leaves)


def query(field: Field, points: Tensor) -> tuple[Tensor, Tensor]:
    """See `render.query`. Twice differentiable in the points when they require a gradient."""
    field, maps = _lying(field), field.plane_maps()
    smooth = points.requires_grad and torch.is_grad_enabled()
    raws, colours = [], []
    for b in range(field.batch):
        parts = [decode(field, b, chunk, maps, smooth) for chunk in torch.split(points[b], CHUNK_POINTS)]
        raws.append(torch.cat([p[0] for p in parts]))
        colours.append(torch.cat([p[1] for p in parts]))
    return torch.stack(raws), torch.stack(colours)


def query_raw(field: Field, points: Tensor) -> Tensor:
    """Row 0 only: [B, N, 3] to [B, N], without gradients, a third of the work of `query`."""
    field, maps = _lying(field), field.plane_maps()
    out = points.new_empty(points.shape[:2])
    with torch.no_grad():
        for b in range(field.batch):
            for start in range(0, points.shape[1], CHUNK_POINTS):
                chunk = points[b, start : start + CHUNK_POINTS]
                mean = plane_features(field.planes[b], maps, chunk)
                row0 = fn.linear(fn.softplus(fn.linear(mean, field.w1, field.b1)), field.w2[:1], field.b2[:1])
                out[b, start : start + CHUNK_POINTS] = raw_of(field, row0, chunk)[:, 0]
    return out
