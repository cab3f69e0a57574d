"""An engine without torch for the add-on's tests: real server, real bundles, pretended heads.

Heads are balls of 0.2 m. Label jawOpen pulls the lowest vertices down; age fattens the grid of the raw
topology, so only "quads" keeps its vertices. The model's name chooses the behaviour: default (quick), slow
(works until cancelled), slow-once (so on its first attempt), dies (ends its process), fails (a sentence),
broken (a damaged mesh in its bundle).
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geoinv_core.errors import ModelError, PhotoError
from geoinv_core.mesh import bundle
from geoinv_core.mesh.head_mesh import HeadMesh
from geoinv_core.progress import OnProgress, report

LABELS = {"age": (1.0, 90.0, 30.0), "smile": (0.0, 1.0, 0.0), "jawOpen": (0.0, 1.0, 0.0)}
FAILURE = "The photo is too dark to see a face; choose a brighter one."
WARNING = "The face is small, so details are guessed; a larger photo gives more."


def ball(rows: int, columns: int, labels: Mapping[str, float]) -> HeadMesh:
    """A closed ball of quads and triangles on the origin, in Blender axes, with a two-coloured picture."""
    turn, rise = np.meshgrid(
        np.linspace(0, 2 * np.pi, columns, endpoint=False), np.linspace(0, np.pi, rows + 2)[1:-1]
    )
    ring = np.stack([np.sin(rise) * np.cos(turn), np.sin(rise) * np.sin(turn), np.cos(rise)], -1)
    points = np.concatenate([ring.reshape(-1, 3), [[0, 0, 1], [0, 0, -1]]])
    vertices = (points * [0.08, 0.1, 0.12] + [0, 0, 0.12]).astype(np.float32)
    vertices[vertices[:, 2] < 0.06, 2] -= np.float32(0.02 * labels["jawOpen"])
    top, bottom = rows * columns, rows * columns + 1
    next_ = np.roll(np.arange(columns), -1)
    here = np.arange(columns)
    square = np.stack([here, columns + here, columns + next_, next_], 1)
    quads = [square + r * columns for r in range(rows - 1)]
    none = np.full(columns, -1)
    last = (rows - 1) * columns
    caps = [
        np.stack([np.full(columns, top), here, next_, none], 1),
        np.stack([np.full(columns, bottom), last + next_, last + here, none], 1),
    ]
    faces = np.concatenate(quads + caps).astype(np.int32)
    flat = np.stack([np.arctan2(points[:, 0], -points[:, 1]) / (2 * np.pi) + 0.5, (points[:, 2] + 1) / 2], 1)
    uv = np.clip(flat[np.maximum(faces, 0)], 0, 1).astype(np.float32)
    uv[faces < 0] = 0
    picture = np.full((64, 64, 3), (214, 160, 132), np.uint8)
    picture[:20] = (70, 45, 30)
    return HeadMesh(
        vertices,
        faces,
        uv,
        np.arange(68, dtype=np.int32),
        picture,
        {"mouthSmile": np.full((len(vertices), 3), 0.01, np.float16)},
        groups={"scalp": vertices[:, 2] > 0.15, "eye.L": vertices[:, 0] > 0.07},
    )


def facts(labels: Mapping[str, float], warnings: list[str]) -> dict[str, Any]:
    return {
        "model": {"name": "test", "hash": "0" * 64},
        "photo_hash": "ab" * 32,
        "camera": [0.0] * 25,
        "origin": [0.0, -0.3, 0.0],
        "unit_mm": 400.0,
        "labels": dict(labels),
        "timings": {"encode": 0.01},
        "warnings": warnings,
    }


def write_head(
    folder: Path,
    labels: Mapping[str, float] | None = None,
    topology: str = "quads",
    warnings: list[str] | None = None,
    on_progress: OnProgress | None = None,
) -> Path:
    """A bundle as the library writes it."""
    known = {"age": 40.0, "smile": 0.1, "jawOpen": 0.0, **(labels or {})}
    columns = 24 if topology == "quads" else 12 + int(known["age"]) // 2
    contents = bundle.BundleContents(
        facts(known, warnings or []),
        {"w_plus": np.zeros((1, 4), np.float32)},
        ball(16, columns, known),
        Image.new("RGB", (64, 64), (200, 150, 130)),
    )
    return bundle.write(folder, contents, on_progress)


@dataclass
class TestHead:
    labels: dict[str, float]
    model: str
    warnings: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)

    def edit(self, labels: dict[str, float]) -> TestHead:
        return replace(self, labels={**self.labels, **labels}, warnings=[])

    def render(self, yaw: float = 0.0, pitch: float = 0.0, size: int = 512) -> Image.Image:
        return Image.new("RGB", (size, size), (200, 150, 130))

    def mesh(
        self,
        topology: str = "quads",
        texture: int = 1024,
        on_progress: OnProgress | None = None,
        shapes: bool = True,
    ) -> HeadMesh:
        return ball(16, 24, self.labels)

    def save(
        self,
        folder: Path,
        topology: str = "quads",
        texture: int = 1024,
        on_progress: OnProgress | None = None,
        shapes: bool = True,
    ) -> Path:
        target = write_head(folder, self.labels, topology, self.warnings, on_progress)
        if self.model == "broken":
            (target / "mesh.npz").write_bytes(b"PK no longer an archive")
        return target


@dataclass
class TestModel:
    name: str
    hash: str = "test"
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
    ) -> TestHead:
        for step in range(5):
            report(on_progress, "encode", step / 4, f"Step {step}")
        if self.name == "dies":
            os._exit(3)
        if self.name == "fails":
            raise PhotoError(FAILURE)
        first = not (photo.parent / "tried").exists()
        (photo.parent / "tried").touch()
        while self.name == "slow" or (self.name == "slow-once" and first):
            report(on_progress, "refine", 0.5, "Refining for ever")
            threading.Event().wait(0.02)
        return TestHead({"age": 40.0, "smile": 0.1, "jawOpen": 0.0}, self.name, [WARNING])


class HeadEngine:
    def open_model(self, name: str, device: str) -> TestModel:
        if name == "missing":
            raise ModelError("There is no model named missing; choose another in the preferences.")
        return TestModel(name)

    def load_head(self, folder: Path, device: str = "cpu") -> TestHead:
        return TestHead(json.loads((folder / "head.json").read_text())["labels"], "default")

    def device(self) -> str:
        return "cpu"

    def device_memory(self) -> tuple[int, int] | None:
        return None

    def broken_by(self, error: BaseException) -> bool:
        return False

    def out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError)
