"""Train what reads brows and lids, all the rest of an encoder frozen: `python -m geoinv_core train brows`.

Bands are cut out of drawn heads around their true eyes, disturbed as found ones are; they are kept and used
again, mirrored at random, while new ones come in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geoinv_core import camera as cameras
from geoinv_core.encoder.brows import SIDE, UNITS, Brows, band_of, cut_band
from geoinv_core.encoder.mirror import across
from geoinv_core.encoder.network import Encoder
from geoinv_core.encoder.store import load_encoder, save_encoder
from geoinv_core.heads.layout import LabelLayout
from geoinv_core.train.augment import backgrounds, occluders, photograph
from geoinv_core.train.dataset import HeadShards
from geoinv_core.train.encoder import likelihood
from geoinv_core.train.part import Pool, learn, run
from geoinv_core.train.run import Run, mixed

MAX_YAW = 60.0
_KEYS = ("c", "camera", "rgb", "mask", "ibug")
_SHIFT, _APART, _GROW = 0.02, 0.015, 0.03
"""Standard deviations of a found band: of its place, of either eye's, and of its size (logarithm); in
distances of the eyes."""


@dataclass(frozen=True)
class Settings:
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.998
    pool: int = 40_000
    """bands that are kept"""
    every: int = 3
    """steps between two batches of new bands"""
    log_every: int = 100


def entries(layout: LabelLayout) -> tuple[int, ...]:
    """The entries of c that are read."""
    return tuple(
        layout.names.index(name)
        for name in layout.expressions
        if name.removesuffix("Left").removesuffix("Right") in UNITS
    )


def mirror_of(layout: LabelLayout) -> list[int]:
    """For every entry that is read, the one that a mirrored face shows there."""
    there, read = across(layout), list(entries(layout))
    return [read.index(there[i]) for i in read]


def make_bands(batch: dict[str, Tensor], rng: torch.Generator) -> Tensor:
    """One photo-like band [B, 3, SIDE, SIDE] in -1..1 of every head, from a view that shows its face."""
    B, V = batch["mask"].shape[:2]
    turned = torch.atan2(batch["camera"][..., 3], batch["camera"][..., 11])
    view = (torch.rand(B, V, generator=rng) + (turned.abs() < math.radians(MAX_YAW))).argmax(1)
    rows = torch.arange(B)
    landmarks, _ = cameras.project(batch["camera"][rows, view], batch["ibug"])
    eyes = (landmarks[:, 42:48].mean(1) - landmarks[:, 36:42].mean(1)).norm(dim=1)[:, None, None]
    found = landmarks + eyes * _SHIFT * torch.randn(B, 1, 2, generator=rng)
    for eye in (slice(36, 42), slice(42, 48)):
        found[:, eye] += eyes * _APART * torch.randn(B, 1, 2, generator=rng)
    band = band_of(found)
    band[:, :, :2] *= torch.exp(_GROW * torch.randn(B, 1, 1, generator=rng))
    rgb = batch["rgb"][rows, view].permute(0, 3, 1, 2).float() / 255
    mask = batch["mask"][rows, view][:, None].float() / 255
    image, cover = cut_band(torch.cat([rgb, mask], 1), band).split([3, 1], 1)
    image = image * cover + backgrounds(B, SIDE, rng, image) * (1 - cover)
    image, _ = occluders(image, rng, 0.15, 0.02)
    return photograph(image, rng) * 2 - 1


def mirrored(image: Tensor, labels: Tensor, mirror: list[int], rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Bands and labels, half of them mirrored."""
    flip = torch.rand(len(image), generator=rng) < 0.5
    image[flip], labels[flip] = image[flip].flip(3), labels[flip][:, mirror]
    return image, labels


def train(
    data: Path,
    folder: Path,
    encoder: Path,
    minutes: float,
    settings: Settings = Settings(),
    threads: int = 1,
    seed: int = 5,
    session: float = math.inf,
) -> Path:
    """Train until the budget is spent; returns an encoder file that reads brows.

    Args: data: drawn heads, best with expressions spread evenly. encoder: an encoder file; where it reads
        brows already, that is gone on with.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    heads = HeadShards(data, _KEYS)
    known, layout, meta = load_encoder(encoder, device)
    units, mirror = entries(layout), mirror_of(layout)
    brows = Brows(len(units)).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if known.brows is not None:
        brows.load_state_dict(known.brows.state_dict())
    whole = Encoder(replace(known.config, brows=units)).requires_grad_(False)
    whole.load_state_dict(known.state_dict(), strict=False)
    progress = Run(folder, minutes, session=session)
    pool, path = Pool(settings.pool, SIDE, (len(units),)), folder / "encoder.safetensors"

    def fill(step: int, rng: torch.Generator) -> None:
        batch = heads.batch(np.random.default_rng([seed, step]), settings.batch)
        pool.put(make_bands(batch, rng), batch["c"][:, list(units)])

    def terms(rng: torch.Generator) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        image, labels = pool.take(settings.batch, rng)
        image, labels = (x.to(device) for x in mirrored(image, labels, mirror, rng))
        with mixed(device):
            value, log_spread = brows(image.contiguous(memory_format=torch.channels_last))
        apart = value - labels
        return {"units": apart.square().mean(), "spread": 0.05 * likelihood(apart, log_spread.exp())}, {}

    def keep(state: dict[str, Tensor]) -> None:
        assert whole.brows is not None
        whole.brows.load_state_dict(state)
        save_encoder(whole, layout, path, meta | {"brow_steps": progress.step})

    learn(brows, progress, settings, 2e-2, heads, pool, seed, fill, terms, keep)
    return path


def main(arguments: list[str] | None = None) -> None:
    run("Train what reads an encoder's brows and lids.", train, Settings(), 5, arguments)


if __name__ == "__main__":
    main()
