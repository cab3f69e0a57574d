"""The CUDA driver through ctypes: modules and launches in the context that PyTorch uses."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_int, c_uint, c_void_p
from functools import lru_cache
from typing import Any

from geoinv_core.render.job import UnavailableError

MAX_DYNAMIC_SHARED = 8
"""CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES"""
PROCESSORS, MAJOR, MINOR, SHARED = 16, 75, 76, 97
"""CU_DEVICE_ATTRIBUTE_..: MULTIPROCESSOR_COUNT, COMPUTE_CAPABILITY_MAJOR, _MINOR, and the bytes of shared
memory that a block may ask for, MAX_SHARED_MEMORY_PER_BLOCK_OPTIN."""


class DriverError(RuntimeError):
    """A call of the CUDA driver failed."""


class Driver:
    """The driver's functions that are needed here.

    Args:
        library: libcuda, or an object with its functions.
    """

    def __init__(self, library: Any) -> None:
        self._lib = library
        self.check(library.cuInit(0), "start")

    def check(self, status: int, what: str) -> None:
        """Raises DriverError unless a call went well."""
        if status:
            text = c_char_p()
            self._lib.cuGetErrorString(status, byref(text))
            reason = (text.value or b"unknown").decode()
            raise DriverError(f"the CUDA driver could not {what} ({reason}, error {status})")

    def primary_context(self, index: int) -> int:
        """The context of device `index` (PyTorch's own), kept for the rest of the process."""
        device, context = c_int(), c_void_p()
        self.check(self._lib.cuDeviceGet(byref(device), index), "find the device")
        self.check(self._lib.cuDevicePrimaryCtxRetain(byref(context), device), "use the device")
        return context.value or 0

    def attribute(self, index: int, which: int) -> int:
        """A number that describes device `index`."""
        device, value = c_int(), c_int()
        self.check(self._lib.cuDeviceGet(byref(device), index), "find the device")
        self.check(self._lib.cuDeviceGetAttribute(byref(value), which, device), "describe the device")
        return value.value

    @contextmanager
    def current(self, context: int) -> Iterator[None]:
        """With the context current in this thread (autograd's threads come without)."""
        self.check(self._lib.cuCtxPushCurrent_v2(c_void_p(context)), "enter its context")
        try:
            yield
        finally:
            self.check(self._lib.cuCtxPopCurrent_v2(byref(c_void_p())), "leave its context")

    def load(self, cubin: bytes) -> int:
        """A module of the current context."""
        module = c_void_p()
        self.check(self._lib.cuModuleLoadData(byref(module), cubin), "load the renderer")
        return module.value or 0

    def function(self, module: int, name: str) -> int:
        found = c_void_p()
        self.check(
            self._lib.cuModuleGetFunction(byref(found), c_void_p(module), name.encode()), f"find {name}"
        )
        return found.value or 0

    def allow_shared(self, function: int, size: int) -> None:
        """Let launches of a function have so many bytes of shared memory."""
        self.check(
            self._lib.cuFuncSetAttribute(c_void_p(function), MAX_DYNAMIC_SHARED, size),
            f"give {size} bytes of shared memory",
        )

    def launch(
        self,
        function: int,
        grid: tuple[int, int, int],
        threads: int,
        shared: int,
        stream: int,
        parameters: tuple[ctypes.Structure, ...],
    ) -> None:
        """Queue a kernel; its parameters are structures, handed over by value."""
        addresses = (c_void_p * len(parameters))(*(ctypes.addressof(p) for p in parameters))
        sizes = [c_uint(n) for n in (*grid, threads, 1, 1, shared)]
        status = self._lib.cuLaunchKernel(
            c_void_p(function), *sizes, c_void_p(stream), addresses, c_void_p(None)
        )
        self.check(status, "start a kernel")


@lru_cache(1)
def load() -> Driver:
    """The installed driver. Raises UnavailableError."""
    name = "nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1"
    try:
        return Driver(ctypes.CDLL(name))
    except OSError as error:
        raise UnavailableError(f"the NVIDIA driver's {name} does not load ({error})") from error
    except (AttributeError, DriverError) as error:
        raise UnavailableError(str(error)) from error
