"""The head bundle: a folder that holds everything about one head, written whole or not at all.

    head.json            format version, model name and hash, photo hash, camera, unit_mm, labels ...
    latent.safetensors   what render and edit need
    mesh.npz             vertices, faces, uv, landmarks           (see `HeadMesh` for shapes and axes);
                         group_names [G], groups uint8 [G, ceil(V / 8)], the bits of each group's vertices
    shapes.npz           names [K], deltas float16 [K, V, 3] metres
    albedo.png           sRGB, square;  preview.png 512²;  photo.png the aligned crop (where there is one)
    mask_*.png           grey, over the same UVs: where the albedo comes from, and regions of the head
    normal.png           tangent space, +Y up (where it was asked for)

Reading needs neither torch nor a network, and executes nothing that the files carry.
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from geoinv_core.errors import ModelError
from geoinv_core.mesh.head_mesh import HeadMesh, is_map
from geoinv_core.mesh.replace import write_folder
from geoinv_core.progress import OnProgress, report

FORMAT = "geoinv-head"
FORMAT_VERSION = 1
PREVIEW_SIZE = 512
MAX_TEXTURE = 16384
FILES = (
    "head.json",
    "latent.safetensors",
    "mesh.npz",
    "shapes.npz",
    "albedo.png",
    "preview.png",
    "photo.png",
)


@dataclass(frozen=True)
class BundleContents:
    """All that a bundle holds.

    head: the fields of head.json; `format` and `format_version` are set by `write`. Needed are
        model {name, hash}, camera (25 numbers), unit_mm, origin (3 numbers: world position of Blender's
        origin), labels {name: number}, timings {stage: seconds}, warnings [sentence]; photo_hash may be None.
        More fields are kept as they are.
    tensors: name -> array, the content of latent.safetensors.
    preview: any size, RGB; written as 512². photo: the aligned crop, or None.
    """

    head: dict[str, Any]
    tensors: dict[str, npt.NDArray[Any]]
    mesh: HeadMesh
    preview: Image.Image
    photo: Image.Image | None = None


def write(folder: Path | str, contents: BundleContents, on_progress: OnProgress | None = None) -> Path:
    """Write a bundle; an existing bundle of that name is replaced when the new one is complete.

    Files of the user's own that lie in a replaced bundle are kept.

    Returns: the folder's absolute path.
    Raises: OutputError (unwritable, full, or the folder exists and is no bundle; nothing is left behind),
        ValueError where the contents are inconsistent (a mistake of the caller), Cancelled.
    """
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, **contents.head}
    head["format"], head["format_version"] = FORMAT, FORMAT_VERSION
    problem = _problem_of_head(head) or contents.mesh.problem()
    if problem:
        raise ValueError(f"The bundle is inconsistent: {problem}.")
    writers = _writers(head, contents)

    def fill(temporary: Path) -> None:
        for index, (name, encode) in enumerate(writers):
            report(on_progress, "save", index / len(writers), f"Writing {name}")
            _write_file(temporary / name, encode())

    owned = {*FILES, *(path.name for path in _map_files(Path(folder)))}
    target = write_folder(Path(folder), fill, owned=owned, is_ours=is_bundle)
    report(on_progress, "save", 1.0, "Saved")
    return target


def is_bundle(folder: Path | str) -> bool:
    """Whether the folder holds a head.json of ours (of any version)."""
    try:
        head = json.loads((Path(folder) / "head.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(head, dict) and head.get("format") == FORMAT


def read(folder: Path | str) -> BundleContents:
    """Read and check a bundle.

    Raises: ModelError, one sentence, where it is missing, damaged, or of a newer format.
    """
    folder = Path(folder)
    head = read_head(folder)
    mesh = read_mesh(folder)
    tensors = _guard(folder, "latent.safetensors", load_tensors)
    for name, value in tensors.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise _damaged(folder, "latent.safetensors", f"{name} is not finite")
    photo = _guard(folder, "photo.png", _decode_picture) if (folder / "photo.png").exists() else None
    return BundleContents(head, tensors, mesh, _guard(folder, "preview.png", _decode_picture), photo)


def read_head(folder: Path | str) -> dict[str, Any]:
    """The checked fields of head.json. Raises: ModelError."""
    folder = Path(folder)
    if not (folder / "head.json").is_file():
        raise ModelError(
            f"“{folder}” is not a saved head: it holds no head.json; choose a folder that GeoInv has saved."
        )
    head = _guard(folder, "head.json", json.loads)
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise ModelError(
            f"“{folder}” is not a saved head: its head.json is of another program; "
            "choose a folder that GeoInv has saved."
        )
    version = head.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ModelError(
            f"The head in “{folder}” has format {version}, and this GeoInv reads up to {FORMAT_VERSION}: "
            "it was saved by a newer version; update GeoInv."
        )
    problem = _problem_of_head(head)
    if problem:
        raise _damaged(folder, "head.json", problem)
    return head


def read_mesh(folder: Path | str) -> HeadMesh:
    """The checked mesh, shapes and texture of a bundle. Raises: ModelError."""
    folder = Path(folder)
    arrays = _guard(folder, "mesh.npz", _decode_npz)
    shapes = _guard(folder, "shapes.npz", _decode_npz)
    for name in ("vertices", "faces", "uv", "landmarks"):
        if name not in arrays:
            raise _damaged(folder, "mesh.npz", f"it holds no {name}")
    names, deltas = shapes.get("names"), shapes.get("deltas")
    if names is None or deltas is None or names.ndim != 1 or deltas.ndim != 3 or len(names) != len(deltas):
        raise _damaged(folder, "shapes.npz", "names and deltas do not fit each other")
    picture = _guard(folder, "albedo.png", _decode_picture)
    mesh = HeadMesh(
        arrays["vertices"],
        arrays["faces"],
        arrays["uv"],
        arrays["landmarks"],
        np.asarray(picture),
        {str(name): delta for name, delta in zip(names, deltas, strict=True)},
        {path.stem: _guard(folder, path.name, _decode_map) for path in _map_files(folder)},
        _unpack_groups(folder, arrays),
    )
    problem = mesh.problem()
    if problem:
        raise _damaged(folder, "mesh.npz", problem)
    return mesh


# --- writing -------------------------------------------------------------------------------------


def _writers(head: dict[str, Any], contents: BundleContents) -> list[tuple[str, Callable[[], bytes]]]:
    """File names with what makes their bytes, head.json last: a folder with head.json is complete."""
    mesh = contents.mesh
    photo = contents.photo
    writers: list[tuple[str, Callable[[], bytes]]] = [
        ("latent.safetensors", lambda: _encode_tensors(contents.tensors)),
        ("mesh.npz", lambda: _encode_mesh(mesh)),
        ("shapes.npz", lambda: _encode_shapes(mesh)),
        ("albedo.png", lambda: encode_png(Image.fromarray(mesh.albedo))),
        *((f"{name}.png", partial(_encode_map, picture)) for name, picture in mesh.maps.items()),
        ("preview.png", lambda: encode_png(_preview(contents.preview))),
    ]
    if photo is not None:
        writers.append(("photo.png", lambda: encode_png(photo.convert("RGB"))))
    text = json.dumps(head, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    return [*writers, ("head.json", lambda: text.encode())]


def _encode_tensors(tensors: dict[str, npt.NDArray[Any]]) -> bytes:
    return save_tensors({name: np.ascontiguousarray(value) for name, value in tensors.items()})


def _encode_mesh(mesh: HeadMesh) -> bytes:
    none = np.zeros((0, len(mesh.vertices)), bool)
    member = np.stack(list(mesh.groups.values())) if mesh.groups else none
    return _encode_npz(
        vertices=mesh.vertices,
        faces=mesh.faces,
        uv=mesh.uv,
        landmarks=mesh.landmarks,
        group_names=np.array(list(mesh.groups), dtype=np.str_),
        groups=np.packbits(member, axis=1),
    )


def _encode_shapes(mesh: HeadMesh) -> bytes:
    names = np.array(list(mesh.shapes), dtype=np.str_)
    none = np.zeros((0, len(mesh.vertices), 3), np.float16)
    deltas = np.stack(list(mesh.shapes.values())) if mesh.shapes else none
    return _encode_npz(names=names, deltas=deltas)


def _encode_map(picture: npt.NDArray[np.uint8]) -> bytes:
    return encode_png(Image.fromarray(picture))


def encode_png(picture: Image.Image) -> bytes:
    """PNG bytes of a picture."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=4)  # 4: half the time of the default for 3 % more bytes
    return stream.getvalue()


