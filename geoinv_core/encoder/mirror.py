"""What a mirror does to a face's landmarks and a head's labels.

Faces and their mirror images are equally likely, but no network quite learns that: it errs in its own way on
each, and the mean of both readings errs less than either.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geoinv_core.heads.layout import LabelLayout, other_side

LANDMARKS = (
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46), *(39, 38, 37, 36, 41, 40),
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
)  # fmt: skip
"""The landmark of a mirrored face that each one becomes."""


def landmarks(places: Tensor) -> Tensor:
    """Landmarks [B, 68, 2], in widths of a picture, in the mirrored one."""
    other = places[:, list(LANDMARKS)]
    return torch.stack([1 - other[..., 0], other[..., 1]], -1)


def across(layout: LabelLayout) -> tuple[int, ...]:
    """For every entry of c, the one whose expression a mirrored head shows there; others stay."""
    names = layout.names
    return tuple(names.index(other_side(name)) for name in names)
