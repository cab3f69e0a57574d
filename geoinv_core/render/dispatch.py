"""Which backend runs: CUDA, the CPU library, or PyTorch; each reason told once."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from geoinv_core.render.library import UnavailableError, library

NAMES = ("auto", "cuda", "cpu", "torch")
_log = logging.getLogger("geoinv.render")
_told: set[str] = set()


def _native(backend: str, tensor: Tensor) -> None:
    """Raises UnavailableError where the backend cannot run."""
    library(tensor.dtype)


def resolve(backend: str, tensor: Tensor) -> str:
    """The backend that will run for planes like this: "cuda", "cpu" or "torch".

    "auto" takes the native one where it can and tells once why not. Raises: ValueError for an unknown name or
    one that cannot take the tensor's device, UnavailableError for one asked for by name that cannot run.
    """
    if backend not in NAMES:
        raise ValueError(f"backend has to be one of {', '.join(NAMES)}, got {backend!r}.")
    device = tensor.device.type
    if backend == "torch":
        return backend
    if backend in ("cuda", "cpu") and device != backend:
        raise ValueError(f"backend {backend!r} needs tensors on that device, these are on {tensor.device}.")
    if backend == "auto" and (device != "cpu" or tensor.dtype != torch.float32):
        return "torch"
    try:
        _native(device, tensor)
    except UnavailableError as error:
        if backend != "auto":
            raise
        reason = str(error)
        if reason not in _told:
            _told.add(reason)
            _log.warning("Rendering runs in PyTorch, about ten times slower: %s.", reason)
        return "torch"
    return device


def report() -> list[str]:
    """One line per backend, for `doctor`: whether it would run here, and why not."""
    lines = []
    try:
        lines.append(f"cpu: {library(torch.float32).suffix.split('_')[0]} library")
    except UnavailableError as error:
        lines.append(f"cpu: no, {error}")
    lines.append("torch: always")
    return lines
