"""Expressions stay where they move something."""

from __future__ import annotations

from dataclasses import replace

import torch

from geoinv_core.edit.local import moved_planes, moving_share
from geoinv_core.generator import GeneratorConfig, TriplaneGenerator

CONFIG = GeneratorConfig(
    z_dim=4, c_dim=0, w_dim=8, mapping_layers=1, channels=((4, 8), (8, 8), (16, 8)), plane_channels=4,
    plane_depth=2, noise=False, flow_rank=2, density="sdf",
)  # fmt: skip


def test_small_drifts_are_taken_for_rest() -> None:
    moves = torch.full((1, 1, 32, 32), 0.1)
    moves[..., 10:14, 10:14] = 1.0
    share = moving_share(moves)
    assert float(share[0, 0, 12, 12]) == 1
    assert float(share[0, 0, 25:, 25:].max()) == 0
    assert share.min() >= 0
    assert share.max() <= 1


def test_planes_change_where_the_flow_moves_them_only() -> None:
    torch.manual_seed(0)
    generator = TriplaneGenerator(CONFIG).requires_grad_(False)
    flow = generator.backbone.flow
    assert flow is not None
    flow.weights.weight.normal_()
    flow.fields.zero_()
    flow.fields[:, 0, 1, :, 20:28, 20:28] = 0.2  # one spot of one slice
    before, after = (torch.randn(1, 1, 8).expand(1, generator.num_ws, 8) for _ in range(2))
    found, whole = moved_planes(generator, before, after), generator.planes(after)
    rest = generator.planes(before)
    torch.testing.assert_close(found[:, 0, :, 1, 6, 6], whole[:, 0, :, 1, 6, 6])
    elsewhere = torch.ones(found.shape, dtype=torch.bool)
    elsewhere[:, 0, :, 1, 3:10, 3:10] = False
    assert torch.equal(found[elsewhere], rest[elsewhere])
    assert not torch.equal(whole[elsewhere], rest[elsewhere])


def test_without_displacements_the_edited_code_is_drawn_as_it_is() -> None:
    generator = TriplaneGenerator(replace(CONFIG, flow_rank=0)).requires_grad_(False)
    before, after = (torch.randn(1, generator.num_ws, 8) for _ in range(2))
    assert torch.equal(moved_planes(generator, before, after), generator.planes(after))
