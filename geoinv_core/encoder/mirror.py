"""A picture and its mirror image, read alike: what an encoder says of both, as one answer.

Heads and their mirror images are equally likely, but no network quite learns that; each of its two readings
errs in its own way, and their mean errs less than either (averaging over flips, a test-time augmentation).
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from geoinv_core.encoder.network import Encoded, Encoder, camera_of
from geoinv_core.heads.layout import LabelLayout

LANDMARKS = (
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46), *(39, 38, 37, 36, 41, 40),
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
)  # fmt: skip
"""The landmark of a mirrored face that each one becomes."""
_POSE = (-1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0)  # yaw, pitch, roll, side, x, y, distance
_TURNED = ("light.direction.0", "light.rim_side", "light.across.0", "light.across.1", "light.across.2")
"""Labels that a mirror image has with the other sign."""


def landmarks(places: Tensor) -> Tensor:
    """Landmarks [B, 68, 2], in widths of a picture, in the mirrored one."""
    other = places[:, list(LANDMARKS)]
    return torch.stack([1 - other[..., 0], other[..., 1]], -1)


def across(layout: LabelLayout) -> list[int]:
    """For every entry of c, the one that a mirrored head has there (its sign aside)."""
    other = {"Left": "Right", "Right": "Left"}

    def mirrored(name: str) -> str:
        for side, opposite in other.items():
            if name in layout.expressions and name.endswith(side):
                return name.removesuffix(side) + opposite
        return name

    names = layout.names
    return [names.index(mirrored(name)) for name in names]


def mirrored(found: Encoded, layout: LabelLayout) -> Encoded:
    """The answer for the mirror image of the picture that `found` is about; its offsets are kept."""
    names, device = layout.names, found.c.device
    exchanged = across(layout)
    signs = torch.tensor([-1.0 if name in _TURNED else 1.0 for name in names], device=device)
    uneven = torch.tensor([1.0] * len(layout.axes) + [-1.0] * len(layout.asymmetries), device=device)
    pose = found.pose * torch.tensor(_POSE[: found.pose.shape[1]], device=device)

    def flipped(grid: Tensor | None) -> Tensor | None:
        return None if grid is None else grid.flip(3)

    spread = found.landmark_spread
    return replace(
        found,
        z=found.z * uneven,
        c=found.c[:, exchanged] * signs,
        logits=found.logits[:, exchanged] * signs,
        pose=pose,
        camera=camera_of(pose),
        spread=found.spread[:, exchanged],
        landmarks=None if found.landmarks is None else landmarks(found.landmarks),
        landmark_spread=None if spread is None else spread[:, list(LANDMARKS)],
        outline=flipped(found.outline),
        occlusion=flipped(found.occlusion),
    )


def read_both(encoder: Encoder, layout: LabelLayout, image: Tensor) -> Encoded:
    """The mean of what an encoder says of pictures [B, 3, S, S] and of their mirror images."""
    both = encoder(torch.cat([image, image.flip(3)]))
    seen, reflected = _part(both, slice(len(image))), _part(both, slice(len(image), None))
    back = mirrored(reflected, layout)

    def mean(name: str) -> Any:
        one, other = getattr(seen, name), getattr(back, name)
        return None if one is None else (one + other) / 2

    answer = Encoded(**{field.name: mean(field.name) for field in fields(Encoded)})
    return replace(answer, camera=camera_of(answer.pose))


def _part(found: Encoded, rows: slice) -> Encoded:
    def part(name: str) -> Any:
        value = getattr(found, name)
        return None if value is None else value[rows]

    return Encoded(**{field.name: part(field.name) for field in fields(Encoded)})
