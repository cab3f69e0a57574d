"""Moving the content of planes: bilinear sampling at one place per texel, all channels at once."""

from __future__ import annotations

import ctypes
from ctypes import c_int32, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from geoinv_core.render.job import UnavailableError
from geoinv_core.render.library import library


class Warp(ctypes.Structure):
    """native/warp.h, field by field."""

    _fields_ = (
        *((name, c_int32) for name in ("planes", "channels", "slices", "height", "width")),
        *((name, c_int64 * 6) for name in ("strides", "g_strides")),
        *((name, c_void_p) for name in ("content", "at", "moved", "g_moved", "g_content", "g_at")),
    )


def warp(content: Tensor, at: Tensor) -> Tensor:
    """Tri-grids whose every texel shows what lies at the place named for it; beyond a border, what is there.

    Args:
        content: [B, P, C, D, H, W], float.
        at: [B, P, D, H, W, 2], column and row of that texel's own slice; -1..1 from border to border, as
            grid_sample counts without align_corners.
    Returns: [B, P, C, D, H, W], differentiable in both, once. On the CPU its memory holds texels whole, as
        the renderer reads them.
    """
    if content.device.type == "cpu":
        try:
            library(content.dtype)
        except UnavailableError:
            return twin(content, at)  # the renderer says why
        moved: Tensor = _warp_op(content, at)
        return moved.movedim(-1, 2)
    return twin(content, at)


def twin(content: Tensor, at: Tensor) -> Tensor:
    """`warp` in PyTorch."""
    slices = content.transpose(2, 3).flatten(0, 2)
    moved = grid_sample(slices, at.flatten(0, 2), padding_mode="border", align_corners=False)
    return moved.view(content.transpose(2, 3).shape).transpose(2, 3)


def _job(content: Tensor, at: Tensor) -> Warp:
    _, P, C, D, H, W = content.shape
    job = Warp(P, C, D, H, W, content=content.data_ptr(), at=at.data_ptr())
    job.strides[:] = content.stride()
    return job


@torch.library.custom_op(
    "geoinv::warp", mutates_args=(), schema="(Tensor content, Tensor at) -> Tensor", device_types="cpu"
)
def _warp_op(content: Tensor, at: Tensor) -> Tensor:
    """[B, P, D, H, W, C]"""
    content, at = content.detach(), at.detach().contiguous()
    B, P, C, D, H, W = content.shape
    moved = content.new_empty(B, P, D, H, W, C)
    job = _job(content, at)
    job.moved = moved.data_ptr()
    library(content.dtype).run("warp", job, B * P)
    return moved


@_warp_op.register_fake
def _(content: Tensor, at: Tensor) -> Tensor:
    B, P, C, D, H, W = content.shape
    return content.new_empty(B, P, D, H, W, C)


@torch.library.custom_op(
    "geoinv::warp_back",
    mutates_args=(),
    schema="(Tensor content, Tensor at, Tensor g_moved) -> (Tensor, Tensor)",
    device_types="cpu",
)
def _warp_back_op(content: Tensor, at: Tensor, g_moved: Tensor) -> tuple[Tensor, Tensor]:
    content, at, g_moved = content.detach(), at.detach().contiguous(), g_moved.detach().contiguous()
    g_content, g_at = torch.empty_like(content), torch.empty_like(at)
    job = _job(content, at)
    job.g_moved, job.g_content, job.g_at = g_moved.data_ptr(), g_content.data_ptr(), g_at.data_ptr()
    job.g_strides[:] = g_content.stride()
    library(content.dtype).run("warp_back", job, content.shape[0] * content.shape[1])
    return g_content, g_at


@_warp_back_op.register_fake
def _(content: Tensor, at: Tensor, g_moved: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(content), torch.empty_like(at)


def _backward(ctx: Any, g_moved: Tensor) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = _warp_back_op(*ctx.saved_tensors, g_moved)
    return found


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


_warp_op.register_autograd(_backward, setup_context=_save)
