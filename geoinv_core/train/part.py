"""What trainings of one part of an encoder share, all the rest of it frozen: pictures that are kept and used
again, because making one costs more than learning from it, the loop that learns, and the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from geoinv_core.train.dataset import HeadShards
from geoinv_core.train.run import Averages, Ema, Run


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


class Settings(Protocol):
    """What every such training lets one choose."""

    @property
    def rate(self) -> float: ...
    @property
    def decay(self) -> float: ...
    @property
    def every(self) -> int: ...
    @property
    def log_every(self) -> int: ...


def learn(
    part: nn.Module,
    progress: Run,
    settings: Settings,
    weight_decay: float,
    heads: HeadShards,
    pool: Pool,
    seed: int,
    fill: Callable[[int, torch.Generator], None],
    terms: Callable[[torch.Generator], tuple[dict[str, Tensor], dict[str, Tensor]]],
    keep: Callable[[dict[str, Tensor]], None],
) -> None:
    """Train one part of an encoder until the budget is spent, going on from the run's last checkpoint.

    Args:
        progress: the run. settings: its rate, the decay of the mean of its weights, after how many steps
            pictures are made, and after how many something is logged.
        heads: drawn ones, to which others may come while it runs. pool: the pictures made of them.
        seed: of all that is random. fill: puts pictures into the pool, for a step.
        terms: losses, whose sum is learned from, and what is only logged.
        keep: writes the encoder with the mean of the part's weights.
    """
    optimiser = torch.optim.AdamW(part.parameters(), lr=settings.rate, weight_decay=weight_decay)
    ema, averages = Ema(part, settings.decay), Averages()
    if state := progress.resume():
        part.load_state_dict(state["part"])
        optimiser.load_state_dict(state["optimiser"])
        ema.state = {k: v.to(ema.state[k].device) for k, v in state["ema"].items()}

    def save() -> None:
        progress.save(part=part.state_dict(), optimiser=optimiser.state_dict(), ema=ema.state)
        keep(ema.state)

    for step in progress.steps():
        rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
        if step % settings.every == 0 or not pool.made:
            fill(step, rng)
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * progress.schedule()
        losses, others = terms(rng)
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(part.parameters(), 2.0)
        optimiser.step()
        ema.update(part, step)
        averages.add(losses | others)
        if (step + 1) % settings.log_every == 0:
            progress.log(pictures=pool.made, **averages.take())
            heads.refresh()
        if progress.due():
            save()
    save()


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
