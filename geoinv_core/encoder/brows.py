"""Brows and lids, read in a band of the picture that is cut out upright around the eyes.

A brow that rises moves by a few pixels, which differ from one brow's shape to the next; lids and the skin
between them tell the rest. So this looks at nothing else, in its own network, and what it says replaces what
the rest of the encoder says of them: weighing the two by how sure each is was measured to be worse.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, normalize

SIDE = 96
"""Of the band, pixels."""
UNITS = (
    "browInnerUp",
    "browDown",
    "browOuterUp",
    "eyeBlink",
    "eyeWide",
    "eyeSquint",
    "cheekSquint",
    "noseSneer",
)
"""What is read, of both sides where there are two."""
_WIDE, _ABOVE = 2.3, 0.29
"""Side of the band, and how far its middle lies above the eyes, in distances of the eyes."""
_WIDTHS = (32, 48, 96, 128, 160)
_RIGHT, _LEFT = slice(36, 42), slice(42, 48)  # eyes among the landmarks


def band_of(landmarks: Tensor) -> Tensor:
    """Where the band lies, [B, 2, 3]: from its own coordinates, -1..1, to the picture's, in which the
    landmarks [B, 68, 2] are given."""
    left, right = landmarks[:, _LEFT].mean(1), landmarks[:, _RIGHT].mean(1)
    apart = left - right
    half = _WIDE / 2 * apart.norm(dim=1)[:, None]
    across = normalize(apart, dim=1)
    down = torch.stack([-across[:, 1], across[:, 0]], 1)
    middle = (left + right) / 2 - _ABOVE / _WIDE * 2 * half * down
    return torch.stack([across * half, down * half, middle], 2)


def cut_band(image: Tensor, band: Tensor) -> Tensor:
    """A picture [B, C, S, S] there: [B, C, SIDE, SIDE].

    band: [B, 2, 3] as `band_of` gives it, in picture widths.
    """
    theta = torch.cat([2 * band[:, :, :2], 2 * band[:, :, 2:] - 1], 2)
    grid = affine_grid(theta, [len(image), 1, SIDE, SIDE], align_corners=False)
    found: Tensor = grid_sample(image, grid, padding_mode="border", align_corners=False)
    return found


class Brows(nn.Module):
    """Bands [B, 3, SIDE, SIDE] in -1..1 to units of the expression, and how sure it is."""

    def __init__(self, units: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for k, width in enumerate(_WIDTHS):
            for inputs, stride in ((before, 2), (width, 1))[: 1 if k == 0 else 2]:
                layers += [
                    nn.Conv2d(inputs, width, 3, stride, 1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
            before = width
        self.describe = nn.Sequential(*layers, nn.Flatten())
        side = SIDE // 2 ** len(_WIDTHS)
        self.read = nn.Sequential(nn.Dropout(0.2), nn.Linear(before * side * side, 256), nn.ReLU())
        self.value, self.log_spread = nn.Linear(256, units), nn.Linear(256, units)
        nn.init.zeros_(self.log_spread.weight)
        nn.init.zeros_(self.log_spread.bias)

    def forward(self, band: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised labels [B, units] and the logarithm of their standard deviations."""
        read = self.read(self.describe(band))
        # How sure it is must not disturb what it says.
        return self.value(read).float(), self.log_spread(read.detach()).float().clamp(-4, 2)