def _encode_npz(**arrays: npt.NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _preview(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGB")
    if picture.size == (PREVIEW_SIZE, PREVIEW_SIZE):
        return picture
    return picture.resize((PREVIEW_SIZE, PREVIEW_SIZE), Image.Resampling.LANCZOS)


def _plain(value: object) -> object:
    """What json cannot write by itself: numpy's numbers and arrays, paths."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"head.json cannot hold a {type(value).__name__}.")


def _write_file(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())  # the rename must not become durable before the content


# --- reading -------------------------------------------------------------------------------------

# what numpy, Pillow, zipfile, json and safetensors raise on damaged content
_BROKEN = (ValueError, KeyError, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error, SafetensorError)


def _guard(folder: Path, name: str, decode: Callable[[bytes], Any]) -> Any:
    """Decode one file; whatever a damaged file makes the decoder raise becomes a sentence."""
    try:
        return decode((folder / name).read_bytes())
    except FileNotFoundError as error:
        raise _damaged(folder, name, "it is missing") from error
    except OSError as error:
        raise _damaged(folder, name, f"it cannot be read ({error.strerror or error})") from error
    except _BROKEN as error:
        raise _damaged(folder, name, f"its content is broken ({type(error).__name__})") from error


def _damaged(folder: Path, name: str, why: str) -> ModelError:
    return ModelError(
        f"The head in “{folder}” cannot be used: {name}: {why}; create the head again from its photo."
    )


def _decode_npz(data: bytes) -> dict[str, npt.NDArray[Any]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _unpack_groups(folder: Path, arrays: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.bool_]]:
    """The groups of mesh.npz; none in heads that were saved before there were any."""
    names, bits, count = arrays.get("group_names"), arrays.get("groups"), len(arrays["vertices"])
    if names is None or bits is None:
        return {}
    if names.ndim != 1 or bits.dtype != np.uint8 or bits.shape != (len(names), -(-count // 8)):
        raise _damaged(folder, "mesh.npz", "its groups do not fit its vertices")
    member = np.unpackbits(bits, axis=1, count=count).astype(bool)
    return {str(name): row for name, row in zip(names, member, strict=True)}


def _decode_picture(data: bytes, mode: str = "RGB") -> Image.Image:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        if max(picture.size) > MAX_TEXTURE:
            raise ValueError("too large")
        return picture.convert(mode)


def _decode_map(data: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        mode = "L" if picture.mode == "L" else "RGB"
    return np.asarray(_decode_picture(data, mode))


def _map_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.png") if is_map(path.stem))


def _problem_of_head(head: dict[str, Any]) -> str | None:
    model = head.get("model")
    if not isinstance(model, dict) or not {"name", "hash"} <= set(model):
        return "model must have a name and a hash"
    if not _numbers(head.get("camera"), 25):
        return "camera must be 25 finite numbers"
    if not _numbers(head.get("origin"), 3):
        return "origin must be 3 finite numbers"
    unit = head.get("unit_mm")
    if not _number(unit) or float(unit) <= 0:  # type: ignore[arg-type]
        return "unit_mm must be a positive number"
    for name in ("labels", "timings"):
        value = head.get(name)
        if not isinstance(value, dict) or not all(_number(v) for v in value.values()):
            return f"{name} must map names to finite numbers"
    warnings = head.get("warnings")
    if not isinstance(warnings, list) or not all(isinstance(w, str) for w in warnings):
        return "warnings must be a list of sentences"
    return None


def _number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(value: object, count: int) -> bool:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return isinstance(value, list | tuple) and len(value) == count and all(_number(v) for v in value)
