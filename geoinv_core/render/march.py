"""What goes into a march and what comes out, whichever backend does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True, eq=False)
class March:
    """Rays and how to sample them; B entries of R rays, n = coarse + fine samples."""

    origins: Tensor
    """[B, R, 3]"""
    directions: Tensor
    """[B, R, 3]"""
    near: Tensor
    """[B, R]"""
    far: Tensor
    """[B, R]"""
    u_coarse: Tensor | None
    """[B, R, coarse] jitter in steps, or None: `jitter` everywhere."""
    u_fine: Tensor | None
    """[B, R, fine] in 0..1, or None: (i + .5) / fine."""
    coarse: int
    fine: int
    disparity: bool = False
    jitter: float = 0.5
    skip: float = 0.0
    """Samples whose share of the picture is below this may be left out; 0 leaves nothing out."""
    keep: bool = False
    """Return weights and depths."""


class Sums(NamedTuple):
    """Sums over the samples of every ray."""

    total: Tensor
    """[B, R, F] sum of w c"""
    depth: Tensor
    """[B, R] sum of w z"""
    opacity: Tensor
    """[B, R] sum of w"""
    extent: Tensor
    """[B, R, 2] first and last depth"""
    weights: Tensor
    """[B, R, n - 1], or empty"""
    depths: Tensor
    """[B, R, n], or empty"""


class Wanted(NamedTuple):
    """Which gradients to compute."""

    planes: bool
    decoder: bool
    beta: bool
    rays: bool


@dataclass
class Gradients:
    """Gradients by the inputs; None: not wanted."""

    planes: Tensor | None = None
    w1: Tensor | None = None
    b1: Tensor | None = None
    w2: Tensor | None = None
    b2: Tensor | None = None
    beta: Tensor | None = None
    origins: Tensor | None = None
    directions: Tensor | None = None

    def in_order(self) -> list[Tensor | None]:
        return [self.planes, self.w1, self.b1, self.w2, self.b2, self.beta, self.origins, self.directions]
