"""What the worker asks of the library, and the library itself as the engine.

The protocols are the small part of geoinv_core's public shapes that jobs need. Tests give the server an
engine of their own (`--engine package.module:Class`); everybody else runs `CoreEngine`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from geoinv_core.progress import OnProgress

CORE = "server.engine:CoreEngine"

FaceBox = tuple[float, float, float, float]
PhotoPoints = Mapping[str, tuple[float, float]]


class Mesh(Protocol):
    @property
    def vertices(self) -> Any:
        """float32 [V, 3], metres, Blender axes."""


class Head(Protocol):
    """A head in memory."""

    @property
    def labels(self) -> Mapping[str, float]: ...
    @property
    def warnings(self) -> Sequence[str]: ...
    @property
    def timings(self) -> Mapping[str, float]: ...

    def edit(self, labels: dict[str, float]) -> Head: ...

    def render(self, yaw: float = 0.0, pitch: float = 0.0, size: int = 512) -> Any:
        """A PIL.Image."""

    def mesh(
        self,
        topology: str = "quads",
        texture: int = 1024,
        on_progress: OnProgress | None = None,
        shapes: bool = True,
    ) -> Mesh: ...

    def save(
        self,
        folder: Path,
        topology: str = "quads",
        texture: int = 1024,
        on_progress: OnProgress | None = None,
        shapes: bool = True,
    ) -> Path: ...


class Model(Protocol):
    """A loaded model."""

    @property
    def name(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def licence(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, tuple[float, float, float]]: ...

    def invert(
        self,
        photo: Path,
        refine: int = 0,
        on_progress: OnProgress | None = None,
        face_box: FaceBox | None = None,
        points: PhotoPoints | None = None,
        space: Literal["w", "w+"] = "w+",
        tune: int = 0,
        seed: int = 0,
    ) -> Head: ...


class Engine(Protocol):
    """How the worker gets at models and heads. Made without arguments."""

    def open_model(self, name: str, device: str) -> Model: ...

    def load_head(self, folder: Path, device: str) -> Head: ...

    def device(self) -> str:
        """What the loaded model runs on, as a person would write it."""

    def device_memory(self) -> tuple[int, int] | None:
        """(free, total) bytes of the accelerator, or None without one."""

    def broken_by(self, error: BaseException) -> bool:
        """Whether this process cannot go on after the error (a fault of the accelerator is for ever)."""

    def out_of_memory(self, error: BaseException) -> bool: ...


class CoreEngine:
    """geoinv_core. Importing this module is cheap; torch comes with the first model or head."""

    def __init__(self) -> None:
        self._device = "cpu"

    def open_model(self, name: str, device: str) -> Model:
        import torch

        import geoinv_core

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model: Model = geoinv_core.open_model(name, device=device)
        self._device = device
        return model

    def load_head(self, folder: Path, device: str) -> Head:
        import geoinv_core

        head: Head = geoinv_core.load_head(folder, device=device)
        return head

    def device(self) -> str:
        if not self._device.startswith("cuda"):
            return self._device
        import torch

        return f"{self._device} ({torch.cuda.get_device_name(self._device)})"

    def device_memory(self) -> tuple[int, int] | None:
        if not self._device.startswith("cuda"):
            return None
        import torch

        free, total = torch.cuda.mem_get_info(self._device)
        return int(free), int(total)

    def broken_by(self, error: BaseException) -> bool:
        # Out of memory is no fault: torch's class for it is told apart first.
        if self.out_of_memory(error):
            return False
        return type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)

    def out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def make_engine(path: str) -> Engine:
    """The engine named by "package.module:Class". Raises ImportError, AttributeError."""
    module, _, name = path.partition(":")
    engine: Engine = getattr(import_module(module), name)()
    return engine
