"""Detail where an edit takes colour away: hair that turns grey keeps its strands, not its old hue.

What a photo adds to brown hair to make it fair is not what grey hair lacks. So the detail's own hue fades by
as much as the hue below it; its brightness stays. Of hair, the labels say how much of its hue an edit leaves,
and of the hue that the photo shows just that is left: the generator's grey is never quite grey. And a fringe
that only the detail knows of, painted over a forehead, turns with the rest of the hair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from geoinv_core.detail.bake import Texture
from geoinv_core.detail.evidence import logit
from geoinv_core.detail.sides import Side, ramp

_FAINT = 0.15
"""Logits of hue that count as none, so that noise of grey places decides nothing."""
_SPREAD = 5
"""Texels over which the fading is evened out."""
_FADES = 0.7
"""Share of its hue that is left to what the edit takes colour from: hair."""
_LEAST = 200.0
"""Texels of that, from which on it is worth a comparison."""
_EDGE = 0.15
"""How far above that share hair passes into what keeps its hue."""
_PALE = 0.02
"""What counts as no hue of a label's colour, sRGB."""
_PAINTED = (0.8, 1.6)
"""Logits of change that make another thing of what lies below."""
_HUES, _LIGHTS = 0.5, 2.0
"""Logits by which such a thing may differ from the fading hair and still be some of it."""


def hue_left(before: Tensor, after: Tensor) -> float:
    """Share of the hue of a colour [3], sRGB, that another one has; 1 at most."""
    was, now = (float(_hue(c.view(1, 3, 1, 1)).norm()) + _PALE for c in (before, after))
    return min(now / was, 1.0)


def toned(
    texture: Texture, sides: Sequence[Side], before: Tensor, after: Tensor, hair: float = 1.0
) -> Texture:
    """The texture of a head whose colours changed.

    Args:
        before, after: [S, 3, R, R] sRGB 0..1, upright, what the sides see without detail (`Looks.colour`).
        hair: share of its hue that hair keeps.
    """
    old, new = logit(before), logit(after)
    was, now = (_hue(colour).norm(dim=1, keepdim=True) + _FAINT for colour in (old, new))
    left = avg_pool2d(now / was, _SPREAD, 1, _SPREAD // 2, count_include_pad=False).clamp(max=1)
    change = torch.stack([s.upright(x) for s, x in zip(sides, texture.change.to(old), strict=True)])
    hue = _hue(change)
    kept = change - hue + hue * left
    fading = (left < _FADES).to(left)
    if float(fading.sum()) >= _LEAST:

        def mean(x: Tensor) -> Tensor:
            return (fading * x).sum((0, 2, 3), keepdim=True) / fading.sum()

        shown = old + change
        apart = shown - mean(shown)
        unlike = _hue(apart).norm(dim=1, keepdim=True) / _HUES + apart.mean(1, keepdim=True).abs() / _LIGHTS
        painted = ramp(change.norm(dim=1, keepdim=True), *_PAINTED) * torch.exp(-(unlike**4))
        share = min(hair, float(mean(left)))
        greyed = share * _hue(shown) - _hue(new)
        kept = kept + ramp(_FADES + _EDGE - left, 0, _EDGE) * (change - hue + greyed - kept)
        turned = change - hue + mean(new - old).mean(1, keepdim=True) + greyed
        kept = kept + painted * (1 - fading) * (turned - kept)
    laid = torch.stack([s.laid(x) for s, x in zip(sides, kept, strict=True)])
    return replace(texture, change=laid.to(texture.change))


def _hue(colour: Tensor) -> Tensor:
    """What is left of colours [S, 3, R, R] without their brightness."""
    return colour - colour.mean(1, keepdim=True)
