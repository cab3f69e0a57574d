"""Which backend runs: CUDA, the CPU library, or PyTorch; each reason told once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from geoinv_core.render import cpu_backend, torch_backend
from geoinv_core.render.field import Field
from geoinv_core.render.library import UnavailableError, library
from geoinv_core.render.march import Gradients, March, Sums, Wanted

NAMES = ("auto", "cuda", "cpu", "torch")
T = TypeVar("T")
_log = logging.getLogger("geoinv.render")
_told: set[str] = set()


def choose(backend: str, tensor: Tensor) -> str:
    """The backend to try first for tensors on this device and of this dtype.

    Raises: ValueError for an unknown name, or one that cannot take the tensor's device.
    """
    if backend not in NAMES:
        raise ValueError(f"backend has to be one of {', '.join(NAMES)}, got {backend!r}.")
    device = tensor.device.type
    if backend == "auto":
        native = device == "cpu" and tensor.dtype == torch.float32
        return "cpu" if native else "torch"
    if backend in ("cuda", "cpu") and device != backend:
        raise ValueError(f"backend {backend!r} needs tensors on that device, these are on {tensor.device}.")
    return backend


def _run(backend: str, tensor: Tensor, native: Callable[[], T], plain: Callable[[], T]) -> T:
    chosen = choose(backend, tensor)
    if chosen == "torch":
        return plain()
    try:
        return native()
    except UnavailableError as error:
        if backend != "auto":
            raise
        reason = str(error)
        if reason not in _told:
            _told.add(reason)
            _log.warning("Rendering runs in PyTorch, about ten times slower: %s.", reason)
        return plain()


def render(field: Field, march: March, backend: str) -> Sums:
    return _run(
        backend,
        field.planes,
        lambda: cpu_backend.render(field, march),
        lambda: torch_backend.render(field, march),
    )


def render_back(field: Field, march: March, g: Sums, wanted: Wanted, backend: str) -> Gradients:
    return _run(
        backend,
        field.planes,
        lambda: cpu_backend.render_back(field, march, g, wanted),
        lambda: torch_backend.render_back(field, march, g, wanted),
    )


def query(field: Field, points: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    return _run(
        backend,
        field.planes,
        lambda: cpu_backend.query(field, points, True),
        lambda: torch_backend.query_flat(field, points),
    )


def query_back(
    field: Field, points: Tensor, g_raw: Tensor, g_features: Tensor, wanted: Wanted, backend: str
) -> Gradients:
    return _run(
        backend,
        field.planes,
        lambda: cpu_backend.query_back(field, points, g_raw, g_features, wanted),
        lambda: torch_backend.query_back(field, points, g_raw, g_features, wanted),
    )


def report() -> list[str]:
    """One line per backend, for `doctor`: whether it would run here, and why not."""
    lines = []
    try:
        lines.append(f"cpu: {library(torch.float32).suffix.split('_')[0]} library")
    except UnavailableError as error:
        lines.append(f"cpu: no, {error}")
    lines.append("torch: always")
    return lines
