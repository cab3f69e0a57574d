"""Training steps on the native renderer and on PyTorch's, in turn: python build.py bench training

Both sides train the default model on the same batches, drawn beforehand from the head data (GEOINV_HEADS).
"before" is PyTorch's renderer, "after" is whichever native one runs here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from geoinv_core.generator import TriplaneGenerator
from geoinv_core.heads import HeadAssets
from geoinv_core.render import build, dispatch
from geoinv_core.train.dataset import HeadSet, draw_all
from geoinv_core.train.generator import KEYS, Settings, default_config, parameter_groups, take_step
from geoinv_core.train.supervision import Points, points_from_pictures


class Trainee:
    """A model and its optimiser, from the same start every time."""

    def __init__(self, heads: HeadSet, settings: Settings, device: str) -> None:
        torch.manual_seed(0)
        self.settings = settings
        self.generator = TriplaneGenerator(default_config(heads.layout)).to(device)
        groups = parameter_groups(self.generator)
        self.optimiser = torch.optim.Adam(groups, lr=1e-3, betas=(0.9, 0.98))

    def step(self, codes: tuple[torch.Tensor, torch.Tensor], points: Points) -> float:
        """Returns the loss."""
        _, terms = take_step(self.generator, self.optimiser, codes, points, self.settings)
        return float(torch.stack(list(terms.values())).sum().detach())


def summary(values: list[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def measure(folder: Path, steps: int, device: str) -> dict[str, object]:
    heads = HeadSet(folder, KEYS)
    settings = Settings()
    before = Trainee(heads, replace(settings, backend="torch"), device)
    after = Trainee(heads, settings, device)
    native = dispatch.resolve("auto", after.generator.field(torch.zeros(1, 3, 32, 4, 4, device=device)))
    # A CUDA step ends on the GPU; on a CPU the time of the process is what a busy machine leaves alone.
    clock = time.perf_counter if device == "cuda" else time.process_time
    seconds: dict[str, list[float]] = {"before": [], "after": []}
    losses: dict[str, float] = {}
    for k in range(steps + 2):
        batch = heads.batch(np.random.default_rng(k), settings.batch)
        sampler = torch.Generator().manual_seed(k)
        sizes = (settings.surface, settings.near, settings.free, settings.core)
        points = points_from_pictures(batch, *sizes, sampler)
        points = points.to(device)
        codes = batch["z"].to(device), batch["c"].to(device)
        sides = {"before": before, "after": after}
        for name in sorted(sides, reverse=k % 2 == 0):
            start = clock()
            losses[name] = sides[name].step(codes, points)
            if k >= 2:
                seconds[name].append(clock() - start)
    ratios = [b / a for b, a in zip(seconds["before"], seconds["after"], strict=True)]
    return {
        "device": device,
        "backend": native,
        "threads": torch.get_num_threads(),
        "steps": steps,
        "before.steps_per_second": summary([1 / s for s in seconds["before"]]),
        "after.steps_per_second": summary([1 / s for s in seconds["after"]]),
        "ratio": summary(ratios),
        "last_loss": losses,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--heads", help="folder of the head data (default: GEOINV_HEADS)")
    parser.add_argument("--data", type=Path, help="drawn heads (default: 16 are drawn now)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    build.build()
    with tempfile.TemporaryDirectory() as made:
        folder = options.data or Path(made)
        if options.data is None:
            assets = HeadAssets.open(options.heads)
            list(draw_all(folder, str(assets.folder), 0, 16, 96, 1, ("front", "any", "wide")))
        found = measure(folder, options.steps, "cuda" if torch.cuda.is_available() else "cpu")
    print(json.dumps(found, indent=None if options.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
