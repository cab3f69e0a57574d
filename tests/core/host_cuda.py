"""A CUDA machine made of a CPU: NVRTC and the driver as objects with the C functions that are called.

"Compiling" builds kernels_on_host.cpp with the system's C++ compiler, "loading" opens the result, and
"launching" runs every thread of every block. So all from `cuda_backend` down to the kernels' own source
is what a GPU runs.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from ctypes import c_uint, c_void_p
from pathlib import Path
from typing import Any

from geoinv_core.render import build, cuda_backend, driver, nvrtc

SOURCE = Path(__file__).with_name("kernels_on_host.cpp")
ARCHS = (75, 90)


class Nvrtc:
    """Compiles for the host. What is asked of it is kept in `compiled`."""

    def __init__(self) -> None:
        self.compiled: list[list[str]] = []
        self.fails = ""
        """what the compiler shall complain about"""
        self._log, self._cubin = b"", b""

    def nvrtcVersion(self, major: Any, minor: Any) -> int:
        major._obj.value, minor._obj.value = 12, 8
        return 0

    def nvrtcGetNumSupportedArchs(self, count: Any) -> int:
        count._obj.value = len(ARCHS)
        return 0

    def nvrtcGetSupportedArchs(self, archs: Any) -> int:
        archs[:] = ARCHS
        return 0

    def nvrtcGetErrorString(self, status: int) -> bytes:
        return f"NVRTC_ERROR_{status}".encode()

    def nvrtcCreateProgram(
        self, out: Any, source: bytes, name: bytes, count: int, texts: Any, names: Any
    ) -> int:
        assert b"gi_march" in source
        assert sorted(names[:count]) == [b"device.cuh", b"field.h", b"job.h", b"scatter.cuh"]
        assert all(text for text in texts[:count])
        out._obj.value = 1
        return 0

    def nvrtcCompileProgram(self, program: Any, count: int, flags: Any) -> int:
        options = [flag.decode() for flag in flags[:count]]
        self.compiled.append(options)
        if self.fails:
            self._log = self.fails.encode() + b"\0"
            return 6
        defines = [o for o in options if o.startswith("-D")]
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "kernels.so")
            command = [
                build.find_compiler()[0],
                "-std=c++17",
                "-O1",
                "-fPIC",
                "-shared",
                "-Wno-unknown-pragmas",
            ]
            subprocess.run(
                [*command, f"-I{build.SOURCES}", *defines, str(SOURCE), "-o", str(target)], check=True
            )
            self._cubin = target.read_bytes()
        self._log = b"\0"
        return 0

    def nvrtcGetProgramLogSize(self, program: Any, size: Any) -> int:
        size._obj.value = len(self._log)
        return 0

    def nvrtcGetProgramLog(self, program: Any, buffer: Any) -> int:
        buffer.raw = self._log
        return 0

    def nvrtcGetCUBINSize(self, program: Any, size: Any) -> int:
        size._obj.value = len(self._cubin)
        return 0

    def nvrtcGetCUBIN(self, program: Any, buffer: Any) -> int:
        buffer.raw = self._cubin
        return 0

    def nvrtcDestroyProgram(self, program: Any) -> int:
        return 0


class Cuda:
    """Runs launches at once. `launched` holds (kernel, blocks, threads, bytes of shared memory)."""

    def __init__(self) -> None:
        self.launched: list[tuple[str, int, int, int]] = []
        self.fails: dict[str, int] = {}
        """status by function name"""
        self._modules: list[ctypes.CDLL] = []
        self._functions: list[tuple[ctypes.CDLL, bytes]] = []
        self._allowed: dict[int, int] = {}
        self._contexts = 0

    def cuInit(self, flags: int) -> int:
        return self.fails.get("cuInit", 0)

    def cuGetErrorString(self, status: int, text: Any) -> int:
        text._obj.value = b"out of luck"
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index
        return 0

    def cuDeviceGetAttribute(self, value: Any, which: int, device: Any) -> int:
        value._obj.value = {driver.PROCESSORS: 2, driver.MAJOR: 7, driver.MINOR: 5, driver.SHARED: 65536}[
            which
        ]
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:
        context._obj.value = 7
        return self.fails.get("cuDevicePrimaryCtxRetain", 0)

    def cuCtxPushCurrent_v2(self, context: Any) -> int:
        assert context.value == 7
        self._contexts += 1
        return 0

    def cuCtxPopCurrent_v2(self, context: Any) -> int:
        self._contexts -= 1
        return 0

    def cuModuleLoadData(self, module: Any, cubin: bytes) -> int:
        assert self._contexts == 1
        if not cubin.startswith(b"\x7fELF"):
            return 200
        with tempfile.NamedTemporaryFile(suffix=".so") as file:
            file.write(cubin)
            file.flush()
            self._modules.append(ctypes.CDLL(file.name))
        module._obj.value = len(self._modules)
        return self.fails.get("cuModuleLoadData", 0)

    def cuModuleGetFunction(self, found: Any, module: Any, name: bytes) -> int:
        self._functions.append((self._modules[module.value - 1], name))
        found._obj.value = len(self._functions)
        return 0

    def cuFuncSetAttribute(self, function: Any, which: int, value: int) -> int:
        assert which == driver.MAX_DYNAMIC_SHARED
        self._allowed[function.value] = value
        return 0

    def cuLaunchKernel(self, function: Any, *rest: Any) -> int:
        assert self._contexts == 1
        x, y, z, threads, one, also_one, shared = (v.value for v in rest[:7])
        assert one == also_one == 1
        assert threads % 32 == 0
        assert threads <= 128
        if shared > self._allowed.get(function.value, 48 << 10):
            return 1
        library, name = self._functions[function.value - 1]
        self.launched.append((name.decode(), x * y * z, threads, shared))
        if status := self.fails.get("cuLaunchKernel", 0):
            return status
        grid, block = (c_uint * 3)(x, y, z), (c_uint * 3)(threads, 1, 1)
        library.host_launch.argtypes = [ctypes.c_char_p, c_void_p, c_void_p, c_uint, c_void_p]
        found = library.host_launch(name, grid, block, shared, rest[8])
        assert found == 0, f"{name.decode()}: {'unknown' if found == 1 else 'wrote past its shared memory'}"
        return 0


def machine(nvrtc_library: Nvrtc, cuda: Cuda) -> cuda_backend.Machine:
    """A GPU of two processors with 64 KiB of shared memory, as small as the smallest that are supported."""
    return cuda_backend.Machine(
        driver.Driver(cuda),
        nvrtc.Compiler(nvrtc_library),
        7,
        75,
        processors=2,
        shared=65536,
        stream=lambda: 0,
    )
