"""The CUDA compiler that the user's PyTorch carries, through ctypes; its cubins are kept in the user's cache.

Neither a CUDA toolkit nor a device is needed to compile.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

from geoinv_core.render.job import UnavailableError

MAIN = "kernels.cu"
WINDOWS = platform.system() == "Windows"


def sources() -> dict[str, str]:
    """Everything that the kernels are made of, by file name."""
    from geoinv_core.render.build import SOURCES  # not at import: it is a program of its own (python -m)

    names = (MAIN, *sorted(p.name for p in SOURCES.glob("*.cuh")), "field.h", "job.h")
    return {name: (SOURCES / name).read_text(encoding="utf-8") for name in names}


class Compiler:
    """One loaded NVRTC.

    Args:
        library: the shared library, or an object with its functions.
    """

    def __init__(self, library: Any) -> None:
        self._lib = library
        if isinstance(library, ctypes.CDLL):
            library.nvrtcGetErrorString.restype = c_char_p
            strings = POINTER(c_char_p)
            library.nvrtcCreateProgram.argtypes = [c_void_p, c_char_p, c_char_p, c_int, strings, strings]
            library.nvrtcCompileProgram.argtypes = [c_void_p, c_int, strings]
            for name in ("GetProgramLogSize", "GetProgramLog", "GetCUBINSize", "GetCUBIN"):
                getattr(library, f"nvrtc{name}").argtypes = [c_void_p, c_void_p]
        major, minor = c_int(), c_int()
        self._check(library.nvrtcVersion(byref(major), byref(minor)))
        self.version = f"{major.value}.{minor.value}"
        count = c_int()
        self._check(library.nvrtcGetNumSupportedArchs(byref(count)))
        known = (c_int * count.value)()
        self._check(library.nvrtcGetSupportedArchs(known))
        self.archs = tuple(known)

    def _check(self, status: int, log: str = "") -> None:
        if status:
            name = self._lib.nvrtcGetErrorString(status).decode()
            errors = [line.strip() for line in log.splitlines() if "error" in line]
            raise UnavailableError(f"the CUDA compiler failed ({(errors or [name])[0]})")

    def compile(self, arch: int, options: Sequence[str] = ()) -> tuple[bytes, str]:
        """The kernels as a cubin for compute capability `arch` (75, 90 ...), and the compiler's log.

        Raises: UnavailableError.
        """
        if arch not in self.archs:
            raise UnavailableError(f"the CUDA compiler {self.version} does not know sm_{arch}")
        headers = sources()
        main = headers.pop(MAIN)
        texts = (c_char_p * len(headers))(*(text.encode() for text in headers.values()))
        names = (c_char_p * len(headers))(*(name.encode() for name in headers))
        program = c_void_p()
        self._check(
            self._lib.nvrtcCreateProgram(
                byref(program), main.encode(), MAIN.encode(), len(headers), texts, names
            )
        )
        try:
            flags = [f"--gpu-architecture=sm_{arch}", "--std=c++17", *options]
            array = (c_char_p * len(flags))(*(flag.encode() for flag in flags))
            status = self._lib.nvrtcCompileProgram(program, len(flags), array)
            log = self._fetch(program, "ProgramLog").decode(errors="replace").rstrip("\0")
            self._check(status, log)
            return self._fetch(program, "CUBIN"), log
        finally:
            self._lib.nvrtcDestroyProgram(byref(program))

    def _fetch(self, program: c_void_p, what: str) -> bytes:
        size = c_size_t()
        self._check(getattr(self._lib, f"nvrtcGet{what}Size")(program, byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._lib, f"nvrtcGet{what}")(program, buffer))
        return buffer.raw

    def cubin(self, arch: int, options: Sequence[str]) -> tuple[bytes, Path]:
        """As `compile`, from the cache where it has it; and the cache's file, which may not exist."""
        path = cache_path(self.version, arch, options)
        try:
            return path.read_bytes(), path
        except OSError:
            pass  # not compiled yet, or a cache that cannot be read: compiling does the same, a little later
        return self.fresh_cubin(arch, options), path

    def fresh_cubin(self, arch: int, options: Sequence[str]) -> bytes:
        """Compile, and put into the cache where that can be written."""
        cubin, _ = self.compile(arch, options)
        keep(cache_path(self.version, arch, options), cubin)
        return cubin


def cache_path(version: str, arch: int, options: Sequence[str]) -> Path:
    """Where the cubin of these sources and options is kept."""
    from geoinv_core.render.build import cache_folder

    digest = hashlib.sha256(repr((sources(), list(options))).encode()).hexdigest()[:16]
    return cache_folder() / "cuda" / f"{digest}-sm{arch}-nvrtc{version}.cubin"


def keep(path: Path, content: bytes) -> None:
    """Write a cache file in one step. A cache that cannot be written only costs the next start seconds."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    except OSError:
        return
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)


def candidates(cuda: str | None) -> Iterator[Path | str]:
    """Where NVRTC for CUDA version `cuda` ("12.8"; None: any) may lie: PyTorch's own first."""
    major = cuda.split(".")[0] if cuda else "*"
    name = f"nvrtc64_{major}*_0.dll" if WINDOWS else f"libnvrtc.so.{major}"
    folders: list[Path] = []
    for package, below in (("torch", "lib"), ("nvidia", "*/lib"), ("nvidia", "*/bin"), ("nvidia", "*/bin/*")):
        spec = importlib.util.find_spec(package)
        for root in spec.submodule_search_locations or () if spec else ():
            folders += sorted(Path(root).glob(below))
    for folder in folders:
        yield from sorted(
            p for p in (*folder.glob(name), *folder.glob("libnvrtc-*.so.*")) if "builtins" not in p.name
        )
    if cuda:
        yield f"nvrtc64_{major}0_0.dll" if WINDOWS else f"libnvrtc.so.{major}"


@lru_cache(4)
def load(cuda: str | None) -> Compiler:
    """NVRTC for PyTorch built with CUDA version `cuda`. Raises UnavailableError."""
    for place in candidates(cuda):
        try:
            if isinstance(place, Path):
                # its second half is looked up by name when it first compiles, and found if loaded by then
                pattern = "nvrtc-builtins*.dll" if WINDOWS else "libnvrtc-builtins*.so*"
                for half in sorted(place.parent.glob(pattern)):
                    ctypes.CDLL(str(half))
            return Compiler(ctypes.CDLL(str(place)))
        except (OSError, AttributeError):
            continue  # the next place; the sentence below is for when none works
    raise UnavailableError("PyTorch's CUDA compiler (NVRTC) was not found")
