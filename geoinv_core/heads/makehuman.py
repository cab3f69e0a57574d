"""Reading MakeHuman's files: meshes (.obj), morph targets (.target) and fitted meshes (.mhclo)."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoinv_core.errors import GeoInvError

Int = NDArray[np.int64]
Float = NDArray[np.float64]


class MissingFilesError(GeoInvError):
    """Files that the conversion needs are not in the named folders."""

    code = "heads"


@dataclass(frozen=True)
class Mesh:
    """Triangles; a polygon is split into a fan from its first corner."""

    vertices: Float
    """[V, 3]"""
    uv: Float
    """[U, 2], origin lower left"""
    triangles: Int
    """[T, 3] into vertices"""
    triangle_uv: Int
    """[T, 3] into uv"""
    polygon: Int
    """[T] the polygon that a triangle is part of"""
    groups: list[str]
    """[T] the group's name"""


@dataclass(frozen=True)
class Fit:
    """How each vertex of a mesh rides on three vertices of the base mesh."""

    ref: Int
    """[n, 3]"""
    weight: Float
    """[n, 3]"""
    offset: Float
    """[n, 3]"""
    scale: dict[str, tuple[int, int, float]]
    """axis to two base vertices and their distance at rest"""


class Installation:
    """All files below some folders, found by the end of their path."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders
        self._files: dict[str, list[Path]] = {}
        for folder in folders:
            if not folder.is_dir():
                raise MissingFilesError(f"{folder} is no folder; name a MakeHuman installation.")
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    self._files.setdefault(path.name.removesuffix(".gz"), []).append(path)
        self.missing: list[str] = []

    def find(self, end: str) -> Path | None:
        """The file whose path ends in `end` ("targets/nose/nose-hump-incr.target"; also packed as .gz)."""
        parts = Path(end).parts
        for path in self._files.get(parts[-1], []):
            if (*path.parts[:-1], parts[-1])[-len(parts) :] == parts:
                return path
        return None

    def need(self, end: str) -> Path:
        """As find(); a file that is not there is noted in `missing`, and its would-be path returned."""
        found = self.find(end)
        if found is None:
            self.missing.append(end)
        return found or Path(end)

    def names(self, folder: str, suffix: str) -> list[str]:
        """Stems of all files in folders of this name, sorted."""
        return sorted(
            {
                name.removesuffix(suffix)
                for name, paths in self._files.items()
                if name.endswith(suffix) and any(path.parent.name == folder for path in paths)
            }
        )

    def complete(self) -> None:
        """Raises MissingFilesError when something was needed and not found."""
        if self.missing:
            few = ", ".join(self.missing[:3])
            raise MissingFilesError(
                f"{len(self.missing)} files are missing (such as {few}); name the folders of makehuman, "
                "makehuman-assets and extra-targets together."
            )


def read_lines(path: Path) -> list[list[str]]:
    """The words of every line that is neither empty nor a comment."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    rows = [line.split() for line in text.splitlines()]
    return [row for row in rows if row and not row[0].startswith(("#", "//"))]


def read_obj(path: Path) -> Mesh:
    """A Wavefront mesh whose faces carry texture coordinates."""
    vertices: list[list[float]] = []
    uv: list[list[float]] = []
    corners: list[list[tuple[int, int]]] = []
    polygon: list[int] = []
    groups: list[str] = []
    group, polygons = "", 0
    for kind, *words in read_lines(path):
        if kind == "v":
            vertices.append([float(x) for x in words[:3]])
        elif kind == "vt":
            uv.append([float(x) for x in words[:2]])
        elif kind == "g":
            group = words[0] if words else ""
        elif kind == "f":
            face = [(int(a) - 1, int(b) - 1) for a, b in (word.split("/")[:2] for word in words)]
            for k in range(1, len(face) - 1):
                corners.append([face[0], face[k], face[k + 1]])
                polygon.append(polygons)
                groups.append(group)
            polygons += 1
    index = np.array(corners, np.int64)
    return Mesh(
        np.array(vertices), np.array(uv), index[..., 0], index[..., 1], np.array(polygon, np.int64), groups
    )


def read_target(path: Path) -> tuple[Int, Float]:
    """Vertices [n] and their offsets [n, 3], decimetres."""
    rows = read_lines(path)
    if not rows:
        return np.zeros(0, np.int64), np.zeros((0, 3))
    table = np.array(rows, np.float64)
    return table[:, 0].astype(np.int64), table[:, 1:4]


def read_fit(path: Path) -> Fit:
    """An .mhclo file: a line a vertex, either one base vertex, or three with weights and an offset."""
    scale: dict[str, tuple[int, int, float]] = {}
    rows: list[list[float]] = []
    inside = False
    for words in read_lines(path):
        if words[0] in ("x_scale", "y_scale", "z_scale"):
            scale[words[0][0]] = (int(words[1]), int(words[2]), float(words[3]))
        elif words[0] == "verts":
            inside = True
        elif inside:
            if not words[0].lstrip("-").isdigit():
                inside = False
            elif len(words) == 1:
                rows.append([float(words[0])] * 3 + [1, 0, 0, 0, 0, 0])
            else:
                rows.append([float(x) for x in words[:9]])
    table = np.array(rows, np.float64)
    return Fit(table[:, :3].astype(np.int64), table[:, 3:6], table[:, 6:9], scale)
