"""Two PyTorch operators, `geoinv::march` and `geoinv::look`, with shapes and gradients, over native code.

The backward passes are operators too: they compute the samples again instead of storing them. The PyTorch
backend does the same through an autograd function, as an operator's own code runs below autograd.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geoinv_core.render import dispatch, torch_backend
from geoinv_core.render.field import Field
from geoinv_core.render.march import Gradients, March, Sums, Wanted

_FIELD = "Tensor planes, Tensor axes, Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor beta"
_RAYS = "Tensor origins, Tensor directions, Tensor near, Tensor far, Tensor? u_coarse, Tensor? u_fine"
_PLAIN = (
    "density",
    "distance_scale",
    "distance_radius",
    "activation",
    "signed",
    "box_warp",
    "crop",
    "white_back",
)
_MARCH = ("coarse", "fine", "disparity", "jitter", "skip", "keep")


def _settings(field: Field, march: March | None, backend: str) -> str:
    values = {"field": {k: getattr(field, k) for k in _PLAIN}, "backend": backend}
    if march is not None:
        values["march"] = {k: getattr(march, k) for k in _MARCH}
    return json.dumps(values)


def _field(tensors: tuple[Tensor, ...], settings: dict[str, Any]) -> Field:
    planes, axes, w1, b1, w2, b2, beta = (t.detach() for t in tensors)
    return Field(planes, axes, w1, b1, w2, b2, beta=beta, **settings["field"])


def _march(rays: tuple[Any, ...], settings: dict[str, Any]) -> March:
    detached: list[Any] = [None if t is None else t.detach() for t in rays]
    return March(*detached, **settings["march"])


def _filled(found: Gradients, like: Tensor) -> list[Tensor]:
    """Operators return tensors only: an empty one stands for "not wanted"."""
    return [like.new_empty(0) if t is None else t for t in found.in_order()]


# ---- march -----------------------------------------------------------------------------------------


@torch.library.custom_op(
    "geoinv::march",
    mutates_args=(),
    schema=f"({_FIELD}, {_RAYS}, str settings) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _march_op(*args: Any) -> tuple[Tensor, ...]:
    settings = json.loads(args[13])
    return tuple(
        dispatch.native(settings["backend"]).render(_field(args[:7], settings), _march(args[7:13], settings))
    )


@_march_op.register_fake
def _(*args: Any) -> tuple[Tensor, ...]:
    settings = json.loads(args[13])["march"]
    like, features = args[7], args[4].shape[0] - 1
    B, R = like.shape[:2]
    n = settings["coarse"] + settings["fine"]
    keep = settings["keep"]
    return (
        like.new_empty(B, R, features),
        like.new_empty(B, R),
        like.new_empty(B, R),
        like.new_empty(B, R, 2),
        like.new_empty((B, R, n - 1) if keep else 0),
        like.new_empty((B, R, n) if keep else 0),
    )


@torch.library.custom_op(
    "geoinv::march_back",
    mutates_args=(),
    schema=f"({_FIELD}, {_RAYS}, str settings, "
    "Tensor g_total, Tensor g_depth, Tensor g_opacity, int[] wanted) -> Tensor[]",
)
def _march_back_op(*args: Any) -> list[Tensor]:
    settings = json.loads(args[13])
    g = Sums(args[14], args[15], args[16], args[14], args[14], args[14])
    wanted = Wanted(*(bool(v) for v in args[17]))
    march = replace(_march(args[7:13], settings), keep=False)
    return _filled(
        dispatch.native(settings["backend"]).render_back(_field(args[:7], settings), march, g, wanted),
        args[0],
    )


def _fake_gradients(args: Any, rays: tuple[Tensor, ...], wanted: list[int]) -> list[Tensor]:
    planes, _, w1, b1, w2, b2, beta = args[:7]
    groups = [(planes, 0), (w1, 1), (b1, 1), (w2, 1), (b2, 1), (beta, 2), *((r, 3) for r in rays)]
    found = [torch.empty_like(t) if wanted[k] else planes.new_empty(0) for t, k in groups]
    return found + [planes.new_empty(0)] * (8 - len(found))


@_march_back_op.register_fake
def _(*args: Any) -> list[Tensor]:
    return _fake_gradients(args, (args[7], args[8]), args[17])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, settings = inputs
    ctx.settings = settings
    ctx.save_for_backward(*tensors)


def _scatter(
    found: list[Tensor], needs: tuple[bool, ...], rays: tuple[int, ...], count: int
) -> list[Tensor | None]:
    """Gradients in the order of the operator's inputs."""
    places = dict(zip((0, 2, 3, 4, 5, 6, *rays), found, strict=False))
    return [places[i] if i in places and needs[i] else None for i in range(count)]


