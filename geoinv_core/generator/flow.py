"""Moving what stands on the planes: lids close, brows rise and jaws drop by flowing, not by repainting."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from geoinv_core.generator.layers import FullyConnected
from geoinv_core.render.warp import warp

RESOLUTION = 64


class Flow(nn.Module):
    """A style-driven displacement of every plane's content (no part of StyleGAN2 or EG3D).

    Faces differ, and expressions move them, mostly by smooth displacements that are linear in the labels:
    morph targets. The displacement is therefore a sum of `rank` learned fields whose weights are linear in
    the style. A network that only modulates channels has to repaint a mouth wherever it may go; this one
    moves it there. The slices of a tri-grid move by themselves: a jaw drops below a forehead that stays.
    """

    def __init__(self, planes: int, depth: int, w_dim: int, rank: int) -> None:
        super().__init__()
        self.weights = FullyConnected(w_dim, rank)
        nn.init.zeros_(self.weights.weight)  # nothing moves until there is a reason
        smooth = interpolate(torch.randn(rank, planes * depth * 2, 8, 8), RESOLUTION, mode="bicubic")
        self.fields = nn.Parameter(0.1 * smooth.view(rank, planes, depth, 2, RESOLUTION, RESOLUTION))

    def offsets(self, w: Tensor) -> Tensor:
        """Where each place takes its content from, relative to itself: float32 [B, P, D, 2, R, R], (column,
        row) in half widths of a plane."""
        return torch.einsum("br,rpdkij->bpdkij", self.weights(w).float(), self.fields)

    def forward(self, planes: Tensor, w: Tensor) -> Tensor:
        """planes [B, P, C, H, W] or [B, P, C, D, H, W] and style w [B, w_dim] -> float32 planes likewise."""
        slices = (planes.unsqueeze(3) if planes.dim() == 5 else planes).float()
        B, P, _, D, height, width = slices.shape
        offset = self.offsets(w).flatten(0, 2)
        offset = interpolate(offset, (height, width), mode="bilinear", align_corners=False)
        x = (torch.arange(width, device=planes.device) * 2 + 1) / width - 1
        y = (torch.arange(height, device=planes.device) * 2 + 1) / height - 1
        at = torch.stack([x + offset[:, 0], y[:, None] + offset[:, 1]], -1)
        moved = warp(slices, at.view(B, P, D, height, width, 2))
        return moved.reshape(planes.shape)
