"""A MakeHuman installation to the head data: `python -m geoinv_core.heads.convert FOLDER... -o HEADS`.

FOLDER are checkouts (or copies) of makehuman, makehuman-assets and extra-targets; files are found by the end
of their path. Only what those projects released as CC0 is read. Baked openness and hair cover are our own
computation.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoinv_core.heads import textures
from geoinv_core.heads.bake import blocked
from geoinv_core.heads.geometry import vertex_normals
from geoinv_core.heads.makehuman import Fit, Installation, Mesh, read_fit, read_obj, read_target
from geoinv_core.mesh.closest import ClosestPoints

Arrays = dict[str, NDArray[Any]]

BUST = (4.6, 1.9)
"""Decimetres: the skin above this height and within this distance from the middle is kept."""
NECK_BASE = 5.744
"""Decimetres: faces wholly above belong to the head, the others to the bust."""
LANDMARKS = {
    "nose_tip": 297,
    "mouth_l": 7129,
    "mouth_r": 369,
    "eye_l_out": 6801,
    "eye_l_in": 11486,
    "ear_l": 12038,
    "eye_r_out": 17,
    "eye_r_in": 4868,
    "ear_r": 5439,
    "chin": 5162,
    "crown": 881,
    "nasion": 132,
}
"""Vertices of base.obj."""
FEATURES = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "ears", "chin", "cheek", "neck", "asym")
"""Folders of targets that shape a head."""
PROXIES = {
    "eyes": ("high-poly",),
    "teeth": ("teeth_base",),
    "tongue": ("tongue01",),
    "eyebrows": tuple(f"eyebrow{k:03d}" for k in range(1, 13)),
    "eyelashes": tuple(f"eyelashes{k:02d}" for k in range(1, 5)),
    "hair": (
        *("afro01", "bob01", "bob02", "braid01", "long01", "ponytail01"),
        *("short01", "short02", "short03", "short04"),
    ),
}
_OPENNESS_BIAS, _COVER_REACH, _HAIR_HEIGHT = 0.01, 0.6, 0.6  # decimetres
_TEETH = 112  # openness of teeth and tongue, of 255: the lips hide them in the mean head


def target_paths(source: Installation) -> dict[str, str]:
    """Name in the head data to the end of the file's path, in the order of the data."""
    paths: dict[str, str] = {}
    stages, sexes = ("baby", "child", "young", "old"), ("female", "male")
    for origin in ("african", "asian", "caucasian"):
        for name in (f"{origin}-{sex}-{stage}" for sex in sexes for stage in stages):
            paths[f"macro/{name}"] = f"targets/macrodetails/{name}.target"
    builds = (
        *("averagemuscle-averageweight", "averagemuscle-minweight", "averagemuscle-maxweight"),
        *("minmuscle-averageweight", "maxmuscle-averageweight"),
    )
    for name in (f"{sex}-{stage}-{build}" for sex in sexes for stage in stages for build in builds):
        paths[f"body/{name}"] = f"targets/macrodetails/universal-{name}.target"
    for folder in FEATURES:
        paths |= {f"feat/{n}": f"targets/{folder}/{n}.target" for n in source.names(folder, ".target")}
    paths |= {f"arkit/{n}": f"faceunits/{n}.target" for n in source.names("faceunits", ".target")}
    return paths


