"""Hair that the photo does not see, changed as the hair that it sees.

Of the unseen rest the network says what it guesses; but hair is one thing, and all of it differs from the
code's in about the same way (on five drawn heads .2 dB from the sides), however strange to the network.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

ANSWER = 0.06
"""Difference of colours under another colour of hair from which on a texel is hair, sRGB."""
LEAST = 200.0
"""Texels of hair that have to be seen."""
_SMOOTH = 13
"""Texels over which the seen passes into the unseen."""


def hair_of(colour: Tensor, other: Tensor) -> Tensor:
    """How far each texel is hair, 0..1 [S, 1, R, R], by its colour [S, 3, R, R] under two colours of hair."""
    return ((colour - other).abs().mean(1, keepdim=True) / ANSWER).clamp(0, 1)


def evened(change: Tensor, seen: Tensor, hair: Tensor) -> Tensor:
    """Changes of colour [S, 3, R, R] with those of unseen hair like those of the seen, on average.

    Args: seen: [2, S, 1, R, R], of `Evidence`. hair: of `hair_of`.
    """
    sure = seen.amax(0)
    sure = torch.maximum(sure, avg_pool2d(sure, _SMOOTH, 1, _SMOOTH // 2, count_include_pad=False))
    weight = hair * seen[0]
    if float(weight.sum()) < LEAST:
        return change
    mean = (weight * change).sum((0, 2, 3), keepdim=True) / weight.sum()
    return change + hair * (1 - sure) * (mean - change)
