"""The photo's own cast: found, and in every colour of the field."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from geoinv_core import render
from geoinv_core.detail.evidence import Seen
from geoinv_core.detail.tint import no_tint, recoloured, tint_of, tinted
from tests.core.tiny import plain


def seen_under(cast: torch.Tensor, share: float = 1.0) -> Seen:
    """A drawing of many colours, and a photo of the left `share` of it under a cast; the rest is white."""
    torch.manual_seed(3)
    ours = torch.randn(1, 3, 128, 128) * 0.6 - 0.3
    photo = recoloured(ours, cast) + 0.02 * torch.randn(1, 3, 128, 128)
    photo[..., int(128 * share) :] = 3.5
    one = torch.ones(1, 1, 128, 128)
    return Seen(photo, ours, one, one, one)


@pytest.mark.parametrize("share", [1.0, 0.75])
def test_the_cast_of_a_photo_is_found(share: float) -> None:
    grey = torch.cat([torch.full((3, 3), 1 / 3), torch.zeros(3, 1)], 1)
    warm = torch.cat([torch.eye(3), torch.tensor([[0.5], [0.1], [-0.6]])], 1)
    for cast in (grey, warm, no_tint()):
        found = tint_of(seen_under(cast, share))
        assert (found - cast).abs().max() < (0.05 if share == 1 else 0.25)


def test_without_a_photo_of_the_head_there_is_no_cast() -> None:
    seen = seen_under(no_tint() * 0.5)
    assert torch.equal(tint_of(replace(seen, bare=torch.zeros_like(seen.bare))), no_tint())


def test_a_tinted_field_has_tinted_colours_everywhere() -> None:
    _, _, field = plain()
    tint = torch.tensor([[0.8, 0.1, 0.0, 0.3], [0.0, 1.1, 0.1, 0.0], [0.2, 0.0, 0.7, -0.4]])
    points = torch.rand(1, 2000, 3) - 0.5
    raw, colour = render.query(field, points)
    raw_after, after = render.query(tinted(field, tint), points)
    assert torch.equal(raw, raw_after)
    for k in range(0, colour.shape[-1], 3):  # lit and unlit
        base, found = (torch.logit((x[0, :, k : k + 3] + 0.001) / 1.002) for x in (colour, after))
        assert (recoloured(base.T[None, :, :, None], tint)[0, :, :, 0].T - found).abs().max() < 2e-3
