"""A radiance or distance field as plain data: planes, a two-layer decoder, the rules from numbers to density.

Every backend reads the same `Field`; it knows nothing of heads, generators or devices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

DENSITIES = ("softplus", "sdf", "raw")
ACTIVATIONS = ("sigmoid", "lrelu", "none")

# Rows per plane; a point times the inverse gives (u, v, third). EG3D's own, with its repeated xz.
EG3D_AXES = (
    ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)),
    ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
)
# PanoHead's: the third plane is (y, z), its third coordinate x.
PANOHEAD_AXES = (*EG3D_AXES[:2], ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)))


@dataclass(frozen=True, eq=False)
class Field:
    """Planes and decoder, all tensors of one floating dtype on one device.

    A world point x goes to plane p as (x * 2 / box_warp) @ inverse(axes[p]) = (u, v, w): u along the width,
    v along the height, w along the depth of a tri-grid; align_corners False, zero outside.
    Features are the mean over the planes; decoder(f) = w2 softplus(w1 f + b1) + b2, all gains folded in.
    Row 0 is the raw density (or the raw distance), rows 1.. are features before their activation.
    """

    planes: Tensor
    """[B, P, C, H, W], or a tri-grid [B, P, C, D, H, W]."""
    axes: Tensor
    """[P, 3, 3], as EG3D's `plane_axes`."""
    w1: Tensor
    """[hidden, C]"""
    b1: Tensor
    """[hidden]"""
    w2: Tensor
    """[1 + F, hidden]"""
    b2: Tensor
    """[1 + F]"""
    density: Literal["softplus", "sdf", "raw"]
    """"softplus": softplus(x - 1); "sdf": sigmoid(-d / beta) / beta; "raw": max(x, 0)."""
    beta: Tensor
    """[], world units, used by "sdf" only."""
    distance_scale: float = 1.0
    """With "sdf": d = distance_scale * row0 + |x| - distance_radius, world units."""
    distance_radius: float = 0.0
    activation: Literal["sigmoid", "lrelu", "none"] = "sigmoid"
    """"sigmoid": sigmoid(x) * 1.002 - .001 (EG3D); "lrelu": leaky(.2) * sqrt(2); "none"."""
    signed: bool = True
    """Composited features are taken to * 2 - 1 (EG3D: yes)."""
    box_warp: float = 1.0
    """Side of the cube that the planes cover, world units, centred on the origin."""
    crop: float | None = None
    """PanoHead: when rendering, density is -1000 unless |x| and |z| <= box_warp / 2 - crop."""
    white_back: bool = False

    def __post_init__(self) -> None:
        if self.planes.dim() not in (5, 6):
            got = list(self.planes.shape)
            raise ValueError(f"Field.planes has to be [B, P, C, H, W] or [B, P, C, D, H, W], got {got}.")
        P, C = self.planes.shape[1:3]
        if 0 in self.planes.shape:
            raise ValueError(f"Field.planes is empty: {tuple(self.planes.shape)}.")
        if self.w1.dim() != 2 or self.w2.dim() != 2 or self.w2.shape[0] < 1:
            raise ValueError("Field.w1 has to be [hidden, C] and Field.w2 [1 + F, hidden].")
        hidden, outputs = self.w1.shape[0], self.w2.shape[0]
        expected: dict[str, list[int]] = {
            "axes": [P, 3, 3],
            "w1": [hidden, C],
            "b1": [hidden],
            "w2": [outputs, hidden],
            "b2": [outputs],
            "beta": [],
        }
        for name, wanted in expected.items():
            tensor: Tensor = getattr(self, name)
            if list(tensor.shape) != wanted:
                raise ValueError(f"Field.{name} has to be {wanted}, got {list(tensor.shape)}.")
            if tensor.dtype != self.planes.dtype or tensor.device != self.planes.device:
                raise ValueError(
                    f"Field.{name} is {tensor.dtype} on {tensor.device}, but planes are {self.planes.dtype} "
                    f"on {self.planes.device}; a field lives on one device with one dtype."
                )
        if not self.planes.is_floating_point():
            raise ValueError(f"Field.planes has to hold floating-point numbers, got {self.planes.dtype}.")
        if self.density not in DENSITIES:
            raise ValueError(f"Field.density has to be one of {', '.join(DENSITIES)}, got {self.density!r}.")
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"Field.activation has to be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}."
            )
        if not self.box_warp > 0:
            raise ValueError(f"Field.box_warp has to be positive, got {self.box_warp}.")

    @property
    def batch(self) -> int:
        return self.planes.shape[0]

    @property
    def feature_count(self) -> int:
        return self.w2.shape[0] - 1

    def plane_maps(self) -> Tensor:
        """[P, 3, 3]: a world point as row vector times this gives (u, v, third) in -1..1 inside the box."""
        inverse: Tensor = torch.linalg.inv(self.axes.detach().double())
        return inverse.to(self.axes.dtype) * (2.0 / self.box_warp)

    def map(self, change: Callable[[Tensor], Tensor]) -> Field:
        """The same field with every tensor passed through a function."""
        changed: dict[str, Any] = {
            f.name: change(v) for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)
        }
        return replace(self, **changed)

    def to(self, target: torch.dtype | torch.device | str) -> Field:
        """The same field on another device or in another dtype."""
        return self.map(lambda t: t.to(target))

    def detach(self) -> Field:
        return self.map(Tensor.detach)


@dataclass(frozen=True, eq=False)
class Rendered:
    """What `render` returns; R rays per batch entry, n depths per ray."""

    features: Tensor
    """[B, R, F], in -1..1 for a signed sigmoid field."""
    depth: Tensor
    """[B, R], world units along the unit ray: weighted mean, clamped to the depths of the whole call."""
    opacity: Tensor
    """[B, R], sum of weights."""
    weights: Tensor | None = None
    """[B, R, n - 1], weight of each interval; on request, not differentiable."""
    depths: Tensor | None = None
    """[B, R, n], sorted; on request."""
