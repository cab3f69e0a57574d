"""Fields to try a renderer with: seeded noise of any shape, and a smooth ball with hair on it."""

from __future__ import annotations

from typing import Any

import torch

from geoinv_core.render.field import EG3D_AXES, Field

Axes = tuple[tuple[tuple[float, float, float], ...], ...]


def random_field(
    channels: int = 32,
    hidden: int = 64,
    features: int = 32,
    size: tuple[int, ...] = (64, 64),
    batch: int = 1,
    axes: Axes = EG3D_AXES,
    sharpness: float = 8.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **rules: Any,
) -> Field:
    """Noise planes and a noise decoder, part empty and part opaque.

    Args:
        size: (H, W), or (D, H, W) for a tri-grid; sharpness: scale of the raw density; rules: the
            rest of `Field`.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    w2, b2 = noise(1 + features, hidden) / hidden**0.5, noise(1 + features) * 0.5
    w2[0] *= sharpness
    return Field(
        noise(batch, len(axes), channels, *size),
        torch.tensor(axes, dtype=dtype),
        noise(hidden, channels) / channels**0.5,
        noise(hidden) * 0.5,
        w2,
        b2,
        beta=torch.tensor(0.05, dtype=dtype),
        **({"density": "softplus"} | rules),
    )


def ball_field(
    resolution: int = 256,
    channels: int = 32,
    hidden: int = 64,
    features: int = 32,
    seed: int = 0,
    beta: float = 0.01,
    depth: int = 1,
) -> Field:
    """A signed-distance ball of radius .3 with bumps, its features smooth noise: a head to a renderer.

    depth: slices of every plane; more than 1 makes a tri-grid.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(3, channels * depth, 16, 16, generator=generator)
    planes = torch.nn.functional.interpolate(coarse, (resolution, resolution), mode="bicubic")[None]
    if depth > 1:
        planes = planes.unflatten(2, (channels, depth))
    w1 = torch.randn(hidden, channels, generator=generator) / channels**0.5 * 1.7
    w2 = torch.randn(1 + features, hidden, generator=generator) / hidden**0.5
    return Field(
        planes,
        torch.tensor(EG3D_AXES),
        w1,
        torch.zeros(hidden),
        w2,
        torch.zeros(1 + features),
        density="sdf",
        beta=torch.tensor(beta),
        distance_scale=0.01,
        distance_radius=0.3,
    )
