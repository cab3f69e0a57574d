"""geoinv_core.train.mouths: teeth in a flash, lips of other colours."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geoinv_core.train.mouths import INNER, OUTER, filled, flashed, inside, lips_coloured


def ring(count: int, size: float) -> Tensor:
    angle = torch.arange(count) * (2 * math.pi / count)
    return 0.5 + size * torch.stack([angle.cos(), angle.sin() / 2], 1)


def test_a_flash_brightens_teeth_and_nothing_far_from_them() -> None:
    image, teeth = torch.rand(64, 3, 16, 16), torch.zeros(64, 16, 16, dtype=torch.bool)
    teeth[:, 6:10, 4:12] = True
    lit = flashed(image, teeth, torch.Generator().manual_seed(0))
    inner = torch.zeros(64, 3, 16, 16, dtype=torch.bool)
    inner[:, :, 6:10, 4:12] = True
    near = torch.zeros_like(inner)
    near[:, :, 5:11, 3:13] = True
    assert torch.equal(lit[~near], image[~near])
    assert (lit[near] >= image[near]).all()
    changed = (lit != image).flatten(1).any(1).float().mean()
    assert 0.4 < changed < 0.8


def test_points_inside_an_outline_are_told() -> None:
    square = torch.tensor([[[0.2, 0.2], [0.8, 0.2], [0.8, 0.6], [0.2, 0.6]]])
    at = torch.tensor([[0.5, 0.5], [0.5, 0.7], [0.1, 0.3], [0.79, 0.21], [0.9, 0.3]])
    assert inside(square, at).tolist() == [[True, False, False, True, False]]
    assert not inside(torch.full((1, 8, 2), 0.5), at).any()  # lips that are shut


def test_teeth_fill_a_narrow_opening_and_no_wide_one() -> None:
    B, S = 64, 48
    ibug = torch.rand(B, 68, 2)
    ibug[:, INNER] = ring(8, 0.3) * torch.tensor([1.0, 0.5]) + torch.tensor([0.0, 0.25])
    image = torch.full((B, 3, S, S), 0.2)
    drawn = filled(image, ibug, torch.Generator().manual_seed(0))
    middle = drawn[:, 0, S // 2, S // 2]
    assert 0.3 < (middle == 0.2).float().mean() < 0.7
    assert middle.max() > 0.75
    assert torch.equal(drawn[:, :, : S // 4], image[:, :, : S // 4])
    ibug[:, INNER] = ring(8, 0.3)
    assert torch.equal(filled(image, ibug, torch.Generator().manual_seed(0)), image)


def test_lips_take_other_colours_and_teeth_and_skin_keep_theirs() -> None:
    B, S = 96, 48
    ibug = torch.rand(B, 68, 2)
    ibug[:, OUTER], ibug[:, INNER] = ring(12, 0.3), ring(8, 0.12)
    skin, red = torch.tensor([0.8, 0.6, 0.5]), torch.tensor([0.6, 0.2, 0.2])
    axis = (torch.arange(S) + 0.5) / S
    at = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), 2)
    mouth, teeth = inside(ibug[:1, OUTER], at)[0], inside(ibug[:1, INNER], at)[0]
    image = torch.where((mouth & ~teeth)[..., None], red, skin).permute(2, 0, 1).expand(B, -1, -1, -1)
    drawn = lips_coloured(image, ibug, torch.Generator().manual_seed(1))
    apart = (at - 0.5).norm(dim=2)
    far = (apart > 0.34) | (apart < 0.03)
    assert torch.equal(drawn[..., far], image[..., far])
    middle = drawn[:, :, S // 2 - 1, int(S * 0.7)]  # between the lips' two edges
    apart_from_skin = (middle - skin).norm(dim=1) / (red - skin).norm()
    assert 0.2 < (middle == red).all(1).float().mean() < 0.5  # as drawn
    assert apart_from_skin.min() < 0.25  # pale
    assert apart_from_skin.max() > 1.25  # deep