def _march_backward(
    ctx: Any, g_total: Tensor, g_depth: Tensor, g_opacity: Tensor, *_rest: Any
) -> tuple[Any, ...]:
    needs = ctx.needs_input_grad
    wanted = [needs[0], any(needs[2:6]), needs[6], needs[7] or needs[8]]
    tensors = ctx.saved_tensors
    found = _march_back_op(*tensors, ctx.settings, g_total, g_depth, g_opacity, [int(w) for w in wanted])
    return tuple(_scatter(found, needs, (7, 8), len(tensors) + 1))


_march_op.register_autograd(_march_backward, setup_context=_save)


class _TorchMarch(torch.autograd.Function):
    """The PyTorch backend with the memory of one chunk."""

    @staticmethod
    def forward(ctx: Any, settings: str, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        ctx.settings = settings
        ctx.save_for_backward(*tensors)
        values = json.loads(settings)
        inputs: tuple[Any, ...] = tensors
        sums = torch_backend.render(_field(inputs[:7], values), _march(inputs[7:], values))
        ctx.mark_non_differentiable(sums.extent, sums.weights, sums.depths)
        return tuple(sums)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, g_total: Tensor, g_depth: Tensor, g_opacity: Tensor, *_rest: Any) -> Any:
        values, tensors, needs = json.loads(ctx.settings), ctx.saved_tensors, ctx.needs_input_grad[1:]
        g = Sums(g_total, g_depth, g_opacity, g_total, g_total, g_total)
        wanted = Wanted(needs[0], any(needs[2:6]), needs[6], needs[7] or needs[8])
        found = torch_backend.render_back(_field(tensors[:7], values), _march(tensors[7:], values), g, wanted)
        return (None, *_scatter(_filled(found, tensors[0]), needs, (7, 8), len(tensors)))


def march(field: Field, job: March, backend: str) -> Sums:
    """March, differentiably in planes, decoder, beta, origins and directions; once."""
    chosen = dispatch.resolve(backend, field)
    settings = _settings(field, job, chosen)
    tensors = (
        *(field.planes, field.axes, field.w1, field.b1, field.w2, field.b2, field.beta),
        *(job.origins, job.directions, job.near, job.far, job.u_coarse, job.u_fine),
    )
    if chosen == "torch":
        return Sums(*_TorchMarch.apply(settings, *tensors))  # type: ignore[no-untyped-call, unused-ignore]
    return Sums(*_march_op(*tensors, settings))


# ---- look ------------------------------------------------------------------------------------------


@torch.library.custom_op(
    "geoinv::look", mutates_args=(), schema=f"({_FIELD}, Tensor points, str settings) -> (Tensor, Tensor)"
)
def _look_op(*args: Any) -> tuple[Tensor, Tensor]:
    settings = json.loads(args[8])
    found: tuple[Tensor, Tensor] = dispatch.native(settings["backend"]).query(
        _field(args[:7], settings), args[7].detach(), True
    )
    return found


@_look_op.register_fake
def _(*args: Any) -> tuple[Tensor, Tensor]:
    points = args[7]
    B, N = points.shape[:2]
    return points.new_empty(B, N), points.new_empty(B, N, args[4].shape[0] - 1)


@torch.library.custom_op(
    "geoinv::look_back",
    mutates_args=(),
    schema=f"({_FIELD}, Tensor points, str settings, "
    "Tensor g_raw, Tensor g_features, int[] wanted) -> Tensor[]",
)
def _look_back_op(*args: Any) -> list[Tensor]:
    settings = json.loads(args[8])
    wanted = Wanted(*(bool(v) for v in args[11]))
    field = _field(args[:7], settings)
    found = dispatch.native(settings["backend"]).query_back(
        field, args[7].detach(), args[9], args[10], wanted
    )
    return _filled(found, args[0])


@_look_back_op.register_fake
def _(*args: Any) -> list[Tensor]:
    return _fake_gradients(args, (args[7],), args[11])


def _look_backward(ctx: Any, g_raw: Tensor, g_features: Tensor) -> tuple[Any, ...]:
    needs = ctx.needs_input_grad
    wanted = [needs[0], any(needs[2:6]), False, needs[7]]
    tensors = ctx.saved_tensors
    found = _look_back_op(*tensors, ctx.settings, g_raw, g_features, [int(w) for w in wanted])
    places = [found[i] for i in (0, 1, 2, 3, 4, 5, 6)]
    return tuple(_scatter(places, (*needs[:6], False, *needs[7:]), (7,), len(tensors) + 1))


_look_op.register_autograd(_look_backward, setup_context=_save)


def look(field: Field, points: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    """Raw values [B, N, 1] and features [B, N, F], differentiable in planes, decoder and points.

    Twice where the points want a gradient: that is done in PyTorch on every backend.
    """
    chosen = dispatch.resolve(backend, field)
    if chosen == "torch" or (points.requires_grad and torch.is_grad_enabled()):
        return torch_backend.query(field, points)
    raw, features = _look_op(
        *(field.planes, field.axes, field.w1, field.b1, field.w2, field.b2, field.beta),
        *(points, _settings(field, None, chosen)),
    )
    return raw.unsqueeze(-1), features
