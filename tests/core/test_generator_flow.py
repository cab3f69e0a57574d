"""Displacement fields: nothing moves at first, a constant field shifts, gradients reach everything."""

from __future__ import annotations

import torch

from geoinv_core.generator.flow import RESOLUTION, Flow


def planes_of(count: int = 2, side: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 3, 4, side, side, generator=generator)


def test_nothing_moves_before_training() -> None:
    planes, w = planes_of(), torch.randn(2, 8)
    moved = Flow(3, 1, 8, rank=5)(planes, w)
    torch.testing.assert_close(moved, planes, atol=1e-5, rtol=0)


def test_a_constant_field_shifts_what_stands_on_its_plane_only() -> None:
    flow = Flow(3, 1, 1, rank=1)
    texel = 2 / 16
    with torch.no_grad():
        flow.weights.weight.fill_(1 / flow.weights.weight_gain)
        flow.fields.zero_()
        flow.fields[0, 1, 0, 0] = texel  # the second plane, along its columns
    planes = planes_of(1)
    moved = flow(planes, torch.full((1, 1), 2.0))
    torch.testing.assert_close(moved[:, [0, 2]], planes[:, [0, 2]], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[:, 1, ..., :-2], planes[:, 1, ..., 2:], atol=1e-4, rtol=0)
    # beyond the border everything stays as it is there
    border = planes[:, 1, ..., -1:].expand_as(moved[:, 1, ..., -2:])
    torch.testing.assert_close(moved[:, 1, ..., -2:], border, atol=1e-4, rtol=0)


def test_gradients_reach_planes_style_and_fields() -> None:
    flow = Flow(3, 1, 8, rank=5)
    torch.nn.init.normal_(flow.weights.weight)
    planes, w = planes_of().requires_grad_(), torch.randn(2, 8, requires_grad=True)
    flow(planes, w).square().sum().backward()
    for x in (planes, w, flow.fields, flow.weights.weight):
        assert x.grad is not None
        assert float(x.grad.abs().max()) > 0
    assert flow.fields.shape == (5, 3, 1, 2, RESOLUTION, RESOLUTION)


def test_slices_of_a_tri_grid_move_by_themselves() -> None:
    flow = Flow(3, 2, 1, rank=1)
    with torch.no_grad():
        flow.weights.weight.fill_(1 / flow.weights.weight_gain)
        flow.fields.zero_()
        flow.fields[0, 2, 1, 1] = 2 / 16  # the third plane's farther slice, one texel along its rows
    planes = torch.stack([planes_of(1), planes_of(1)], 3)
    moved = flow(planes, torch.ones(1, 1))
    assert moved.shape == planes.shape
    torch.testing.assert_close(moved[:, :2], planes[:, :2], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[:, 2, :, 0], planes[:, 2, :, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[:, 2, :, 1, :-1], planes[:, 2, :, 1, 1:], atol=1e-4, rtol=0)
