"""What trainings of one part of an encoder share, all the rest of it frozen: pictures that are kept and used
again, because making one costs more than learning from it, and the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Pool:
    """Square pictures with tensors that belong to them; the oldest give way."""

    def __init__(self, size: int, side: int, *shapes: tuple[int, ...]) -> None:
        """size: how many. side: of the pictures, pixels. shapes: of what belongs to one."""
        self.images = torch.zeros(size, 3, side, side, dtype=torch.uint8)
        self.others = [torch.zeros(size, *shape) for shape in shapes]
        self.made = 0

    def put(self, image: Tensor, *others: Tensor) -> None:
        """image: [B, 3, S, S] in -1..1; others: [B, ...] each."""
        at = (self.made + torch.arange(len(image))) % len(self.images)
        self.images[at] = ((image + 1) * 127.5).round().byte()
        for kept, new in zip(self.others, others, strict=True):
            kept[at] = new
        self.made += len(image)

    def take(self, count: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Random ones: images, and what belongs to them."""
        at = torch.randint(min(self.made, len(self.images)), (count,), generator=rng)
        return self.images[at].float() / 127.5 - 1, *(kept[at] for kept in self.others)


def run(
    what: str, train: Callable[..., Path], settings: Any, seed: int, arguments: list[str] | None = None
) -> None:
    """Parse the options of such a training and start it.

    Args: what: for the help. train: (data, folder, encoder, minutes, settings, threads, seed) to the trained
        encoder. settings: a dataclass with a rate and a pool. seed: if none is given.
    """
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("data", type=Path, help="folder of drawn heads (geoinv_core.train.dataset)")
    parser.add_argument("folder", type=Path, help="where checkpoints, log and weights go")
    parser.add_argument("--encoder", type=Path, required=True, help="the trained encoder")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=settings.rate)
    parser.add_argument("--pool", type=int, default=settings.pool, help="pictures that are kept in memory")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--seed", type=int, default=seed, help="another one makes other pictures of the heads"
    )
    a = parser.parse_args(arguments)
    chosen = replace(settings, rate=a.rate, pool=a.pool)
    print(train(a.data, a.folder, a.encoder, a.minutes, chosen, a.threads, a.seed))
