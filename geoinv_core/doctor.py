"""`geoinv doctor`: what this machine has for GeoInv, line by line, with what to do where something lacks."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from geoinv_core import __version__
from geoinv_core.errors import GeoInvError

State = Literal["ok", "warn", "fail"]
MEMORY_GB, DISK_GB = 4.0, 1.0
"""Below these a single inversion may fail: the model, torch and one head's textures."""


@dataclass(frozen=True)
class Check:
    """One line of the examination. `advice` is empty when there is nothing to do."""

    name: str
    state: State
    value: str
    advice: str = ""

    def line(self) -> str:
        return f"{self.state:4}  {self.name:9} {self.value}" + (
            f"\n{'':16}-> {self.advice}" if self.advice else ""
        )

    def as_json(self) -> dict[str, str]:
        return asdict(self)


def examine() -> list[Check]:
    """Runs every check. A check that cannot be done is a line too, so that the rest is still seen."""
    steps: tuple[tuple[str, Callable[[], Check]], ...] = (
        ("geoinv", lambda: Check("geoinv", "ok", f"{__version__}, {Path(__file__).resolve().parent}")),
        ("python", python),
        ("torch", torch),
        ("device", device),
        ("memory", memory),
        ("disk", disk),
        ("renderer", renderer),
        ("model", model),
        ("blender", blender),
    )
    return [guarded(name, step) for name, step in steps]


def guarded(name: str, step: Callable[[], Check]) -> Check:
    try:
        return step()
    except GeoInvError as error:
        return Check(name, "fail", str(error))
    except (ImportError, OSError, RuntimeError) as error:
        return Check(
            name, "fail", f"{type(error).__name__}: {error}", "python build.py setup repairs the installation"
        )


def python() -> Check:
    value = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    if sys.version_info[:2] != (3, 11):
        return Check("python", "warn", value, "GeoInv is tested with Python 3.11")
    return Check("python", "ok", value)


def torch() -> Check:
    import torch as library

    build = f"CUDA {library.version.cuda}" if library.version.cuda else "CPU build"
    return Check("torch", "ok", f"{library.__version__}, {build}, {library.get_num_threads()} threads")


def device() -> Check:
    import torch as library

    if library.cuda.is_available():
        free, total = (n / 1e9 for n in library.cuda.mem_get_info())
        return Check("device", "ok", f"{library.cuda.get_device_name()}, {free:.1f} of {total:.1f} GB free")
    if library.version.cuda:
        return Check("device", "warn", "cpu", "torch has CUDA but finds no device: update the NVIDIA driver")
    return Check("device", "ok", f"cpu, {os.cpu_count()} cores")


def memory() -> Check:
    free = free_memory()
    if free is None:
        return Check("memory", "ok", "not known on this system")
    if free < MEMORY_GB:
        return Check(
            "memory",
            "warn",
            f"{free:.1f} GB free",
            f"close other programs: {MEMORY_GB:.0f} GB are comfortable",
        )
    return Check("memory", "ok", f"{free:.1f} GB free")


def free_memory() -> float | None:
    """GB that a program can still have, or None where the system does not say."""
    if sys.platform == "win32":
        import ctypes

        class Status(ctypes.Structure):
            _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
                (name, ctypes.c_ulonglong) for name in ("total", "available", "a", "b", "c", "d", "e")
            ]

        status = Status(length=ctypes.sizeof(Status))
        ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
        return float(status.available) / 1e9
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    available = [line.split()[1] for line in lines if line.startswith("MemAvailable")]
    return int(available[0]) * 1024 / 1e9 if available else None


def disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    if free < DISK_GB:
        return Check(
            "disk", "warn", f"{free:.1f} GB free in {Path.cwd()}", "free some space: a head takes about 10 MB"
        )
    return Check("disk", "ok", f"{free:.1f} GB free")


def renderer() -> Check:
    from geoinv_core import render

    lines = render.backends()
    missing = any(": no," in line for line in lines)
    advice = "python build.py native (needs a C++ compiler)" if missing else ""
    return Check("renderer", "warn" if missing else "ok", "; ".join(lines), advice)


def model() -> Check:
    import geoinv_core as gi

    bundled = gi.open_model("default", device="cpu")
    value = f"{bundled.name}, {bundled.hash[:12]}, {bundled.licence}, {len(bundled.labels)} labels"
    return Check("model", "ok", value)


def blender() -> Check:
    if find_spec("bpy") is None:
        return Check(
            "blender", "ok", "bpy is not installed here; only the demo and the add-on's tests need it"
        )
    try:
        return Check("blender", "ok", f"bpy {version('bpy')}")
    except PackageNotFoundError:
        return Check("blender", "ok", "bpy, version not known")
