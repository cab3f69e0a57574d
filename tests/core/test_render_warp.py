"""Moving the content of planes: the native operator against its twin in PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from geoinv_core.render import library
from geoinv_core.render.warp import twin, warp

SHAPES = [(2, 3, 32, 2, 16, 16), (1, 1, 5, 1, 7, 9), (1, 2, 16, 3, 1, 4), (3, 1, 1, 1, 2, 2)]


def _inputs(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Content, places (some beyond the border), and a gradient."""
    r = torch.Generator().manual_seed(seed)
    B, P, _, D, H, W = shape
    content = torch.randn(shape, generator=r, dtype=dtype)
    at = torch.rand(B, P, D, H, W, 2, generator=r, dtype=dtype) * 2.6 - 1.3
    return content, at, torch.randn(shape, generator=r, dtype=dtype)


def _with_gradients(move: object, content: Tensor, at: Tensor, g: Tensor) -> list[Tensor]:
    content, at = content.detach().requires_grad_(), at.detach().requires_grad_()
    moved = move(content, at)  # type: ignore[operator]  # either function
    return [moved.detach(), *torch.autograd.grad(moved, (content, at), g)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", [None, (0, 3, 4, 5, 1, 2), (5, 0, 2, 1, 4, 3)])
@pytest.mark.parametrize("lanes", [0, 8, 16])
def test_the_native_operator_moves_what_its_twin_moves(
    shape: tuple[int, ...], order: tuple[int, ...] | None, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "MOST_LANES", lanes)
    library.forget()
    content, at, g = _inputs(shape, torch.float32)
    if order is not None:  # another order of the same numbers in memory
        back = [order.index(i) for i in range(6)]
        content = content.permute(order).contiguous().permute(back)
    found = _with_gradients(warp, content, at, g)
    library.forget()
    for ours, wanted in zip(found, _with_gradients(twin, content, at, g), strict=True):
        torch.testing.assert_close(ours, wanted, atol=2e-5, rtol=1e-4)


def test_gradients_are_those_of_finite_differences() -> None:
    content, at, _ = _inputs((1, 2, 3, 1, 4, 5), torch.float64)
    assert torch.autograd.gradcheck(warp, (content.requires_grad_(), at.requires_grad_()))


def test_the_operator_keeps_torchs_rules() -> None:
    from geoinv_core.render.warp import _warp_op

    content, at, _ = _inputs((1, 1, 4, 2, 3, 3), torch.float32)
    torch.library.opcheck(_warp_op, (content.requires_grad_(), at.requires_grad_()))


def test_places_that_are_no_numbers_do_no_harm() -> None:
    content, at, _ = _inputs((1, 1, 4, 1, 3, 3), torch.float32)
    at[0, 0, 0, 1, 1] = float("nan")
    at[0, 0, 0, 2, 2] = float("inf")
    moved = warp(content, at)
    assert torch.isfinite(moved[..., 2, 2]).all()


def test_one_place_for_all_texels_shows_it_everywhere() -> None:
    content, at, _ = _inputs((1, 1, 4, 1, 5, 5), torch.float32)
    at[:] = torch.tensor([0.0, 0.4])  # the middle of column 2, row 3
    assert torch.allclose(warp(content, at), content[..., 3:4, 2:3].expand_as(content))
