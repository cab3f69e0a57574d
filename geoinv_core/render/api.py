"""`render` and `query`: checks, defaults and what happens after the samples are summed."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from geoinv_core.render import ops
from geoinv_core.render.field import Field, Rendered
from geoinv_core.render.march import March, Sums
from geoinv_core.render.rays import Bound, limits

Jitter = Literal["mid", "zero", "random"] | tuple[Tensor, Tensor | None]
SKIP = 1e-6
"""Share of a picture below which a sample is left out: at most 1e-4 of the range over 96 samples."""
SAMPLINGS = ("importance", "uniform", "sphere", "disparity")


def _check_points(field: Field, name: str, points: Tensor) -> None:
    if points.dim() != 3 or points.shape[2] != 3 or points.shape[0] != field.batch:
        raise ValueError(f"{name} has to be [{field.batch}, N, 3] here, got {list(points.shape)}.")
    if points.dtype != field.planes.dtype or points.device != field.planes.device:
        raise ValueError(
            f"{name} is {points.dtype} on {points.device}, but the planes are {field.planes.dtype} on "
            f"{field.planes.device}."
        )


def _draws(
    jitter: Jitter,
    shape: torch.Size,
    counts: tuple[int, int],
    like: Tensor,
    generator: torch.Generator | None,
) -> tuple[float, Tensor | None, Tensor | None]:
    """Jitter of all coarse samples, or a tensor of jitters; u of the fine ones, or None for even ones."""
    coarse, fine = counts
    dtype, device = like.dtype, like.device
    if isinstance(jitter, tuple):
        first, second = jitter
        if first.shape != (*shape, coarse) or (fine and (second is None or second.shape != (*shape, fine))):
            raise ValueError(f"jitter tensors have to be {[*shape, coarse]} and {[*shape, fine]}.")
        return 0.0, first.to(like), second.to(like) if fine and second is not None else None
    if jitter == "mid":
        return 0.5, None, None
    if jitter == "zero":
        u = torch.linspace(0, 1, fine, dtype=dtype, device=device) if fine else None
        return 0.0, None, None if u is None else u.expand(*shape, fine)
    if jitter == "random":
        first = torch.rand((*shape, coarse), generator=generator, dtype=dtype, device=device)
        second = torch.rand((*shape, fine), generator=generator, dtype=dtype, device=device) if fine else None
        return 0.0, first, second
    raise ValueError(f'jitter has to be "mid", "zero", "random" or a pair of tensors, got {jitter!r}.')


def render(
    field: Field,
    origins: Tensor,
    directions: Tensor,
    near: Bound = "auto",
    far: Bound = "auto",
    samples: tuple[int, int] = (48, 48),
    jitter: Jitter = "mid",
    sampling: str = "importance",
    backend: str = "auto",
    radius: float | None = None,
    return_weights: bool = False,
    exact: bool = False,
    generator: torch.Generator | None = None,
) -> Rendered:
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
        exact: evaluate also the samples whose share of the picture is below a millionth.
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
    job = March(
        origins,
        directions,
        start,
        end,
        *draws[1:],
        coarse,
        fine,
        sampling == "disparity",
        draws[0],
        0.0 if exact else SKIP,
        return_weights,
    )
    rendered = finish(field, ops.march(field, job, backend))
    _check_finite(field, rendered, (origins, directions, start, end))
    return rendered


def finish(field: Field, sums: Sums) -> Rendered:
    """Sums to results: background, sign, mean depth within the depths of the whole call."""
    total, depth, opacity = sums.total, sums.depth, sums.opacity
    if field.white_back:
        total = total + (1 - opacity).unsqueeze(-1)
    if field.signed:
        total = total * 2 - 1
    if opacity.numel():
        seen = opacity > 0
        depth = torch.where(seen, depth / torch.where(seen, opacity, 1.0), torch.inf)
        depth = torch.minimum(torch.maximum(depth, sums.extent.amin()), sums.extent.amax())
    kept = sums.weights.dim() == 3
    return Rendered(total, depth, opacity, sums.weights if kept else None, sums.depths if kept else None)


def _check_finite(field: Field, rendered: Rendered, rays: tuple[Tensor, ...]) -> None:
    """Raises ValueError that names what is not a number. On a GPU it waits for the picture to be done."""
    device = rendered.features.device.type
    if device == "meta" or torch.compiler.is_compiling():
        return
    if device == "cuda" and torch.cuda.is_current_stream_capturing():
        return  # a graph is recorded: there are no numbers yet
    results = [t.detach() for t in (rendered.features, rendered.depth, *rays) if t.numel()]
    # A sum is quick and waits once; a large one may overflow over numbers that are all finite.
    if not results or torch.stack([t.sum() for t in results]).sum().isfinite():
        return
    if all(t.isfinite().all() for t in results):
        return
    decoder = (field.w1, field.b1, field.w2, field.b2, field.beta)
    parts = {"rays": rays, "planes": (field.planes,), "decoder": decoder}
    bad = [name for name, tensors in parts.items() if not all(t.isfinite().all() for t in tensors)]
    named = " and ".join(bad or ["values on the way"])
    raise ValueError(f"The picture cannot be trusted: the {named} hold NaN or inf.")


def query(field: Field, points: Tensor, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """Field values at points.

    Args:
        points: [B, N, 3] world.
    Returns: raw density, or signed distance in world units for an "sdf" field, [B, N, 1]; activated features
        [B, N, F] (before `signed`). Neither crop nor white_back applies. When the points require a gradient,
        the result is differentiable twice in them, as an eikonal loss on the normals needs.
    """
    _check_points(field, "points", points)
    return ops.look(field, points, backend)
