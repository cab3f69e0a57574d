"""A radiance or distance field as plain data: what a renderer needs, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Field:
    """Planes and a two-layer decoder. Lengths are world units, weights have their gains folded in.

    A point x is scaled by 2 / box_warp; per plane p the row vector times inverse(axes[p]) gives (u along W,
    v along H, third along D); planes are read bilinearly (align_corners False, zeros outside) and averaged.
    Then softplus(w1 f + b1), and w2 . + b2: row 0 is raw density or distance, the rest are features.
    """

    planes: Tensor
    """[B, P, C, H, W] or [B, P, C, D, H, W]."""
    axes: Tensor
    """[P, 3, 3]."""
    w1: Tensor
    """[hidden, C]."""
    b1: Tensor
    """[hidden]."""
    w2: Tensor
    """[1 + F, hidden]."""
    b2: Tensor
    """[1 + F]."""
    density: Literal["softplus", "sdf", "raw"]
    """softplus(x - 1), or sigmoid(-d / beta) / beta, or max(x, 0)."""
    beta: Tensor
    """[]; only for "sdf"."""
    distance_scale: float = 1.0
    distance_radius: float = 0.0
    """d = distance_scale * row0 + (|x| - distance_radius)."""
    activation: Literal["sigmoid", "lrelu", "none"] = "sigmoid"
    signed: bool = True
    """Composited features are mapped to 2 f - 1."""
    box_warp: float = 1.0
    crop: float | None = None
    """Density is -1e3 unless |x|, |z| <= box_warp / 2 - crop."""
    white_back: bool = False
