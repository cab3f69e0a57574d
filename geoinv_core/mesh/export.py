"""A head bundle as .glb or .obj, written without Blender.

Both formats get metres, Y up, the face towards +Z, the origin at the neck base centre.
"""

from __future__ import annotations

import os
from errno import EISDIR
from pathlib import Path
from secrets import token_hex

import numpy as np
import numpy.typing as npt
from PIL import Image

from geoinv_core.errors import OutputError
from geoinv_core.mesh import bundle
from geoinv_core.mesh.gltf import encode_glb
from geoinv_core.mesh.head_mesh import HeadMesh
from geoinv_core.mesh.replace import explain
from geoinv_core.progress import OnProgress, report

SUFFIXES = (".glb", ".obj")


def export(folder: Path | str, target: Path | str, on_progress: OnProgress | None = None) -> list[Path]:
    """Write the head saved in `folder` to `target`, whose ending (.glb or .obj) says how.

    An .obj brings a .mtl and .png pictures of the same name; it has no shape keys.

    Returns: the files written. Raises: OutputError, ModelError (unusable bundle), Cancelled; nothing is
    half-written then.
    """
    target = Path(target)
    check_suffix(target)
    report(on_progress, "load", 0.0, "Reading the head")
    mesh = bundle.read_mesh(folder)
    report(on_progress, "save", 0.0, f"Writing {target.name}")
    return write(mesh, target, on_progress)


def write(mesh: HeadMesh, target: Path, on_progress: OnProgress | None = None) -> list[Path]:
    """Write a mesh to a .glb or .obj file; see `export`."""
    check_suffix(target)
    if target.suffix.lower() == ".glb":
        files = {target: encode_glb(mesh, target.stem)}
    else:
        files = _encode_obj(mesh, target)
    report(on_progress, "save", 0.5, f"Writing {target.name}")
    _write_all(files)
    report(on_progress, "save", 1.0, "Saved")
    return list(files)


def check_suffix(target: Path) -> None:
    """Raises: OutputError for an ending that cannot be written."""
    if target.suffix.lower() not in SUFFIXES:
        raise OutputError(
            f"“{target.name}” cannot be written: only {' and '.join(SUFFIXES)} files can be exported; "
            "give the file one of these endings."
        )


def _encode_obj(mesh: HeadMesh, target: Path) -> dict[Path, bytes]:
    """Wavefront OBJ with quads and triangles; the texture's rows and v run as in Blender."""
    material, picture = target.with_suffix(".mtl"), target.with_suffix(".png")
    x, y, z = mesh.vertices.T
    points = np.stack([x, z, -y], 1)  # Z up to Y up
    quad = mesh.faces[:, 3] >= 0
    used = np.ones((len(mesh.faces), 4), bool)
    used[:, 3] = quad
    uv, number = np.unique(mesh.uv[used], axis=0, return_inverse=True)
    texture = np.zeros((len(mesh.faces), 4), np.int64)
    texture[used] = number.reshape(-1) + 1
    corner = mesh.faces + 1
    lines = [
        "# GeoInv head: metres, Y up, face towards +Z",
        f"mtllib {material.name}",
        "o head",
        *_rows("v", points),
        *_rows("vt", uv),
        "usemtl skin",
        "s 1",
    ]
    for c, t, is_quad in zip(corner.tolist(), texture.tolist(), quad.tolist(), strict=True):
        lines.append("f " + " ".join(f"{c[i]}/{t[i]}" for i in range(4 if is_quad else 3)))
    text = f"# GeoInv\nnewmtl skin\nKd 1 1 1\nKs 0.04 0.04 0.04\nNs 30\nillum 2\nmap_Kd {picture.name}\n"
    pictures = {picture: mesh.albedo}
    if "normal" in mesh.maps:
        relief = target.with_name(f"{target.stem}-normal.png")
        pictures[relief] = mesh.maps["normal"]
        text += f"norm {relief.name}\n"
    return {
        **{path: bundle.encode_png(Image.fromarray(image)) for path, image in pictures.items()},
        material: text.encode(),
        target: ("\n".join(lines) + "\n").encode(),
    }


def _rows(name: str, values: npt.NDArray[np.float32]) -> list[str]:
    return [name + "".join(f" {value:.6f}" for value in row) for row in values.tolist()]


def _write_all(files: dict[Path, bytes]) -> None:
    """All temporary files first, then the renames: a full disk leaves the old files as they were."""
    token = token_hex(4)
    pairs = [(path.with_name(f".{path.name}.{token}.partial"), path) for path in files]
    try:
        for temporary, path in pairs:
            if path.is_dir():
                raise IsADirectoryError(EISDIR, "a folder of this name exists", str(path))
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as stream:
                stream.write(files[path])
                stream.flush()
                os.fsync(stream.fileno())
        for temporary, path in pairs:
            temporary.replace(path)
    except OSError as error:
        raise OutputError(explain(pairs[-1][1], error)) from error
    finally:
        for temporary, _ in pairs:
            if temporary.is_file():
                temporary.unlink()
