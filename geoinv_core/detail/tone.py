"""Detail where an edit takes colour away: hair that turns grey keeps its strands, not its old hue.

What a photo adds to brown hair to make it fair is not what grey hair lacks. So the detail's own hue fades by
as much as the hue below it; its brightness stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from geoinv_core.detail.bake import Texture
from geoinv_core.detail.evidence import logit
from geoinv_core.detail.sides import Side

_FAINT = 0.15
"""Logits of hue that count as none, so that noise of grey places decides nothing."""
_SPREAD = 5
"""Texels over which the fading is evened out."""


def toned(texture: Texture, sides: Sequence[Side], before: Tensor, after: Tensor) -> Texture:
    """The texture of a head whose colours changed.

    Args: before, after: [S, 3, R, R] sRGB 0..1, upright, what the sides see without detail (`Looks.colour`).
    """
    was, now = (_hue(logit(colour)).norm(dim=1, keepdim=True) + _FAINT for colour in (before, after))
    left = avg_pool2d(now / was, _SPREAD, 1, _SPREAD // 2, count_include_pad=False).clamp(max=1)
    share = torch.stack([s.laid(x) for s, x in zip(sides, left, strict=True)]).to(texture.change)
    hue = _hue(texture.change)
    return replace(texture, change=texture.change - hue + hue * share)


def _hue(colour: Tensor) -> Tensor:
    """What is left of colours [S, 3, R, R] without their brightness."""
    return colour - colour.mean(1, keepdim=True)
