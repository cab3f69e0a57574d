"""What every training shares: a time budget, a cosine schedule over it, an EMA, checkpoints, a log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geoinv_core.train.team import Team


@dataclass
class Run:
    """A training run in a folder: `checkpoint.pt` (everything needed to go on), `log.jsonl`, and `run.json`
    (how far it is).

    The budget counts the seconds of all sessions together, so that a stopped run ends where it would have.
    """

    folder: Path
    minutes: float
    save_every: float = 180.0
    """seconds"""
    session: float = math.inf
    """minutes after which this session stops, wherever it is; another one goes on from its checkpoint"""
    team: Team = field(default_factory=lambda: Team(0, 1, torch.device("cpu")))
    step: int = 0
    elapsed: float = 0.0
    """seconds of all sessions"""
    _mark: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._end = time.monotonic() + 60 * self.session

    @property
    def fraction(self) -> float:
        """Share of the budget that is spent, 0..1."""
        return min(1.0, self.elapsed / (60 * self.minutes))

    def schedule(self, warmup: float = 0.02, floor: float = 0.02) -> float:
        """Learning rate factor: a linear start, then a cosine down to `floor`."""
        t = self.fraction
        if t < warmup:
            return max(t, 1e-3) / warmup
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (t - warmup) / (1 - warmup)))

    def steps(self) -> Iterator[int]:
        """Count steps until the budget is spent, or the session is over."""
        self._mark = time.monotonic()
        while self.fraction < 1 and self.team.agree(self._mark < self._end):
            yield self.step
            self.step += 1
            now = time.monotonic()
            self.elapsed = self.team.agree(self.elapsed + now - self._mark)
            self._mark = now

    def due(self) -> bool:
        """Is it time for a checkpoint? (Also at the very end; one process of a team writes them.)"""
        if not self.team.leads:
            return False
        if time.monotonic() - self._saved < self.save_every and self.fraction < 1:
            return False
        self._saved = time.monotonic()
        return True

    def save(self, **state: Any) -> None:
        """Write the checkpoint to a temporary name first, so that a stop never leaves half of one."""
        path = self.folder / "checkpoint.pt"
        temporary = path.with_suffix(".tmp")
        torch.save({"step": self.step, "elapsed": self.elapsed, **state}, temporary)
        temporary.replace(path)
        spent = {"step": self.step, "elapsed": self.elapsed, "minutes": self.minutes}
        (self.folder / "run.json").write_text(json.dumps(spent))

    def resume(self) -> dict[str, Any] | None:
        """The last checkpoint's state, or None for a fresh run."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return None
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        self.step, self.elapsed = state.pop("step"), state.pop("elapsed")
        return state

    def log(self, **values: float | str) -> None:
        """One JSON line in the log and on the terminal."""
        if not self.team.leads:
            return
        row = {"step": self.step, "minutes": round(self.elapsed / 60, 2), **values}
        line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()})
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)


def mixed(device: str | torch.device, wanted: bool = True) -> torch.autocast:
    """bfloat16 for matrices where that is wanted and quick: on a CPU without AVX-512 PyTorch multiplies it
    number by number, and a step takes ten times as long."""
    kind = torch.device(device).type
    quick = kind != "cpu" or torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return torch.autocast(kind, torch.bfloat16, enabled=wanted and quick)


class Averages:
    """Means of named numbers since the last look."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, terms: Mapping[str, Tensor]) -> None:
        for name, term in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(term.detach())
        self._count += 1

    def take(self) -> dict[str, float]:
        """The means; the next ones start afresh."""
        means = {name: total / self._count for name, total in self._sums.items()}
        self._sums.clear()
        self._count = 0
        return means


class Ema:
    """An exponential moving average of a module's parameters; buffers are copied."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state: dict[str, Tensor] = {k: v.detach().clone() for k, v in module.state_dict().items()}
        self._learnt = {name for name, _ in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))  # short memory while everything still moves fast
        for name, value in module.state_dict().items():
            if name in self._learnt:
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)
