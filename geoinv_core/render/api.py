"""`render`, `query` and `sample_grid`: checks, defaults and what happens after the samples are summed."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from geoinv_core.render import torch_backend
from geoinv_core.render.field import Field, Rendered
from geoinv_core.render.rays import Bound, limits

Jitter = Literal["mid", "zero", "random"] | tuple[Tensor, Tensor | None]
SAMPLINGS = ("importance", "uniform", "sphere", "disparity")


def _check_points(field: Field, name: str, points: Tensor) -> None:
    if points.dim() != 3 or points.shape[2] != 3 or points.shape[0] != field.batch:
        raise ValueError(f"{name} has to be [{field.batch}, N, 3] here, got {list(points.shape)}.")
    if points.dtype != field.planes.dtype or points.device != field.planes.device:
        raise ValueError(
            f"{name} is {points.dtype} on {points.device}, but the planes are {field.planes.dtype} on "
            f"{field.planes.device}."
        )


def _draws(jitter: Jitter, shape: torch.Size, counts: tuple[int, int], like: Tensor,
           generator: torch.Generator | None) -> tuple[Tensor | float, Tensor | None]:
    coarse, fine = counts
    if isinstance(jitter, tuple):
        first, second = jitter
        if first.shape != (*shape, coarse) or (fine and (second is None or second.shape != (*shape, fine))):
            raise ValueError(f"jitter tensors have to be {[*shape, coarse]} and {[*shape, fine]}.")
        return first.to(like), second.to(like) if fine and second is not None else None
    dtype, device = like.dtype, like.device
    if jitter == "mid":
        return 0.5, None
    if jitter == "zero":
        u = torch.linspace(0, 1, fine, dtype=dtype, device=device) if fine else None
        return 0.0, None if u is None else u.expand(*shape, fine)
    if jitter == "random":
        first = torch.rand((*shape, coarse), generator=generator, dtype=dtype, device=device)
        second = torch.rand((*shape, fine), generator=generator, dtype=dtype, device=device) if fine else None
        return first, second
    raise ValueError(f'jitter has to be "mid", "zero", "random" or a pair of tensors, got {jitter!r}.')


def render(field: Field, origins: Tensor, directions: Tensor, near: Bound = "auto", far: Bound = "auto",
           samples: tuple[int, int] = (48, 48), jitter: Jitter = "mid", sampling: str = "importance",
           backend: str = "auto", radius: float | None = None, return_weights: bool = False,
           generator: torch.Generator | None = None) -> Rendered:
    """March rays through a field; differentiable in planes, decoder, beta, origins and directions.

    Args:
        field: B planes.
        origins, directions: [B, R, 3] world; directions of unit length.
        near, far: where to sample, world units along the ray: numbers, tensors that broadcast to [B, R], or
            "auto" for the box.
        samples: (coarse, fine). Fine ones are drawn from the smoothed coarse weights, without a gradient.
        jitter: "mid" (half a step, u = (i + .5) / n), "zero", "random" (inside each step; `generator` seeds
            it), or the draws themselves, ([B, R, coarse], [B, R, fine]) in 0..1.
        sampling: "importance"; "uniform" (coarse + fine samples in one even pass); "sphere" (importance, near
            and far cut to a sphere of `radius`, half the box by default); "disparity" (coarse ones even in
            1 / depth).
        backend: "auto", "cuda", "cpu" or "torch".
        return_weights: also return the weights and depths of every sample.
    Raises: ValueError for shapes, dtypes, devices or names that do not fit.
    """
    _check_points(field, "origins", origins)
    _check_points(field, "directions", directions)
    if origins.shape != directions.shape:
        raise ValueError(f"origins {list(origins.shape)} and directions {list(directions.shape)} differ.")
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling has to be one of {', '.join(SAMPLINGS)}, got {sampling!r}.")
    coarse, fine = samples
    if sampling == "uniform":
        coarse, fine = coarse + fine, 0
    if coarse < (4 if fine else 2) or fine < 0:
        raise ValueError(f"samples has to hold at least 2 coarse ones (4 with fine ones), got {samples}.")
    if sampling == "sphere":
        radius = field.box_warp / 2 if radius is None else radius
    elif radius is not None:
        raise ValueError('radius is used by sampling="sphere" only.')
    start, end = limits(origins, directions, near, far, field.box_warp, radius)
    draws = _draws(jitter, origins.shape[:2], (coarse, fine), origins, generator)
    counts, disparity = (coarse, fine), sampling == "disparity"
    return _march(field, origins, directions, start, end, counts, draws, disparity, return_weights)


def _march(field: Field, origins: Tensor, directions: Tensor, near: Tensor, far: Tensor,
           counts: tuple[int, int], draws: tuple[Tensor | float, Tensor | None], disparity: bool, keep: bool
           ) -> Rendered:
    maps = field.plane_maps()
    rays = max(1, torch_backend.CHUNK_POINTS // max(counts))
    parts: list[tuple[Tensor, ...]] = []
    B, R = origins.shape[:2]
    for b in range(B):
        for first in range(0, R, rays):
            cut = (b, slice(first, first + rays))
            u = (draws[0][cut] if isinstance(draws[0], Tensor) else draws[0],
                 None if draws[1] is None else draws[1][cut])
            parts.append(torch_backend.render_chunk(
                field, b, maps, origins[cut], directions[cut], near[cut], far[cut], counts, u, disparity))
    if not parts:
        empty = origins.new_zeros(B, 0)
        return Rendered(origins.new_zeros(B, 0, field.feature_count), empty, empty)
    joined = [torch.cat([p[k] for p in parts]) for k in range(5)]
    total, depth, opacity, z, weights = (t.view(B, R, *t.shape[1:]) for t in joined)
    return finish(field, total, depth, opacity, z, weights if keep else None)


def finish(field: Field, total: Tensor, depth: Tensor, opacity: Tensor, z: Tensor, weights: Tensor | None
           ) -> Rendered:
    """Sums to results: background, sign, mean depth. z: anything whose extremes are those of all depths."""
    if field.white_back:
        total = total + (1 - opacity).unsqueeze(-1)
    if field.signed:
        total = total * 2 - 1
    seen = opacity > 0
    depth = torch.where(seen, depth / torch.where(seen, opacity, 1.0), torch.inf)
    low, high = z.detach().amin(), z.detach().amax()
    depth = torch.minimum(torch.maximum(depth, low), high)
    return Rendered(total, depth, opacity, None if weights is None else weights.detach(),
                    None if weights is None else z.detach())


def query(field: Field, points: Tensor, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """Field values at points.

    Args:
        points: [B, N, 3] world.
    Returns: raw density, or signed distance in world units for an "sdf" field, [B, N, 1]; activated features
        [B, N, F] (before `signed`). Neither crop nor white_back applies. When the points require a gradient,
        the result is differentiable twice in them, as an eikonal loss on the normals needs.
    """
    _check_points(field, "points", points)
    return torch_backend.query(field, points)


def lattice(field: Field, resolution: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[resolution] coordinates of an aligned lattice: both ends lie on the faces of the box."""
    half = field.box_warp / 2
    return torch.linspace(-half, half, resolution, dtype=torch.float64).to(device, dtype)


def sample_grid(field: Field, resolution: int, backend: str = "auto") -> Tensor:
    """Raw density, or signed distance, on an aligned lattice over the box.

    Args:
        resolution: points per axis, at least 2; coordinate i is -side / 2 + i * side / (resolution - 1).
    Returns: [B, resolution, resolution, resolution], indexed [x, y, z]; no gradient.
    """
    if resolution < 2:
        raise ValueError(f"resolution has to be at least 2, got {resolution}.")
    axis = lattice(field, resolution, field.planes.dtype, field.planes.device)
    field = field.detach()
    out = field.planes.new_empty(field.batch, resolution, resolution, resolution)
    y, z = torch.meshgrid(axis, axis, indexing="ij")
    for i in range(resolution):
        points = torch.stack([axis[i].expand_as(y), y, z], -1).reshape(1, -1, 3).expand(field.batch, -1, -1)
        out[:, i] = torch_backend.query_raw(field, points).view(field.batch, resolution, resolution)
    return out
