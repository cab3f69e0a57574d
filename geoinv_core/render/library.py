"""The CPU library through ctypes: loaded at first use, its work cut into ranges for a pool of threads."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ctypes import c_int64, c_void_p
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from geoinv_core.render.job import Job, UnavailableError

MOST_LANES = 16
"""Fewer make a newer processor do what an older one does."""


class Library:
    """The entry points for one scalar type."""

    def __init__(self, handle: ctypes.CDLL, suffix: str, lanes: int) -> None:
        self.suffix, self.lanes = suffix, lanes
        pointer = ctypes.POINTER(Job)
        self._entry: dict[str, Any] = {}
        for name, arguments, result in (
            ("tiles", [pointer], c_int64),
            ("slabs", [pointer], c_int64),
            ("render", [pointer, c_int64, c_int64], ctypes.c_int),
            ("render_back", [pointer, c_int64, c_int64, c_void_p], ctypes.c_int),
            ("query", [pointer, c_int64, c_int64], ctypes.c_int),
            ("query_back", [pointer, c_int64, c_int64, c_void_p], ctypes.c_int),
            ("grid", [pointer, c_int64, c_int64], ctypes.c_int),
            ("warp", [c_void_p, c_int64, c_int64], ctypes.c_int),
            ("warp_back", [c_void_p, c_int64, c_int64], ctypes.c_int),
            ("cross", [c_void_p], ctypes.c_int),
            (
                "pack",
                [c_void_p, c_void_p, c_int64, c_int64, ctypes.c_int, ctypes.c_int, c_int64],
                ctypes.c_int,
            ),
            (
                "unpack",
                [c_void_p, c_void_p, c_int64, c_int64, ctypes.c_int, ctypes.c_int, c_int64],
                ctypes.c_int,
            ),
        ):
            function = getattr(handle, f"gi_{name}_{suffix}")
            function.argtypes, function.restype = arguments, result
            self._entry[name] = function

    def count(self, name: str, job: Job) -> int:
        return int(self._entry[name](ctypes.byref(job)))

    def run(
        self, name: str, job: ctypes.Structure, count: int, slots: list[int | None] | None = None
    ) -> None:
        """Do ranges of 0 .. count on the pool.

        Args:
            slots: one address (or None) per worker, handed to it as a last argument: its own gradient buffer.
        """
        function = self._entry[name]
        address = ctypes.byref(job)

        def work(first: int, last: int, worker: int) -> None:
            extra = () if slots is None else (slots[worker],)
            if function(address, first, last, *extra):
                raise MemoryError(
                    "The renderer ran out of memory; close other programs or render fewer rays."
                )

        spread(work, count, threads() if slots is None else len(slots))

    def cross(self, job: ctypes.Structure) -> None:
        """Find where a surface passes through itself, see native/cross.h."""
        if self._entry["cross"](ctypes.byref(job)):
            raise MemoryError("The search for crossing faces ran out of memory; close other programs.")

    def repack(
        self, name: str, source: Tensor, target: Tensor, planes: int, channels: int, padded: int
    ) -> None:
        """ "pack" [planes, channels, texels] to [planes, texels, padded], or "unpack" the other way."""
        texels = source.numel() // (planes * (channels if name == "pack" else padded))
        function = self._entry[name]

        def work(first: int, last: int, _worker: int) -> None:
            function(source.data_ptr(), target.data_ptr(), first, last, channels, padded, texels)

        spread(work, planes, threads())


def threads() -> int:
    """As many as PyTorch would use."""
    return torch.get_num_threads()


@lru_cache(1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="geoinv-render")


def spread(work: Callable[[int, int, int], None], count: int, workers: int) -> None:
    """work(first, last, worker) over 0 .. count in ranges that workers fetch one after another."""
    workers = max(1, min(workers, count))
    step = max(1, count // (workers * 8)) if workers > 1 else max(1, count)
    lock = threading.Lock()
    position = 0

    def fetch(worker: int) -> None:
        nonlocal position
        while True:
            with lock:
                first, position = position, position + step
            if first >= count:
                return
            work(first, min(first + step, count), worker)

    others = [_pool().submit(fetch, k) for k in range(1, workers)]
    try:
        fetch(0)
    finally:
        for other in others:  # a range that another thread still writes must not outlive its buffers
            other.exception()
    for other in others:
        other.result()


def _open(variant: str) -> ctypes.CDLL:
    from geoinv_core.render import build  # not at import: it is a program of its own (python -m)

    for path in build.library_paths(variant):
        if path.exists():
            try:
                return ctypes.CDLL(str(path))
            except OSError as error:
                raise UnavailableError(f"{path.name} does not load ({error})") from error
    raise UnavailableError("the library is not built (python build.py native)")


@lru_cache(1)
def _load() -> dict[torch.dtype, Library] | str:
    try:
        plain = _open("plain")
        plain.gi_job_size.restype = c_int64
        if plain.gi_job_size() != ctypes.sizeof(Job):
            raise UnavailableError("the library is of another version (python build.py native)")
        found = {torch.float32: Library(plain, "plain_f32", 1), torch.float64: Library(plain, "plain_f64", 1)}
        if lanes := min(plain.gi_lanes(), MOST_LANES):
            variant = {8: "avx2", 16: "avx512"}[lanes]
            found[torch.float32] = Library(_open(variant), f"{variant}_f32", lanes)
        return found
    except (UnavailableError, AttributeError) as error:
        return str(error)


def library(dtype: torch.dtype) -> Library:
    """The loaded library for float32 or float64. Raises UnavailableError."""
    found = _load()
    if isinstance(found, str):
        raise UnavailableError(found)
    if dtype not in found:
        raise UnavailableError(f"the library does not compute in {dtype}")
    return found[dtype]


def forget() -> None:
    """Look for the library again at the next use (after a build)."""
    _load.cache_clear()
