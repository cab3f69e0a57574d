"""What of a photo shows the head: all but what lies in front of it, such as a hand or a microphone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, max_pool2d

from geoinv_core.encoder.network import Encoded
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.render import Field

_SURE = (0.5, 0.8)
"""Probability of something in front from which on a place begins to count as hidden, and is."""
_HEAD = (0.1, 0.4)
"""Probability of the head, from which on a place begins to count as it, and does."""
LEAST = 0.02
"""Share of the head below which nothing is taken as hidden: shadows and strands of hair look alike."""


def shown(found: Encoded) -> tuple[Tensor | None, float]:
    """How much of each place shows the head, 0..1 [1, 1, 32, 32] (None: all of it), and the hidden share of
    the head.

    Args: found: of a batch of one.
    """
    if found.occlusion is None or found.outline is None:
        return None, 0.0
    low, high = _SURE
    hidden = ((found.occlusion.sigmoid() - low) / (high - low)).clamp(0, 1)
    head = found.outline.sigmoid()
    share = float((hidden * head).sum() / head.sum().clamp_min(1))
    if share < LEAST:
        return None, 0.0
    return 1 - max_pool2d(hidden, 3, 1, 1), share  # a border is neither


def silhouette(found: Encoded, front: Tensor | None) -> Tensor | None:
    """How much of each place shows the head and nothing before or beside it, 0..1 [1, 1, 32, 32].

    Where the drawn head is larger than the photo's, the photo shows what lies behind. Generous, for hair ends
    softly. None without an outline. Args: front: of `shown`.
    """
    if found.outline is None:
        return front
    low, high = _HEAD
    inside = ((max_pool2d(found.outline.sigmoid(), 3, 1, 1) - low) / (high - low)).clamp(0, 1)
    return inside if front is None else inside * front


def looked_up(mask: Tensor | None, at: Tensor) -> Tensor:
    """A mask [1, 1, R, R] at places [..., 2] in crop widths: [...]; 1 where there is no mask."""
    if mask is None:
        return torch.ones_like(at[..., 0])
    places = at.reshape(1, 1, -1, 2) * 2 - 1
    found = grid_sample(mask, places, padding_mode="border", align_corners=False)
    return found.reshape(at.shape[:-1])


def filled(generator: TriplaneGenerator, field: Field, camera: Tensor, photo: Tensor, mask: Tensor) -> Tensor:
    """A photo [1, 3, S, S] in -1..1 with the head of a field where something else lies in front of it.

    Args: camera: [1, 25]. mask: [1, 1, R, R] how much of the photo shows the head, 0..1.
    """
    side = photo.shape[-1]
    with torch.no_grad():
        drawn = generator.draw(field, camera, side)
        hidden = 1 - interpolate(mask, size=(side, side), mode="bilinear")
        head = drawn.features[:, :3] * 2 - drawn.opacity  # in -1..1, over nothing
        result: Tensor = photo + hidden * (head - drawn.opacity * photo)
    return result
