"""A trained generator's weights as the start of a larger one: a tri-grid from planes, more labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from geoinv_core.generator import GeneratorConfig, TriplaneGenerator


def enlarge(
    state: dict[str, Tensor], small: GeneratorConfig, generator: TriplaneGenerator
) -> dict[str, Tensor]:
    """The state of a generator of configuration `small` in the shapes of `generator`.

    Every slice of a tri-grid begins as the plane that it comes from, displacements likewise; labels and
    latents that are new (they come last) begin without any effect. What needs no change passes through.
    """
    large, own = generator.config, generator.state_dict()
    slices = large.plane_depth // small.plane_depth
    new_z, new_c = large.z_dim - small.z_dim, large.c_dim - small.c_dim

    def fit(name: str, x: Tensor) -> Tensor:
        if name.endswith("flow.fields"):
            return resized(x, own[name].shape)
        if name.endswith("mapping.embed.weight"):
            return _widened(x, small.c_dim, new_c, 0)
        if name.endswith("mapping.fc0.weight"):
            return _widened(x, small.z_dim, new_z, 0)
        if name.endswith("mapping.linear.weight"):
            return _widened(x, small.z_dim, new_z, new_c)
        if (".torgb." in name and "affine" not in name) or name.endswith("synthesis.mean"):
            return x.repeat_interleave(slices, 0)
        return x

    return {name: fit(name, x) for name, x in state.items()}


def resized(fields: Tensor, shape: torch.Size) -> Tensor:
    """Displacement fields [rank, P, (D,) 2, r, r] in the shape [rank, P, D, 2, R, R]."""
    rank, planes, depth, _, side, _ = shape
    flat = interpolate(
        fields.reshape(rank, -1, *fields.shape[-2:]),
        (side, side),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    ).view(rank, planes, -1, 2, side, side)
    return flat.repeat_interleave(depth // flat.shape[2], 2)


def _widened(weight: Tensor, z_dim: int, new_z: int, new_c: int) -> Tensor:
    """Weights [O, z + rest] for inputs with more latents after z and more labels after the rest."""
    wide = torch.cat([pad(weight[:, :z_dim], (0, new_z)), pad(weight[:, z_dim:], (0, new_c))], 1)
    return wide * math.sqrt(wide.shape[1] / weight.shape[1])  # layers divide by the root of their inputs
