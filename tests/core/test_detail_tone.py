"""Detail under edits that take colour away."""

from __future__ import annotations

from dataclasses import replace

import torch

from geoinv_core.detail import Texture, hue_left, sides_of, toned
from geoinv_core.detail.tint import no_tint
from tests.core.tiny import plain


def test_detail_loses_its_hue_with_the_colour_below_it_and_keeps_its_brightness() -> None:
    _, _, field = plain()
    sides = sides_of(field)
    R = 16
    brown = torch.tensor([0.5, 0.35, 0.2])[:, None, None].expand(len(sides), 3, R, R)
    grey = torch.full_like(brown, 0.6)
    change = torch.randn(len(sides), 3, R, R, generator=torch.Generator().manual_seed(0))
    texture = Texture(change, torch.zeros(len(sides), R, R), torch.zeros(len(sides)), no_tint())

    def hue(x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(1, keepdim=True)

    same = toned(texture, sides, brown, brown).change
    torch.testing.assert_close(same, change)
    torch.testing.assert_close(toned(texture, sides, grey, brown).change, change)  # gained, not lost
    paled = toned(texture, sides, brown, grey).change
    torch.testing.assert_close(paled.mean(1), change.mean(1))
    assert hue(paled).norm() < 0.25 * hue(change).norm()
    half = grey.clone()
    half[..., : R // 2] = brown[..., : R // 2]
    faint = replace(texture, change=0.1 * change)  # paints nothing over what lies below
    left = toned(faint, sides, brown, half).change - faint.change
    front = sides[0].upright(left[0])
    assert front[..., : R // 2 - 3].abs().max() < 1e-6 < front[..., R // 2 + 3 :].abs().max()


def test_hair_that_only_the_detail_paints_turns_grey_with_the_rest_and_skin_does_not() -> None:
    _, _, field = plain()
    sides = sides_of(field)
    R = 32
    skin, hair, grey = (
        torch.tensor(x)[:, None, None] for x in ([0.8, 0.6, 0.5], [0.45, 0.3, 0.18], [0.7, 0.7, 0.7])
    )
    before, after = (skin.expand(len(sides), 3, R, R).clone() for _ in range(2))
    before[:, :, : R // 2], after[:, :, : R // 2] = hair, grey  # the upper half is hair
    change = torch.zeros(len(sides), 3, R, R)
    change[0, :, 20:26, 4:12] = torch.logit(hair) - torch.logit(skin)  # a strand below it
    change[0, :, 20:26, 20:28] = 0.3  # a light spot
    laid = torch.stack([s.laid(x) for s, x in zip(sides, change, strict=True)])
    texture = Texture(laid, torch.zeros(len(sides), R, R), torch.zeros(len(sides)), no_tint())
    found = toned(texture, sides, before, after).change
    upright = torch.stack([s.upright(x) for s, x in zip(sides, found, strict=True)])
    strand = torch.sigmoid(torch.logit(after) + upright)[0, :, 20:26, 4:12]
    assert (strand.amax(0) - strand.amin(0)).max() < 0.1  # grey
    assert (strand.mean() - 0.7).abs() < 0.1
    assert torch.equal(upright[0, :, 20:26, 20:28], change[0, :, 20:26, 20:28])


def test_hair_keeps_of_the_hue_that_the_photo_shows_what_the_labels_leave() -> None:
    _, _, field = plain()
    sides = sides_of(field)
    brown, drab = (torch.tensor(x)[:, None, None] for x in ([0.45, 0.3, 0.18], [0.6, 0.55, 0.5]))
    before, after = (x.expand(len(sides), 3, 16, 16) for x in (brown, drab))
    change = 0.2 * torch.randn(len(sides), 3, 16, 16, generator=torch.Generator().manual_seed(0))
    laid = torch.stack([s.laid(x) for s, x in zip(sides, change, strict=True)])
    texture = Texture(laid, torch.zeros(len(sides), 16, 16), torch.zeros(len(sides)), no_tint())

    def shown(of: Texture, colour: torch.Tensor) -> torch.Tensor:
        upright = torch.stack([s.upright(x) for s, x in zip(sides, of.change, strict=True)])
        logits = torch.logit(colour) + upright
        return logits - logits.mean(1, keepdim=True)

    found = shown(toned(texture, sides, before, after, 0.2), after)
    torch.testing.assert_close(found, 0.2 * shown(texture, before), rtol=0, atol=1e-4)


def test_share_of_hue_by_colours() -> None:
    brown, grey, black = (torch.tensor(x) for x in ([0.45, 0.3, 0.18], [0.5, 0.5, 0.5], [0.0, 0.0, 0.0]))
    assert hue_left(brown, grey) < 0.1
    assert hue_left(grey, brown) == hue_left(brown, brown) == hue_left(black, black) == 1
