"""A larger generator begins as the smaller one it comes from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from geoinv_core.generator import TriplaneGenerator
from geoinv_core.heads import HeadAssets, LabelLayout
from geoinv_core.train.enlarge import enlarge
from geoinv_core.train.generator import tiny_config


@pytest.mark.parametrize("change", [{"plane_depth": 2}, {"plane_depth": 4, "z_dim": 3}, {"c_dim": 5}])
def test_a_larger_generator_draws_the_same(assets: HeadAssets, change: dict[str, int]) -> None:
    torch.manual_seed(0)
    small = replace(tiny_config(LabelLayout.of(assets)), plane_depth=1)
    large = replace(
        small,
        z_dim=small.z_dim + change.get("z_dim", 0),
        c_dim=small.c_dim + change.get("c_dim", 0),
        plane_depth=change.get("plane_depth", 1),
    )
    first, second = TriplaneGenerator(small), TriplaneGenerator(large)
    for module in (first, second):
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    second.load_state_dict(enlarge(first.state_dict(), small, second))
    z, c = torch.randn(2, large.z_dim), torch.randn(2, large.c_dim)
    with torch.no_grad():
        flat = first.planes(first.map(z[:, : small.z_dim], c[:, : small.c_dim]))
        deep = second.planes(second.map(z, c))
    slices = deep.unbind(3) if large.plane_depth > 1 else (deep,)
    for found in slices:
        torch.testing.assert_close(found, flat, atol=1e-4, rtol=1e-4)
