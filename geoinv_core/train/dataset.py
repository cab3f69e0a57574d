"""Drawn heads on disk, in shards that appear while training already reads: `python -m
geoinv_core.train.dataset`.

A shard is one .npz of HEADS heads with VIEWS views each. With `variants` every head is followed by itself
with one thing changed (see `heads.variants`), seen by the same cameras:
z f32 [H,Z]; c f32 [H,C]; camera f32 [H,V,25]; unit_mm f32 [H]; landmarks f32 [H,L,3] and ibug f32 [H,68,3]
(world, see `heads.landmarks`); depth_from f32 [H,V], how much further away than usual the camera stands;
rgb, albedo u8 [H,V,S,S,3] (sRGB); mask u8 [H,V,S,S]; segment u8; depth u16 (see DEPTH; 0 = nothing);
normal i8 [H,V,S,S,3] (x 127).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoinv_core.camera import FOCAL, RADIUS, orbit
from geoinv_core.errors import GeoInvError
from geoinv_core.heads import (
    EVALUATION_SEEDS,
    HeadAssets,
    HeadLabels,
    LabelLayout,
    Layers,
    build,
    picture,
    sample,
)
from geoinv_core.heads.landmarks import ibug
from geoinv_core.heads.variants import variant
from geoinv_core.train.expressions import balanced

HEADS = 32
DISTANCES = (0.45, 1.8)
"""Of photographers, in units of the usual radius: about half a metre to two."""
DEPTH = (1.7, 2.0 / 65535)
"""Depth along the ray = DEPTH[0] + value * DEPTH[1], world units, of a camera at the usual distance; cameras
that stand `further` away see all of it so much deeper (depth_from, where a shard has it)."""
UNIT_MM = 410.0
"""Millimetres in a world unit, the mean over drawn heads (standard deviation 31: children are smaller)."""
_LATER = ("ibug", "depth_from")  # arrays that older shards do not have


def landmark_names(assets: HeadAssets) -> list[str]:
    """The order of the landmarks in a shard."""
    return sorted([*assets.meta["landmarks"], "eyeball_l", "eyeball_r"])


KEEP_OUT_HELP = "never draw these, such as hair=short03 brow=eyebrow004; kinds: skin, hair, brow"


def parts_named(pairs: Sequence[str]) -> dict[str, list[str]]:
    """["hair=short03", "brow=eyebrow004"] to {"hair": ["short03"], "brow": ["eyebrow004"]}."""
    parts: dict[str, list[str]] = {}
    for pair in pairs:
        kind, _, name = pair.partition("=")
        if kind not in ("skin", "hair", "brow") or not name:
            raise GeoInvError(f"{pair} names no part: write skin=, hair= or brow= and a name.", "usage")
        parts.setdefault(kind, []).append(name)
    return parts


VIEWS = ("front", "wide", "any", "lens", "photo")


def views_named(text: str) -> tuple[str, ...]:
    """ "front,any" to ("front", "any"). Raises: GeoInvError for a kind that `random_view` does not know."""
    views = tuple(text.split(","))
    for kind in views:
        if kind not in VIEWS:
            raise GeoInvError(f"{kind or 'An empty name'} is no kind of view: {', '.join(VIEWS)}.", "usage")
    return views


def random_view(r: np.random.Generator, kind: str) -> Tensor:
    """A camera [25]: "front" (yaw sd 25 deg), "wide" (sd 60), "any" (all around), "lens" (wide, from nearer
    or further away, with another focal length, tilted and off centre), or "photo": as people take pictures
    of people, every other one from nearer or further away, with the focal length to match.

    A generator's ray_start and ray_end are distances for cameras at its camera_radius; `generator.draw` looks
    for better ones when a camera stands elsewhere.
    """
    if kind == "photo":
        yaw, pitch = np.clip([r.normal(0, 28), r.normal(2, 11)], -75, 50).tolist()
        away = float(np.exp(r.uniform(*np.log(DISTANCES)))) if r.random() < 0.5 else 1.0
        return orbit(yaw, pitch, RADIUS * away, FOCAL * away)
    angles = {"front": r.normal(0, 25), "wide": r.normal(0, 60), "any": r.uniform(-180, 180)}
    yaw = float(angles["wide" if kind == "lens" else kind])
    pitch = np.clip(r.normal(3, 9 if kind == "front" else 14), -50, 50)
    if kind != "lens":
        return orbit(yaw, float(pitch))
    radius = float(r.uniform(0.88, 1.2)) * RADIUS  # depths stay within DEPTH
    focal = FOCAL * radius / RADIUS * float(r.uniform(0.8, 1.1))
    x, y, z = (float(v) for v in r.normal(0, 0.02, 3))
    return orbit(yaw, float(pitch), radius, focal, float(r.normal(0, 6)), (x, y, z))


def further(camera: Tensor) -> Tensor:
    """How much more than the usual distance lies between cameras [..., 25] and the origin: [...]."""
    away: Tensor = camera[..., [3, 7, 11]].norm(dim=-1) - RADIUS
    return away


def draw_shard(
    assets: HeadAssets,
    layout: LabelLayout,
    seeds: list[int],
    views: tuple[str, ...],
    size: int,
    supersample: int,
    variants: bool = False,
    even: bool = False,
) -> dict[str, NDArray[Any]]:
    """Draw the heads of `seeds`; arrays as in the module's docstring."""
    rows: list[dict[str, NDArray[Any]]] = []
    names = landmark_names(assets)
    with torch.no_grad():
        for seed, labels in _heads(assets, seeds, variants, even):
            geometry = build(assets, [labels])[0]
            layers = Layers(assets, geometry)
            r = np.random.default_rng([20263, seed])
            pictures = [picture(assets, layers, random_view(r, kind), size, supersample) for kind in views]
            z, c = layout.encode(labels)

            def stack(values: list[Tensor]) -> NDArray[Any]:
                return torch.stack(values).cpu().numpy()

            depth = stack([p.depth - further(p.camera) for p in pictures])
            code = (
                np.where(np.isfinite(depth), (depth - DEPTH[0]) / DEPTH[1], 0)
                .clip(0, 65535)
                .astype(np.uint16)
            )
            rows.append(
                {
                    "z": z,
                    "c": c,
                    "unit_mm": np.array(geometry.unit_mm, np.float32),
                    "camera": stack([p.camera for p in pictures]),
                    "landmarks": stack([geometry.landmarks[n] for n in names]),
                    "ibug": ibug(assets, geometry).cpu().numpy(),
                    "depth_from": stack([further(p.camera) for p in pictures]),
                    "rgb": (stack([p.rgb for p in pictures]) * 255).round().astype(np.uint8),
                    "albedo": (stack([p.albedo for p in pictures]) * 255)
                    .round()
                    .clip(0, 255)
                    .astype(np.uint8),
                    "mask": (stack([p.mask for p in pictures]) * 255).round().astype(np.uint8),
                    "segment": stack([p.segment for p in pictures]).astype(np.uint8),
                    "normal": (stack([p.normal for p in pictures]) * 127).round().astype(np.int8),
                    "depth": code,
                }
            )
    return {k: np.stack([np.asarray(row[k]) for row in rows]) for k in rows[0]}


