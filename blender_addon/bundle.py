"""A head bundle's arrays, read and checked. numpy only: no bpy here.

The folder holds head.json, mesh.npz, albedo.png and, where there are shape keys, shapes.npz;
heads of quads have a normal.png, too.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import Trouble

FORMAT_VERSION = 1
_PNG = b"\x89PNG\r\n\x1a\n"
# What json, zipfile and numpy raise on damaged content.
_BROKEN = (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Bundle:
    """One head. The arrays are not to be written to.

    vertices  float32 [V, 3], metres, Blender axes (Z up, face towards -Y, origin at the neck base)
    faces     int32 [F, 4], counter-clockwise from outside; the last index is -1 for a triangle
    uv        float32 [F, 4, 2] per corner, origin at the picture's lower left
    landmarks int32 [N], vertex of each landmark; empty where none are known
    shapes    name -> float32 [V, 3], offsets in metres at value 1
    groups    name -> int32 [N], vertices of each region of the head; none in heads of older versions
    """

    folder: Path
    info: dict[str, Any]
    vertices: npt.NDArray[np.float32]
    faces: npt.NDArray[np.int32]
    uv: npt.NDArray[np.float32]
    landmarks: npt.NDArray[np.int32]
    shapes: dict[str, npt.NDArray[np.float32]]
    groups: dict[str, npt.NDArray[np.int32]]

    @property
    def albedo(self) -> Path:
        return self.folder / "albedo.png"

    @property
    def normal(self) -> Path | None:
        """Normal map in tangent space, +Y up; none in heads of older versions and raw surfaces."""
        path = self.folder / "normal.png"
        return path if path.is_file() else None

    @property
    def labels(self) -> dict[str, float]:
        """What the model reads from the head: {"age": 41.2, "jawOpen": 0.05, …}, natural units."""
        return {str(name): float(value) for name, value in self.info.get("labels", {}).items()}

    @property
    def warnings(self) -> list[str]:
        return [str(warning) for warning in self.info.get("warnings", ())]

    def corners(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Loops as Blender has them: first corner of each face [F], vertex of each corner [C], uv [C, 2]."""
        used = self.faces >= 0
        counts = used.sum(axis=1)
        starts = (np.cumsum(counts) - counts).astype(np.int32)
        return starts, np.ascontiguousarray(self.faces[used]), np.ascontiguousarray(self.uv[used])

    def same_topology(self, faces: npt.NDArray[np.int32], vertices: int) -> bool:
        """Whether a mesh of so many vertices and these `faces` ([F, 4]) has the same surface."""
        return vertices == len(self.vertices) and np.array_equal(faces, self.faces)


def read_bundle(folder: Path) -> Bundle:
    """Read and check. Trouble with one sentence where anything is missing, damaged or too new."""
    info = _read(folder, "head.json", lambda path: json.loads(path.read_text(encoding="utf-8")))
    _require(isinstance(info, dict), folder, "head.json", "it holds no head")
    version = info.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise Trouble(
            f"The head in {folder.name} has format {version} and this add-on reads up to {FORMAT_VERSION}: "
            "it was made by a newer GeoInv; update the add-on.",
            code="bundle",
        )
    labels, warnings = info.get("labels", {}), info.get("warnings", [])
    plain = isinstance(labels, dict) and all(isinstance(value, int | float) for value in labels.values())
    _require(
        plain and isinstance(warnings, list), folder, "head.json", "its labels or warnings are no such thing"
    )

    mesh = _read(folder, "mesh.npz", _arrays)
    for name in ("vertices", "faces", "uv"):
        _require(name in mesh, folder, "mesh.npz", f"it has no {name}")
    vertices, faces, uv = mesh["vertices"], mesh["faces"], mesh["uv"]
    landmarks = mesh.get("landmarks", np.empty(0, np.int32))
    _check_mesh(folder, vertices, faces, uv)
    if landmarks.ndim != 1 or (landmarks < 0).any() or (landmarks >= len(vertices)).any():
        landmarks = np.empty(0, np.int32)  # -1 stands for "the model knows none"

    shapes: dict[str, npt.NDArray[np.float32]] = {}
    if (folder / "shapes.npz").is_file():
        shapes = _shapes(folder, len(vertices))
    for picture in ("albedo.png", *(path.name for path in folder.glob("normal.png"))):
        start = _read(folder, picture, _first_bytes)
        _require(start == _PNG, folder, picture, "it is no PNG picture")
    return Bundle(
        folder,
        info,
        vertices.astype(np.float32),
        faces.astype(np.int32),
        uv.astype(np.float32),
        landmarks.astype(np.int32),
        shapes,
        _groups(folder, mesh, len(vertices)),
    )


