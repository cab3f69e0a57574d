"""Where something lies in front of the head: a hand, a card, a microphone. What a photo shows there is not
the head's, so neither its form nor its colour may be taken from it.

The trunk's maps, coarse to fine, added up from level to level, as in a feature pyramid (Lin et al. 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

_WIDTH = 32


class Occlusion(nn.Module):
    """Maps of the trunk, finest first, to logits [B, 1, R, R] at the finest one's resolution."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        """widths: channels of the maps."""
        super().__init__()
        self.shorten = nn.ModuleList(nn.Conv2d(width, _WIDTH, 1) for width in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1) for _ in widths)
        self.last = nn.Conv2d(_WIDTH, 1, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = maps[-1].new_zeros(())
        for k in range(len(maps) - 1, -1, -1):
            if x.ndim:
                x = interpolate(x, size=maps[k].shape[-2:], mode="bilinear")
            x = torch.relu(self.smooth[k](self.shorten[k](maps[k]) + x))
        told: Tensor = self.last(x)
        return told.float()