def _heads(
    assets: HeadAssets, seeds: list[int], variants: bool, even: bool
) -> Iterator[tuple[int, HeadLabels]]:
    for seed in seeds:
        labels = balanced(assets, seed) if even else sample(assets, seed)
        yield seed, labels
        if variants:
            yield seed, variant(assets, labels, seed)


def draw_all(
    folder: Path,
    heads: str | None,
    start: int,
    count: int,
    size: int,
    supersample: int,
    views: tuple[str, ...],
    part: tuple[int, int] = (0, 1),
    variants: bool = False,
    kept_out: dict[str, list[str]] | None = None,
    even: bool = False,
) -> Iterator[Path]:
    """Draw shards `part[0]::part[1]` of the run; existing ones are skipped. Yields each finished file.

    kept_out: skins, hair styles, brows; seeds whose head has one of them are passed over. even: expressions
    are spread evenly (see `train.expressions`), for training encoders.
    """
    if start < EVALUATION_SEEDS < start + count:
        raise ValueError(
            f"Seeds from {EVALUATION_SEEDS} up are for evaluation; draw them in a run of their own."
        )
    assets = HeadAssets.open(heads)
    layout = LabelLayout.of(assets)
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "layout": layout.to_json(),
        "landmarks": landmark_names(assets),
        "views": views,
        "size": size,
        "variants": variants,
        "kept_out": kept_out or {},
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    own = HEADS // 2 if variants else HEADS
    shards = range(start, start + count, own)
    for first in list(shards)[part[0] :: part[1]]:
        path = folder / f"heads-{first:07d}.npz"
        if not path.exists():
            seeds = list(range(first, min(first + own, start + count)))
            worn = [
                any(h.wears(kept_out or {}) for _, h in _heads(assets, [s], variants, even)) for s in seeds
            ]
            seeds = [s for s, unwanted in zip(seeds, worn, strict=True) if not unwanted]
            if not seeds:
                continue
            arrays = draw_shard(assets, layout, seeds, views, size, supersample, variants, even)
            temporary = path.with_suffix(".tmp.npz")
            np.savez(temporary, **arrays)
            temporary.rename(path)
        yield path


