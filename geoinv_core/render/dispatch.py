"""Which backend runs: CUDA, the CPU library, or PyTorch; each reason told once."""

from __future__ import annotations

import logging
from types import ModuleType

import torch

from geoinv_core.render import cpu_backend, cuda_backend
from geoinv_core.render.field import Field
from geoinv_core.render.job import UnavailableError
from geoinv_core.render.library import library

NAMES = ("auto", "cuda", "cpu", "torch")
_log = logging.getLogger("geoinv.render")
_told: set[str] = set()


def _native(backend: str, field: Field) -> None:
    """Loads what the backend needs for a field. Raises UnavailableError where it cannot run."""
    if backend == "cuda":
        cuda_backend.program(field)
    else:
        library(field.planes.dtype)


def resolve(backend: str, field: Field) -> str:
    """The backend that will run for a field: "cuda", "cpu" or "torch".

    "auto" takes the native one where it can and tells once why not. Raises: ValueError for an unknown name or
    one that cannot take the field's device, UnavailableError for one asked for by name that cannot run.
    """
    if backend not in NAMES:
        raise ValueError(f"backend has to be one of {', '.join(NAMES)}, got {backend!r}.")
    device = field.planes.device.type
    if backend == "torch":
        return backend
    if backend in ("cuda", "cpu") and device != backend:
        raise ValueError(
            f"backend {backend!r} needs tensors on that device, these are on {field.planes.device}."
        )
    if backend == "auto" and (device not in ("cuda", "cpu") or field.planes.dtype != torch.float32):
        return "torch"
    try:
        _native(device, field)
    except UnavailableError as error:
        if backend != "auto":
            raise
        reason = str(error)
        if reason not in _told:
            _told.add(reason)
            _log.warning("Rendering runs in PyTorch, about ten times slower: %s.", reason)
        return "torch"
    return device


def native(backend: str) -> ModuleType:
    """The module behind "cuda" or "cpu"; both have the same functions."""
    return cuda_backend if backend == "cuda" else cpu_backend


def report() -> list[str]:
    """One line per backend, for `doctor`: whether it would run here, and why not."""
    return [f"cuda: {_cuda()}", f"cpu: {_cpu()}", "torch: always"]


def _cuda() -> str:
    if not torch.version.cuda:
        return "not in this PyTorch"
    if not torch.cuda.is_available():
        return "no device"
    try:
        found = cuda_backend.machine(torch.cuda.current_device())
    except UnavailableError as error:
        return f"no, {error}"
    return f"NVRTC {found.compiler.version} for sm_{found.arch}"


def _cpu() -> str:
    try:
        return f"{library(torch.float32).suffix.split('_')[0]} library"
    except UnavailableError as error:
        return f"no, {error}"
