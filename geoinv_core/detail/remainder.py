"""What the network leaves of the photo's difference, where that is much: hair over a forehead that the code
says is bare.

The network has learned on drawn heads how far a difference can be believed. Where the photo is unlike all of
them it believes half, and the mean of bright skin and dark hair is orange. So the head is drawn once more
with its detail, and what still differs widely is added. On drawn heads there is little of that: on 64 of them
the photo's view gained .05 dB, and views from the side lost .02.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, max_pool2d

from geoinv_core.detail.evidence import Evidence, Seen
from geoinv_core.detail.sides import ramp

MUCH = (0.1, 0.5)
"""Difference in logits, over some pixels, from which on it is added, and is added in full."""
_WIDE = 5
"""Pixels over which a difference counts as wide."""
_WITHIN = 9
"""Pixels around a place that have to be the head's, too: what lies beside it is none of it."""
_SURE = (0.5, 0.9)
_FACING = (0.3, 0.6)
"""Slanted places are seen badly, and a little beside where they are."""


def remainder(seen: Seen, evidence: Evidence) -> Tensor:
    """Further changes of colour [S, 3, R, R], logits of sRGB, upright.

    Args: seen: the comparison of the photo with the head drawn with its detail. evidence: without.
    """
    rest = seen.difference
    much = avg_pool2d(rest, _WIDE, 1, _WIDE // 2, count_include_pad=False).norm(dim=1, keepdim=True)
    within = -max_pool2d(-seen.shown, _WITHIN, 1, _WITHIN // 2)
    rest = rest * ramp(much, *MUCH) * ramp(within, *_SURE)
    at = evidence.at[0].permute(0, 2, 3, 1)
    found = grid_sample(rest.expand(len(at), -1, -1, -1), at, align_corners=False)
    return found * evidence.seen[0] * ramp(evidence.facing[0], *_FACING)