class HeadSet:
    """All finished shards of a folder, in memory; `refresh` picks up new ones."""

    def __init__(self, folder: Path, keys: tuple[str, ...]) -> None:
        self.folder, self.keys = folder, _whole(keys)
        self.description: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
        self.layout = LabelLayout.from_json(self.description["layout"])
        self.heads: list[dict[str, NDArray[Any]]] = []
        self._seen: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        for path in finished(self.folder):
            if path.name in self._seen:
                continue
            arrays = _read(path, self.keys)
            self.heads += [{k: v[i] for k, v in arrays.items()} for i in range(len(arrays[self.keys[0]]))]
            self._seen.add(path.name)

    def __len__(self) -> int:
        return len(self.heads)

    @property
    def paired(self) -> bool:
        """Whether every head is followed by a variant of itself."""
        return bool(self.description.get("variants"))

    def all(self, key: str) -> Tensor:
        """One array of all heads, stacked."""
        return torch.from_numpy(np.stack([head[key] for head in self.heads]))

    def batch(self, r: np.random.Generator, size: int) -> dict[str, Tensor]:
        """Random heads, stacked; integers stay integers (u16 becomes i32).

        Of a set with variants every head comes with its variant behind it, so `size` must be even.
        """
        together = 2 if self.paired else 1
        count, wanted = len(self.heads) // together, size // together
        chosen = [
            together * i + k for i in r.choice(count, wanted, replace=count < wanted) for k in range(together)
        ]

        common = (key for key in self.keys if all(key in self.heads[i] for i in chosen))
        return {key: _tensor(np.stack([self.heads[i][key] for i in chosen])) for key in common}


class HeadShards:
    """All finished shards of a folder, on disk: for trainings that see more heads than memory holds."""

    def __init__(self, folder: Path, keys: tuple[str, ...]) -> None:
        self.folder, self.keys = folder, _whole(keys)
        self.description: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
        self.paths: list[Path] = []
        self.refresh()

    def refresh(self) -> None:
        self.paths = finished(self.folder)

    def batch(self, r: np.random.Generator, size: int) -> dict[str, Tensor]:
        """Heads of as few random shards as hold so many, stacked in random order, as those of a `HeadSet`."""
        read: list[dict[str, NDArray[Any]]] = []
        while sum(len(arrays[self.keys[0]]) for arrays in read) < size:
            read.append(_read(self.paths[r.integers(len(self.paths))], self.keys))
        common = [key for key in self.keys if all(key in arrays for arrays in read)]
        joined = {key: np.concatenate([arrays[key] for arrays in read]) for key in common}
        chosen = r.permutation(len(joined[common[0]]))[:size]
        return {key: _tensor(array[chosen]) for key, array in joined.items()}


def finished(folder: Path) -> list[Path]:
    """The shards of a folder that are written to their end."""
    return sorted(path for path in folder.glob("heads-*.npz") if not path.name.endswith(".tmp.npz"))


def _whole(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The keys with what is needed to understand them."""
    return (*keys, "depth_from") if "depth" in keys else keys


def _read(path: Path, keys: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    with np.load(path) as z:
        return {k: z[k] for k in keys if k in z or k not in _LATER}


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array.astype(np.int32) if array.dtype == np.uint16 else array)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw synthetic heads for training.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--heads", help="folder of the head data (default: GEOINV_HEADS)")
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--supersample", type=int, default=1)
    parser.add_argument(
        "--views", default="front,any,wide", help=f"a view of each head for each: {', '.join(VIEWS)}"
    )
    parser.add_argument(
        "--variants", action="store_true", help="draw every head twice, with one thing changed"
    )
    parser.add_argument("--even", action="store_true", help="spread expressions evenly, for an encoder")
    parser.add_argument("--keep-out", nargs="+", default=(), metavar="KIND=NAME", help=KEEP_OUT_HELP)
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("K", "N"))
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args(arguments)
    torch.set_num_threads(a.threads)
    views = views_named(a.views)
    out = parts_named(a.keep_out)
    part = tuple(a.part)
    for path in draw_all(
        a.folder, a.heads, a.start, a.count, a.size, a.supersample, views, part, a.variants, out, a.even
    ):
        print(path, flush=True)


if __name__ == "__main__":
    main()
