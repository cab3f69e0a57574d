"""Mouths as photographs show them.

Drawn teeth lie in the mouth's shadow, with a dark line between them and the lips, and drawn lips are darker
and redder than the skin around them: where lips part is told by that alone. In photographs a flash lights the
teeth, which lie against the lips, and lips are nearly skin or painted. (On a portrait with a broad smile, an
encoder trained without this took white teeth for shut lips, and saw them when a dark line was drawn around.)
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

OUTER, INNER = slice(48, 60), slice(60, 68)
"""The lips' edges among the 68 landmarks, each once around."""
_FLASH = 0.2  # least exponent of drawn teeth's colour; brings sRGB .5 to .87
_WHITE = (0.95, 0.9, 0.82)  # of teeth in full light, sRGB
_NARROW = 0.35  # height of an opening that teeth fill, in widths of the lips
_AROUND = 1.4  # how far around the lips skin is looked for, times their size
_PALE = (-0.4, 1.0)  # how far lips' mean colour goes towards the skin's
_SHADES = (0.6, 1.5)  # what becomes of their shading
_TINT = 0.12  # of each channel


def flashed(image: Tensor, teeth: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures [B, 3, S, S] in 0..1 with teeth [B, S, S] as bright as a flash shows them, or as they were
    drawn, in the mouth's shadow: the edge of the lips looks like both."""
    B = len(image)
    gamma = _FLASH ** torch.rand(B, generator=generator)
    gamma = torch.where(torch.rand(B, generator=generator) < 0.4, torch.ones(()), gamma)
    return image + (image ** gamma[:, None, None, None] - image) * _soft(teeth)


def filled(image: Tensor, ibug: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures [B, 3, S, S] in 0..1, half of them with lips that part a little on white teeth only.

    Args: ibug: [B, 68, 2] landmarks in picture widths.
    """
    B = len(image)
    inner = ibug[:, INNER]
    wide, high = ((inner[:, k] - inner[:, k + 4]).norm(dim=1) for k in (0, 2))
    use = (torch.rand(B, generator=generator) < 0.5) & (high < _NARROW * wide)
    light = 0.6 + 0.4 * torch.rand(B, 1, 1, 1, generator=generator)
    share = torch.rand(B, 1, 1, 1, generator=generator) * use[:, None, None, None]
    white = torch.tensor(_WHITE)[:, None, None] * light
    other: Tensor = image + (white - image) * share * _soft(inside(inner, _grid(image.shape[-1])))
    return other


def lips_coloured(image: Tensor, ibug: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures [B, 3, S, S] in 0..1, two of three with lips of another colour, from deep red to hardly
    another than the skin around them.

    Args: ibug: [B, 68, 2] landmarks in picture widths.
    """
    B = len(image)

    def u(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.rand(B, channels, 1, 1, generator=generator) * (high - low) + low

    at = _grid(image.shape[-1])
    outer = ibug[:, OUTER]
    middle = outer.mean(1, keepdim=True)
    mouth = inside(outer, at)
    lips = mouth & ~inside(ibug[:, INNER], at)
    skin = inside(middle + (outer - middle) * _AROUND, at) & ~mouth
    lip_colour, skin_colour = _mean(image, lips), _mean(image, skin)
    colour = (lip_colour + (skin_colour - lip_colour) * u(*_PALE)) * u(1 - _TINT, 1 + _TINT, 3)
    other = (colour + (image - lip_colour) * u(*_SHADES)).clamp(0, 1)
    use = torch.rand(B, 1, 1, 1, generator=generator) < 2 / 3
    return image + (other - image) * _soft(lips) * use


def inside(outline: Tensor, at: Tensor) -> Tensor:
    """bool [B, ...]: points [..., 2] within closed outlines [B, N, 2], by the even-odd rule."""
    x, y = at[..., 0], at[..., 1]
    within = torch.zeros(len(outline), *x.shape, dtype=torch.bool)
    corners = outline.view(*outline.shape, *[1] * x.ndim).unbind(1)
    for a, b in pairwise((*corners, corners[0])):
        (ax, ay), (bx, by) = a.unbind(1), b.unbind(1)
        rise = torch.where(by == ay, 1, by - ay)
        within ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * (bx - ax) / rise)
    return within


def _grid(size: int) -> Tensor:
    """[S, S, 2] where pixels lie, in picture widths."""
    axis = (torch.arange(size) + 0.5) / size
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"), 2)


def _soft(mask: Tensor) -> Tensor:
    """[B, 1, S, S] a mask [B, S, S] whose edge is three pixels wide, as a photo's is."""
    return avg_pool2d(pad(mask[:, None].float(), (1, 1, 1, 1), mode="replicate"), 3, 1)


def _mean(image: Tensor, mask: Tensor) -> Tensor:
    """[B, 3, 1, 1] the mean colour within masks [B, S, S]; 0 where there is nothing."""
    weight = mask[:, None].float()
    total: Tensor = (image * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp_min(1)
    return total
