"""The CC0 head data: base mesh, morph targets, proxies (eyes, teeth, brows, hair) and textures, as arrays.

The data folder (heads.npz, meta.json, tex/) comes from MakeHuman's CC0 assets; its README describes the
arrays.
Units are decimetres in MakeHuman's frame: x = the subject's left, y up, z forward.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from geoinv_core.errors import GeoInvError

_PAIRS = (
    ("decr", "incr"),
    ("down", "up"),
    ("in", "out"),
    ("backward", "forward"),
    ("concave", "convex"),
    ("compress", "uncompress"),
)


def data_folder(path: str | Path | None = None) -> Path:
    """The head data's folder: the argument, else the environment variable GEOINV_HEADS.

    Raises GeoInvError when neither names a folder with heads.npz.
    """
    chosen = path or os.environ.get("GEOINV_HEADS")
    if not chosen:
        raise GeoInvError(
            "The head data was not found because no folder is named; "
            "give --heads FOLDER or set GEOINV_HEADS.",
            "heads",
        )
    folder = Path(chosen)
    if not (folder / "heads.npz").is_file():
        raise GeoInvError(
            f"{folder} holds no head data (heads.npz is missing); name the right folder.", "heads"
        )
    return folder


@dataclass(frozen=True)
class Proxy:
    """A mesh that rides on the base mesh (eyes, teeth, a hair style ...)."""

    index: int
    kind: str
    name: str
    ref: Tensor
    """int64 [n, 3] base vertices"""
    weight: Tensor
    """float32 [n, 3]"""
    offset: Tensor
    """float32 [n, 3] decimetres, scaled per axis with the head"""
    scale: list[tuple[int, int, float]]
    """per axis: two base vertices and their distance at rest"""
    vid: Tensor
    """int64 [m] mesh vertex of each uv-split vertex"""
    tri: Tensor
    """int64 [t, 3] into the split vertices"""
    uv: Tensor
    """float32 [m, 2], origin top left"""


@dataclass
class HeadAssets:
    """Everything constant about the heads, on one device."""

    folder: Path
    device: torch.device
    arrays: dict[str, Any] = field(repr=False)
    meta: dict[str, Any] = field(repr=False)
    _textures: dict[tuple[str, str], Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, path: str | Path | None = None, device: str | torch.device = "cpu") -> HeadAssets:
        """Read the data folder (see `data_folder`)."""
        folder = data_folder(path)
        with np.load(folder / "heads.npz") as z:
            arrays = {k: z[k] for k in z.files}
        return cls(folder, torch.device(device), arrays, json.loads((folder / "meta.json").read_text()))

    def tensor(self, array: Any, dtype: torch.dtype = torch.float32) -> Tensor:
        """A numpy array as a tensor of `dtype` on the assets' device (integers go through int64)."""
        a = np.asarray(array)
        return torch.from_numpy(a.astype(np.int64) if a.dtype.kind in "ui" else a.astype(np.float32)).to(
            self.device, dtype
        )

    @cached_property
    def rest(self) -> Tensor:
        """float32 [N, 3] base vertices, decimetres."""
        return self.tensor(self.arrays["rest"])

    @cached_property
    def target_names(self) -> list[str]:
        return list(self.meta["targets"])

    @cached_property
    def target_index(self) -> dict[str, int]:
        return {n: i for i, n in enumerate(self.target_names)}

    @cached_property
    def morphs(self) -> Tensor:
        """Sparse float32 [3N, T]: flattened vertex offsets (decimetres) per unit weight of each target."""
        pointer, index, delta = (self.arrays[k] for k in ("tgt_ptr", "tgt_idx", "tgt_delta"))
        column = np.repeat(np.arange(len(pointer) - 1), np.diff(pointer))
        rows = (index.astype(np.int64)[:, None] * 3 + np.arange(3)).ravel()
        at = torch.from_numpy(np.stack([rows, np.repeat(column, 3)]))
        size = (3 * len(self.arrays["rest"]), len(pointer) - 1)
        values = torch.from_numpy(delta.astype(np.float32).ravel())
        return torch.sparse_coo_tensor(at, values, size, check_invariants=True).coalesce().to(self.device)

    @cached_property
    def axes(self) -> dict[str, tuple[list[str], list[str]]]:
        """Signed feature axes: name to the targets of the negative and of the positive end (both sides
        joined)."""
        features = [
            n[5:] for n in self.target_names if n.startswith("feat/") and not n.startswith("feat/asym")
        ]
        known, used = set(features), set()
        axes: dict[str, tuple[list[str], list[str]]] = {}

        def targets(stem: str, two_sided: bool) -> list[str]:
            return [f"feat/{side}{stem}" for side in (("l-", "r-") if two_sided else ("",))]

        for name in features:
            if name in used or (name.startswith("r-") and "l-" + name[2:] in known):
                continue
            two_sided = name.startswith("l-")
            prefix, stem = ("l-", name[2:]) if two_sided else ("", name)
            ends = None
            for low, high in _PAIRS:
                for mine, other in ((low, high), (high, low)):
                    if stem.endswith("-" + mine) and prefix + stem[: -len(mine)] + other in known:
                        ends = (stem[: -len(mine) - 1], low, high)
            if ends is None:
                axes[stem] = ([], targets(stem, two_sided))
                used.add(name)
            else:
                base, low, high = ends
                axes[base] = (targets(f"{base}-{low}", two_sided), targets(f"{base}-{high}", two_sided))
                used |= {f"{prefix}{base}-{low}", f"{prefix}{base}-{high}"}
        return axes

    @cached_property
    def asymmetries(self) -> list[str]:
        return sorted({n[5:-2] for n in self.target_names if n.startswith("feat/asym")})

    @cached_property
    def expressions(self) -> list[str]:
        """The 52 ARKit names."""
        return sorted(n[6:] for n in self.target_names if n.startswith("arkit/"))

    @cached_property
    def proxies(self) -> list[Proxy]:
        result = []
        for k, p in enumerate(self.meta["proxies"]):
            floats = {n: self.tensor(self.arrays[f"px{k}_{n}"]) for n in ("w", "off", "uv")}
            indices = {n: self.tensor(self.arrays[f"px{k}_{n}"], torch.int64) for n in ("ref", "vid", "tri")}
            scale = [(int(a), int(b), float(d)) for a, b, d in (p["scale"][axis] for axis in "xyz")]
            result.append(
                Proxy(
                    k,
                    p["kind"],
                    p["name"],
                    indices["ref"],
                    floats["w"],
                    floats["off"],
                    scale,
                    indices["vid"],
                    indices["tri"],
                    floats["uv"],
                )
            )
        return result

    def proxy(self, kind: str, name: str | None = None) -> Proxy:
        """The first proxy of a kind (and name). Raises KeyError."""
        for p in self.proxies:
            if p.kind == kind and name in (None, p.name):
                return p
        raise KeyError(f"{kind} {name}")

    def textures(self, prefix: str) -> list[str]:
        """Names (without folder and suffix) of the textures that start with `prefix`, sorted."""
        return sorted(p.stem for p in (self.folder / "tex").iterdir() if p.name.startswith(prefix))

    def texture(self, name: str, mode: str) -> Tensor:
        """float32 [C, H, W] in 0..1 as stored (sRGB for colours); `mode` is Pillow's ("RGB", "LA", "L",
        "RGBA")."""
        key = (name, mode)
        if key not in self._textures:
            path = next((self.folder / "tex").glob(name + ".*"))
            pixels = np.asarray(Image.open(path).convert(mode), np.float32) / 255
            pixels = pixels[..., None] if pixels.ndim == 2 else pixels
            self._textures[key] = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().to(self.device)
        return self._textures[key]

    # --- vertex masks of the skin, float32 [N] -------------------------------------------------

    @cached_property
    def skin_triangles(self) -> Tensor:
        """int64 [t, 3] into the base vertices."""
        return self.tensor(self.arrays["skin_tri"], torch.int64)

    @cached_property
    def skin_corners(self) -> tuple[Tensor, Tensor, Tensor]:
        """Skin vertices split at uv seams: base vertex int64 [m], uv float32 [m, 2], triangles int64 [t,
        3]."""
        tri, uv = self.arrays["skin_tri"].astype(np.int64), self.arrays["skin_tri_uv"].astype(np.int64)
        keys, inverse = np.unique(
            np.concatenate([tri.reshape(-1, 1), uv.reshape(-1, 2)], 1), axis=0, return_inverse=True
        )
        return (
            self.tensor(keys[:, 0], torch.int64),
            self.tensor(keys[:, 1:] / 65535.0),
            self.tensor(inverse.reshape(-1, 3), torch.int64),
        )

    @cached_property
    def beard(self) -> Tensor:
        """Where a beard grows: below the cheek line and above the throat, off the lips and the mouth's
        cleft."""
        x, y, z = self.rest[:, 0].abs(), self.rest[:, 1], self.rest[:, 2]
        lips = self.tensor(self.arrays["mask_lips"]) / 255

        def step(value: Tensor, width: float) -> Tensor:
            return torch.sigmoid(value / width)

        top = torch.where(x < 0.36, torch.full_like(x, 6.80), 6.60 + (x - 0.32).clamp(0, 1) * 0.55)
        mask = step(top - y, 0.035) * step(y - 5.98, 0.05)
        mask = mask * step(z - (0.50 + 0.35 * step(6.3 - y, 0.1)), 0.06) * (1 - lips)
        return mask * (1 - 0.85 * torch.exp(-((x / 0.12) ** 2) - ((y - 6.42) / 0.03) ** 2))

    @cached_property
    def scalp(self) -> Tensor:
        """Where short hair grows: the smoothed shadow of a close-cut style."""
        return ((self._smooth(self.hair_shadow("short04"), 3) - 0.25) / 0.4).clamp(0, 1)

    @cached_property
    def hairline(self) -> Tensor:
        """Where hair grows that stands off the head: down to the usual hairline, without its notches."""
        return ((self._smooth(self.hair_shadow("short04"), 6) - 0.14) / 0.4).clamp(0, 1)

    def _smooth(self, values: Tensor, rounds: int) -> Tensor:
        """Means over the triangles around each base vertex of the skin."""
        tri = self.skin_triangles
        for _ in range(rounds):
            total, count = torch.zeros_like(values), torch.zeros_like(values)
            for i in range(3):
                for j in range(3):
                    total.index_add_(0, tri[:, i], values[tri[:, j]])
                    count.index_add_(0, tri[:, i], torch.ones_like(tri[:, i], dtype=values.dtype))
            values = torch.where(count > 0, total / count.clamp_min(1), values)
        return values

    def hair_shadow(self, name: str) -> Tensor:
        """How much a hair style covers each base vertex, 0..1."""
        return self.tensor(self.arrays[f"px{self.proxy('hair', name).index}_shadow"]) / 255

    @cached_property
    def below_neckline(self) -> Tensor:
        """Decimetres below a rising neckline (positive = shirt)."""
        return 5.42 + 0.30 * self.rest[:, 0].abs() - self.rest[:, 1]
