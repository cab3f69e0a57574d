"""Landmarks found once more, all together, each in the picture around it.

The close reading finds landmarks to a pixel or two, by one description that all of them share. Here each has
an eye of its own for what it looks like, and all of them are weighed against each other, as in cascaded
regression (Cao et al. 2014; Kazemi & Sullivan 2014). How the head is formed and turned follows from them (see
`invert.form`), so a fraction of a pixel counts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geoinv_core.encoder import mirror
from geoinv_core.encoder.close import cut
from geoinv_core.encoder.config import LANDMARKS

SPOT, SIDE = 24, 0.125
"""What a landmark sees around it: pixels, crop widths."""
ROUNDS = 2
_OWN, _TOGETHER = 24, 512
_REACH = 0.03  # crop widths; brings what a landmark moves by to about 1
_ABOUT = 4.0  # brings landmarks about their middle to about 1


class Cascade(nn.Module):
    """See the module's docstring; begins as the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.describe = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
            nn.Conv2d(24, 48, 3, 2, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        inputs = 48 * (SPOT // 4) ** 2
        self.own = nn.Parameter(torch.randn(LANDMARKS, inputs, _OWN) * (2 / inputs) ** 0.5)
        self.own_bias = nn.Parameter(torch.zeros(LANDMARKS, _OWN))
        self.together = nn.Sequential(nn.Linear(LANDMARKS * (_OWN + 2), _TOGETHER), nn.ReLU())
        self.move = nn.Linear(LANDMARKS * _OWN + _TOGETHER, 2 * LANDMARKS)
        self.spread = nn.Linear(LANDMARKS * _OWN + _TOGETHER, 2 * LANDMARKS)
        for last in (self.move, self.spread):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        nn.init.constant_(self.spread.bias, -4.5)

    def forward(self, image: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """One round.

        Args: image: [B, 3, S, S] in -1..1. places: [B, 68, 2] crop widths.
        Returns: [B, 68, 2] nearer places, and their standard deviations along x and y, crop widths.
        """
        spots = cut(image, places, SIDE, SPOT)
        described = self.describe(spots.flatten(0, 1)).unflatten(0, spots.shape[:2])
        own = torch.relu(torch.einsum("blf,lfc->blc", described, self.own) + self.own_bias).flatten(1)
        middle = places.mean(1, keepdim=True)
        together = self.together(torch.cat([own, ((places - middle) * _ABOUT).flatten(1)], 1))
        known = torch.cat([own, together], 1)
        # How sure it is must not disturb what it says: no gradient goes back from the spreads.
        spread = self.spread(known.detach()).clamp(-7, 1).exp()
        moves = self.move(known) * _REACH
        return places + moves.unflatten(1, (-1, 2)), spread.unflatten(1, (-1, 2))

    def settled(self, image: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """All rounds, in the picture and in its mirror image: the means of both."""
        both, pictures = torch.cat([places, mirror.landmarks(places)]), torch.cat([image, image.flip(3)])
        spread = torch.zeros_like(both)
        for _ in range(ROUNDS):
            both, spread = self(pictures, both)
        (here, there), (spread, other) = both.chunk(2), spread.chunk(2)
        return (here + mirror.landmarks(there)) / 2, (spread + other[:, list(mirror.LANDMARKS)]) / 2
