"""Hair and beards without a mesh of their own: shells over the skin that thin out towards the tips.

Each shell is the part of the skin that bears hair, moved out along its normals and combed; a noise in the
skin's uv says how far out a tuft reaches, so that outer shells show ever fewer tufts
(fur by shells, Lengyel 2000).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from geoinv_core.heads.assets import HeadAssets


@dataclass(frozen=True)
class Style:
    """How hair grows on the scalp."""

    length: float
    """decimetres from root to tip, along the normal"""
    comb: tuple[float, float, float]
    """decimetres that the tip is moved by (the subject's left, up, forward)"""
    shells: int
    tufts: float
    """noise tiles per unit of the atlas: few for curls, many for strands"""
    share: float
    """how ragged: the share of the length at which tufts begin to end"""

    def grown_to(self, share: float) -> Style:
        """The same hair while only a share of its length has grown."""
        left, up, forward = self.comb
        return replace(self, length=self.length * share, comb=(left * share, up * share, forward * share))


STYLES = {
    "afro01": Style(0.62, (0.0, 0.05, -0.05), 8, 15.0, 0.6),
    "curls": Style(0.34, (0.0, -0.05, 0.02), 7, 7.0, 0.35),
    "crop": Style(0.13, (0.0, -0.02, 0.06), 5, 16.0, 0.35),
    "fringe": Style(0.20, (0.0, -0.16, 0.20), 6, 13.0, 0.5),
}
BEARD = Style(0.26, (0.0, -0.14, 0.02), 5, 17.0, 0.3)
THIN = 0.08  # cover at which hair begins to show
BEARD_FROM = 0.4  # of the label beard: below it a beard is painted


@dataclass(frozen=True)
class Shells:
    vertices: Tensor
    """float32 [K * n, 3] decimetres"""
    normals: Tensor
    """float32 [K * n, 3]"""
    source: Tensor
    """int64 [K * n] split vertices of the skin"""
    height: Tensor
    """float32 [K * n] 0 at the root .. 1 at the tip"""
    cover: Tensor
    """float32 [K * n] how surely hair grows here"""
    triangles: Tensor
    """int64 [T, 3]"""


def grow(assets: HeadAssets, skin: Tensor, normals: Tensor, where: Tensor, style: Style) -> Shells:
    """Shells of a style.

    Args:
        skin, normals: [N, 3] of the base vertices, decimetres; where: [N] 0..1.
    """
    vid, _, split = assets.skin_corners
    mask = where[vid]
    bearing = split[mask[split].amax(1) > THIN]  # to where it fades out, not to the last whole triangle
    used, triangles = torch.unique(bearing, return_inverse=True)
    root, normal, cover = skin[vid[used]], normals[vid[used]], mask[used].clamp(0, 1)
    reach = cover.sqrt()[:, None]
    comb = root.new_tensor(style.comb)
    comb = comb - normal * (normal @ comb)[:, None].clamp(max=0)  # never into the skin
    layers = torch.linspace(0.06, 1, style.shells, device=skin.device)
    vertices = torch.cat(
        [root + reach * (normal * style.length * t + comb * t**1.5) for t in layers.tolist()]
    )
    K, n = style.shells, len(used)
    offsets = torch.arange(K, device=skin.device)[:, None, None] * n
    return Shells(
        vertices,
        normal.repeat(K, 1),
        used.repeat(K),
        layers.repeat_interleave(n),
        cover.repeat(K),
        (triangles[None] + offsets).reshape(-1, 3),
    )
