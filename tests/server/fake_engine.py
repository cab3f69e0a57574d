"""An engine without torch for tests of the server: real files, pretended heads.

The model's name chooses how it behaves: default (quick), slow (works and reports until cancelled), slow-once
(like slow on the first attempt, quick on the second), stuck (never reports again), dies (ends its process),
missing (cannot be opened), broken (an unexpected error), memory (out of memory).
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from geoinv_core.errors import EditError, ModelError
from geoinv_core.progress import OnProgress, report

LABELS = {"age": (18.0, 90.0, 35.0), "smile": (0.0, 1.0, 0.0)}


@dataclass
class FakeMesh:
    vertices: Any


@dataclass
class FakeHead:
    labels: dict[str, float]
    warnings: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)

    def edit(self, labels: dict[str, float]) -> FakeHead:
        for name in labels:
            if name not in LABELS:
                raise EditError(f"There is no label named {name}; choose age or smile.")
        return replace(self, labels={**self.labels, **labels})

    def render(self, yaw: float = 0.0, pitch: float = 0.0, size: int = 512) -> Image.Image:
        return Image.new("RGB", (size, size), (int(yaw) % 256, int(self.labels["age"]), 7))

    def mesh(
        self,
        topology: str = "quads",
        texture: int = 1024,
        on_progress: OnProgress | None = None,
        shapes: bool = True,
    ) -> FakeMesh:
        return FakeMesh(np.full((5, 3), self.labels["age"], np.float32))

    def save(
        self,
        folder: Path,
        topology: str = "quads",
        texture: int = 1024,
        on_progress: OnProgress | None = None,
        shapes: bool = True,
    ) -> Path:
        part = folder.with_name(folder.name + ".part")
        part.mkdir()
        report(on_progress, "surface", 0.5)
        facts = {"labels": self.labels, "topology": topology, "texture": texture, "shapes": shapes}
        (part / "head.json").write_text(json.dumps(facts))
        np.savez(part / "mesh.npz", vertices=np.zeros((5, 3), np.float32))
        self.render(size=64).save(part / "preview.png")
        part.rename(folder)
        report(on_progress, "save", 1.0)
        return folder


def _work_for_ever(on_progress: OnProgress | None) -> NoReturn:
    step = 0
    while True:
        report(on_progress, "refine", 0.5, f"Step {step}")
        step += 1
        threading.Event().wait(0.01)


@dataclass
class FakeModel:
    name: str
    hash: str = "fake"
    licence: str = "CC0-1.0"
    labels: dict[str, tuple[float, float, float]] = field(default_factory=lambda: dict(LABELS))

    def invert(
        self,
        photo: Path,
        refine: int = 0,
        on_progress: OnProgress | None = None,
        face_box: tuple[float, float, float, float] | None = None,
        points: dict[str, tuple[float, float]] | None = None,
        **_: Any,
    ) -> FakeHead:
        with Image.open(photo) as image:
            picture = image.convert("RGB")
        for step in range(5):
            report(on_progress, "encode", step / 4, f"Step {step}", picture)
        if self.name == "slow":
            _work_for_ever(on_progress)
        if self.name == "slow-once":
            marker = photo.parent / "tried"
            if not marker.exists():
                marker.touch()
                _work_for_ever(on_progress)
        if self.name == "stuck":
            threading.Event().wait()
        if self.name == "dies":
            os._exit(3)
        if self.name == "broken":
            raise ZeroDivisionError("on purpose")
        if self.name == "memory":
            raise MemoryError
        return FakeHead({"age": 40.0, "smile": 0.1}, ["A fake head."], {"encode": 0.01})


class FakeEngine:
    def open_model(self, name: str, device: str) -> FakeModel:
        if name == "missing":
            raise ModelError("The model missing does not exist; choose another.")
        return FakeModel(name)

    def load_head(self, folder: Path, device: str) -> FakeHead:
        return FakeHead(json.loads((folder / "head.json").read_text())["labels"])

    def device(self) -> str:
        return "cpu"

    def device_memory(self) -> tuple[int, int] | None:
        return None

    def broken_by(self, error: BaseException) -> bool:
        return False

    def out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError)
