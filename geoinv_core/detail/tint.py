"""The photo's own cast: what makes all of the head another colour, a grey photo or a warm or dim one.

The generator's light is white, so its code cannot say it, and places that the photo does not show would keep
the code's colours: pink ears on a grey head. One change of hue, contrast and saturation, fitted where the
photo shows the head, belongs to the field's last layer and so holds everywhere, and under every edit. It
takes out the mean error of the code's skin, too: 12 drawn heads gained .15 dB in the photo's view, .2 to .26
from the sides. (A free matrix gains no more, and turns hair blue that an edit makes grey.)
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from geoinv_core.detail.evidence import Seen
from geoinv_core.render import Field

_HELD = 300.0
"""Pixels that stand for no cast at all."""
_APART = 0.5
"""Logits by which a pixel may differ from the fit before it counts for little: it shows something else."""
_ROUNDS = 4
_SURE = 0.9


def no_tint() -> Tensor:
    """[3, 4] that changes nothing."""
    return torch.eye(3, 4)


def tint_of(seen: Seen) -> Tensor:
    """The map [3, 4] of logits of sRGB (a matrix, then a shift) that best makes the drawing the photo: a
    shift of each channel, one gain of their mean and one of what sets them apart.

    Least squares with no change as prior, robust by Cauchy's weights: hair over a forehead is no cast.
    """
    ours = seen.ours[0].flatten(1).double()
    apart = (seen.theirs[0].flatten(1) - ours).double()
    sure = (seen.shown[0].flatten() - _SURE).clamp(min=0).double() / (1 - _SURE)
    light = ours.mean(0, keepdim=True).expand_as(ours)
    one = torch.eye(3).to(ours)
    channels = one[:, :, None].expand(3, 3, ours.shape[1])
    x = torch.cat([channels, light[None], (ours - light)[None]])  # what each number changes, [5, 3, N]
    prior = _HELD * torch.eye(5).to(x)
    change = torch.zeros(5).to(x)
    for _ in range(_ROUNDS):
        rest = (apart - torch.einsum("p,pcn->cn", change, x)).square().sum(0) / _APART**2
        weight = sure / (1 + rest)
        y = (x * weight).flatten(1)
        change = torch.linalg.solve(y @ x.flatten(1).T + prior, y @ apart.flatten())
    mean = torch.full_like(one, 1 / 3)
    matrix = one + change[3] * mean + change[4] * (one - mean)
    return torch.cat([matrix, change[:3, None]], 1).to(seen.ours)


def tinted(field: Field, tint: Tensor) -> Field:
    """A colour field (rows: density, then colours by threes) under a tint."""
    matrix, shift = tint[:, :3].to(field.w2), tint[:, 3].to(field.w2)
    w, b = field.w2[1:].unflatten(0, (-1, 3)), field.b2[1:].unflatten(0, (-1, 3))
    w, b = matrix @ w, b @ matrix.T + shift
    return replace(
        field,
        w2=torch.cat([field.w2[:1], w.flatten(0, 1)]),
        b2=torch.cat([field.b2[:1], b.flatten()]),
    )


def recoloured(colour: Tensor, tint: Tensor) -> Tensor:
    """Colours [N, 3, H, W], logits of sRGB, under a tint."""
    return torch.einsum("kc,nchw->nkhw", tint[:, :3], colour) + tint[:, 3].view(1, 3, 1, 1)
