"""Renders a field on two backends and compares everything; used by the tests of every backend."""

from dataclasses import replace
from typing import Any

import torch

from geoinv_core import camera
from geoinv_core.render import Field, render

TENSORS = ("planes", "w1", "b1", "w2", "b2", "beta")

RULES = {
    "softplus": {"density": "softplus"},
    "sdf": {"density": "sdf", "distance_scale": 0.05, "distance_radius": 0.3},
    "raw": {"density": "raw", "activation": "none", "signed": False},
    "panohead": {"density": "softplus", "activation": "lrelu", "signed": False, "crop": 0.1},
}


def rays(batch: int, count: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` rays of a picture; a square number makes tiles, others a line."""
    cameras = torch.stack([camera.orbit(25 * b - 20, 12 - 7 * b) for b in range(batch)]).to(dtype)
    origins, directions = camera.rays(cameras, int(count**0.5 + 0.999))
    return origins[:, :count], directions[:, :count]


def values(
    field: Field,
    origins: torch.Tensor,
    directions: torch.Tensor,
    options: dict[str, Any],
    backend: str,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Outputs, and gradients of a fixed mix of them by every input."""
    leaves = {k: getattr(field, k).detach().clone().requires_grad_() for k in TENSORS}
    o, d = origins.detach().clone().requires_grad_(), directions.detach().clone().requires_grad_()
    out = render(replace(field, **leaves), o, d, backend=backend, **options)
    outputs = [out.features, out.depth, out.opacity]
    g = torch.Generator().manual_seed(3)
    mix = sum((t * torch.randn(t.shape, generator=g).to(t)).sum() for t in outputs)
    gradients = torch.autograd.grad(mix, [*leaves.values(), o, d], allow_unused=True, materialize_grads=True)
    return [t.detach() for t in outputs], list(gradients)


def compare(
    field: Field,
    origins: torch.Tensor,
    directions: torch.Tensor,
    options: dict[str, Any],
    forward: float = 2e-4,
    backward: float = 1e-3,
    backend: str = "cpu",
) -> None:
    """Raises AssertionError where `backend` and PyTorch differ."""
    a, ga = values(field, origins, directions, options, "torch")
    b, gb = values(field, origins, directions, options, backend)
    # A depth is a ratio: where almost nothing is seen its error has no bound.
    seen = a[2] > 0.01
    for name, x, y in zip(("features", "depth", "opacity"), a, b, strict=True):
        error = (x - y).abs()
        error = error[seen] if name == "depth" else error
        assert error.numel() == 0 or error.max() < forward, name
    for name, x, y in zip((*TENSORS, "origins", "directions"), ga, gb, strict=True):
        assert (x - y).norm() <= backward * x.norm() + 1e-5, name
