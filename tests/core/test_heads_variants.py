"""Variants: one thing changes, and the drawn pair differs where it shows."""

from __future__ import annotations

from dataclasses import fields

import torch

from geoinv_core.heads import HeadAssets, sample
from geoinv_core.heads.variants import variant
from geoinv_core.train.supervision import _favour, changed

TOGETHER = {"age": {"age", "skin"}, "weight": {"weight", "muscle"}}


def test_a_variant_changes_one_thing_and_always_the_same(assets: HeadAssets) -> None:
    kinds = set()
    for seed in range(40):
        head = sample(assets, seed)
        other = variant(assets, head, seed)
        assert other == variant(assets, head, seed)
        different = {f.name for f in fields(head) if getattr(head, f.name) != getattr(other, f.name)}
        kinds |= different
        assert different <= max(
            ({"expression"}, {"hair_colour"}, *TOGETHER.values()), key=lambda kind: len(different & kind)
        )
        assert all(0 <= weight <= 1 for weight in other.expression.values())
    assert {"expression", "hair_colour", "age", "weight"} <= kinds


def test_pairs_differ_where_colour_or_depth_does() -> None:
    albedo = torch.zeros(2, 1, 4, 4, 3, dtype=torch.uint8)
    depth = torch.full((2, 1, 4, 4), 30_000, dtype=torch.int32)
    albedo[1, 0, 0, 0, 2] = 40
    depth[1, 0, 3, 3] += 500
    albedo[0, 0, 1, 1, 0] = 5  # too little to count
    found = changed({"albedo": albedo, "depth": depth})
    assert found.shape == (2, 1, 4, 4)
    assert torch.equal(found[0], found[1])
    assert found[0, 0].nonzero().tolist() == [[0, 0], [3, 3]]


def test_half_of_the_weight_goes_to_what_is_favoured() -> None:
    weight = torch.ones(2, 20)
    chosen = torch.zeros(2, 20, dtype=torch.bool)
    chosen[0, :4] = True
    result = _favour(weight, chosen)
    assert float(result[0, :4].sum()) == float(result[0, 4:].sum())
    assert torch.equal(result[1], weight[1])