def _check_mesh(folder: Path, vertices: Any, faces: Any, uv: Any) -> None:
    def require(good: bool, why: str) -> None:
        _require(good, folder, "mesh.npz", why)

    require(
        vertices.ndim == 2 and vertices.shape[1:] == (3,) and vertices.dtype.kind == "f",
        "its vertices are no points",
    )
    require(bool(np.isfinite(vertices).all()), "its vertices are not finite")
    require(faces.ndim == 2 and faces.shape[1:] == (4,) and faces.dtype.kind == "i", "its faces are no quads")
    require(len(faces) > 0, "it has no faces")
    inside = faces[:, :3].min() >= 0 and faces[:, 3].min() >= -1 and faces.max() < len(vertices)
    require(bool(inside), "its faces name vertices that do not exist")
    require(uv.shape == (len(faces), 4, 2) and uv.dtype.kind == "f", "its uv does not fit its faces")
    require(bool(np.isfinite(uv).all()), "its uv is not finite")


def _shapes(folder: Path, count: int) -> dict[str, npt.NDArray[np.float32]]:
    arrays = _read(folder, "shapes.npz", _arrays)
    names, deltas = arrays.get("names"), arrays.get("deltas")
    fits = names is not None and deltas is not None and deltas.shape == (len(names), count, 3)
    _require(fits, folder, "shapes.npz", "its shapes do not fit the mesh")
    assert names is not None
    assert deltas is not None
    _require(bool(np.isfinite(deltas).all()), folder, "shapes.npz", "its shapes are not finite")
    return {str(name): delta.astype(np.float32) for name, delta in zip(names, deltas, strict=True)}


def _groups(folder: Path, mesh: dict[str, Any], count: int) -> dict[str, npt.NDArray[np.int32]]:
    names, bits = mesh.get("group_names"), mesh.get("groups")
    if names is None or bits is None:
        return {}
    fits = names.ndim == 1 and bits.dtype == np.uint8 and bits.shape == (len(names), -(-count // 8))
    _require(fits, folder, "mesh.npz", "its groups do not fit its vertices")
    member = np.unpackbits(bits, axis=1, count=count).astype(bool)
    return {str(name): np.flatnonzero(row).astype(np.int32) for name, row in zip(names, member, strict=True)}


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    # From memory, because numpy leaves a damaged file open; without pickles, because a bundle from
    # elsewhere must not run code.
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_PNG))


def _read(folder: Path, name: str, decode: Callable[[Path], Any]) -> Any:
    try:
        return decode(folder / name)
    except FileNotFoundError as error:
        raise _damaged(folder, name, "it is missing") from error
    except OSError as error:
        raise _damaged(folder, name, f"it cannot be read, {error.strerror or error}") from error
    except _BROKEN as error:
        raise _damaged(folder, name, "its content is broken") from error


def _require(good: bool, folder: Path, name: str, why: str) -> None:
    if not good:
        raise _damaged(folder, name, why)


def _damaged(folder: Path, name: str, why: str) -> Trouble:
    return Trouble(
        f"The head in {folder.name} is damaged ({name}: {why}): create it again from its photo.",
        code="bundle",
    )