class Base:
    """The part of the base mesh that is kept."""

    def __init__(self, mesh: Mesh, fits: list[Fit]) -> None:
        body = np.array([group == "body" for group in mesh.groups])
        height, side = mesh.vertices[:, 1], np.abs(mesh.vertices[:, 0])
        wanted = (height > BUST[0]) & (side < BUST[1])
        shown = _whole(mesh, wanted[mesh.triangles].all(1) & body)
        triangles = mesh.triangles[shown]
        self.eyes = {
            side: np.unique(mesh.triangles[[g == f"helper-{side}-eye" for g in mesh.groups]]) for side in "lr"
        }
        needed = [triangles.ravel(), *self.eyes.values(), *(f.ref.ravel() for f in fits)]
        needed += [np.array(axis[:2]) for f in fits for axis in f.scale.values()]
        self.id = np.unique(np.concatenate(needed))
        """[N] vertices of base.obj that are kept"""
        self.rest = mesh.vertices[self.id].astype(np.float32)
        self.triangles = self.index(triangles)
        high = _whole(mesh, (height[mesh.triangles] > NECK_BASE).all(1))
        self.is_head = high[shown]
        self.uv = mesh.uv[mesh.triangle_uv[shown]]
        """[T, 3, 2] of the original skin textures, origin lower left"""

    def index(self, vertices: Any) -> NDArray[np.int64]:
        """Vertices of base.obj to places in `id`; -1 for those that are not kept."""
        at = np.searchsorted(self.id, vertices).clip(0, len(self.id) - 1)
        return np.where(self.id[at] == vertices, at, -1)

    def arrays(self) -> Arrays:
        return {
            "rest": self.rest,
            "base_id": self.id.astype(np.uint16),
            "skin_tri": self.triangles.astype(np.uint16),
            "skin_is_head": self.is_head,
            "skin_tri_uv": np.rint(textures.to_atlas(self.uv) * 65535).astype(np.uint16),
            "mask_lips": textures.lips(self.uv, self.triangles, len(self.id)),
            **{f"eye_{side}": self.index(v).astype(np.uint16) for side, v in self.eyes.items()},
        }


def _whole(mesh: Mesh, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Triangles whose polygon is chosen with all its triangles."""
    complete = np.ones(int(mesh.polygon.max()) + 1, bool)
    np.logical_and.at(complete, mesh.polygon, chosen)
    return complete[mesh.polygon]


def morphs(base: Base, targets: list[tuple[NDArray[np.int64], NDArray[np.float64]]]) -> Arrays:
    """The targets, one slice each, without vertices that are not kept or do not move."""
    pointer, indices, deltas = [0], [], []
    for vertices, offsets in targets:
        at = base.index(vertices)
        some = (at >= 0) & (offsets != 0).any(1)
        order = np.argsort(at[some])
        indices.append(at[some][order].astype(np.uint16))
        deltas.append(offsets[some][order].astype(np.float16))
        pointer.append(pointer[-1] + len(order))
    return {
        "tgt_ptr": np.array(pointer, np.int32),
        "tgt_idx": np.concatenate(indices),
        "tgt_delta": np.concatenate(deltas),
    }


def proxy(base: Base, fit: Fit, mesh: Mesh) -> Arrays:
    """A fitted mesh: how it rides on the base, and its triangles with vertices split at uv seams."""
    keys = np.stack([mesh.triangles.ravel(), mesh.triangle_uv.ravel()], 1)
    corners, split = np.unique(keys, axis=0, return_inverse=True)
    uv = mesh.uv[corners[:, 1]] * [1, -1] + [0, 1]
    return {
        "ref": base.index(fit.ref).astype(np.uint16),
        "w": fit.weight.astype(np.float32),
        "off": fit.offset.astype(np.float16),
        "vid": corners[:, 0].astype(np.uint16),
        "tri": split.reshape(-1, 3).astype(np.uint16),
        "uv": uv.astype(np.float32),
    }


def fitted(base: Base, fit: Fit) -> NDArray[np.float64]:
    """A proxy's vertices on the base mesh at rest, decimetres."""
    stretch = [
        abs(float(base.rest[base.index(a), k] - base.rest[base.index(b), k])) / d
        for k, (a, b, d) in enumerate(fit.scale[axis] for axis in "xyz")
    ]
    on_base = base.rest[base.index(fit.ref)] * fit.weight[..., None]
    return np.asarray(on_base.sum(1) + fit.offset * stretch)


def openness(base: Base, vertices: NDArray[Any] | None = None, triangles: Any = None) -> NDArray[np.uint8]:
    """How much light reaches the vertices of a mesh (by default the skin's own) past the skin, of 255."""
    rest, skin = torch.from_numpy(base.rest), torch.from_numpy(base.triangles)
    points = rest if vertices is None else torch.from_numpy(np.asarray(vertices, np.float32))
    normals = vertex_normals(points, skin if triangles is None else torch.from_numpy(triangles))
    seen = 1 - blocked(points + normals * _OPENNESS_BIAS, normals, rest, skin, _OPENNESS_BIAS)
    seen[normals.norm(dim=1) == 0] = 1  # helper vertices belong to no face
    return np.asarray((seen * 255).round().numpy(), np.uint8)


def hair_arrays(base: Base, vertices: NDArray[Any], triangles: NDArray[Any]) -> Arrays:
    """`shadow`: how much hair covers each base vertex; `depth`: its height over the skin (255 = 0.6 dm)."""
    rest, skin = torch.from_numpy(base.rest), torch.from_numpy(base.triangles)
    normals = vertex_normals(rest, skin)
    hair, faces = torch.from_numpy(vertices.astype(np.float32)), torch.from_numpy(triangles)
    cover = blocked(rest, normals, hair, faces, -2 * _OPENNESS_BIAS, _COVER_REACH)
    height = ClosestPoints(base.rest, base.triangles)(vertices).distance / _HAIR_HEIGHT
    return {
        "shadow": np.asarray((cover * 255).round().numpy(), np.uint8),
        "depth": np.rint(height.clip(0, 1) * 255).astype(np.uint8),
    }


def convert(folders: list[Path], target: Path, tell: Callable[[str], None] = lambda text: None) -> Path:
    """Write heads.npz, meta.json and tex/ into `target`.

    Raises: MissingFilesError, before anything is written, when files are not there.
    """
    source = Installation(folders)
    paths = target_paths(source)
    kinds = [(kind, name) for kind, names in PROXIES.items() for name in names]
    files = {name: source.need(path) for name, path in paths.items()}
    meshes = {name: source.need(f"{name}/{name}.obj") for _, name in kinds}
    fits = {name: source.need(f"{name}/{name}.mhclo") for _, name in kinds}
    base_file = source.need("3dobjs/base.obj")
    pictures = textures.sources(source)
    source.complete()
    tell(f"{len(files)} targets, {len(kinds)} proxies, {len(pictures)} textures found")
    fit = {name: read_fit(path) for name, path in fits.items()}
    base = Base(read_obj(base_file), list(fit.values()))
    arrays = base.arrays() | morphs(base, [read_target(path) for path in files.values()])
    arrays["ao"] = openness(base)
    described = []
    for k, (kind, name) in enumerate(kinds):
        tell(f"{kind} {name}")
        mesh = read_obj(meshes[name])
        parts = proxy(base, fit[name], mesh)
        if kind in ("eyes", "hair"):
            vertices = fitted(base, fit[name])
            if kind == "hair":
                parts |= hair_arrays(base, vertices, mesh.triangles)
            else:
                arrays["ao_eyes"] = openness(base, vertices, mesh.triangles)
        if kind == "teeth":
            arrays["ao_teeth"] = np.full(len(fit[name].ref), _TEETH, np.uint8)
        arrays |= {f"px{k}_{key}": value for key, value in parts.items()}
        scale = {a: [*(int(v) for v in base.index(s[:2])), s[2]] for a, s in fit[name].scale.items()}
        described.append({"kind": kind, "name": name, "scale": scale})
    meta = {
        "targets": list(files),
        "proxies": described,
        "regions": textures.REGIONS,
        "landmarks": {name: int(base.index(v)) for name, v in LANDMARKS.items()},
    }
    (target / "tex").mkdir(parents=True, exist_ok=True)
    for name, (path, make) in pictures.items():
        make(path, target / "tex" / name)
    (target / "meta.json").write_text(json.dumps(meta))
    np.savez_compressed(target / "heads.npz", **arrays)
    return target


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make the head data from a MakeHuman installation.")
    parser.add_argument("folders", type=Path, nargs="+", help="makehuman, makehuman-assets, extra-targets")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    a = parser.parse_args(arguments)
    convert(a.folders, a.output, lambda text: print(text, file=sys.stderr, flush=True))


if __name__ == "__main__":
    main()
