"""Synthetic heads drawn as for training: python build.py bench heads

Every head is built once and drawn from three sides, as the data of the training are. Figures are processor
time per picture, which a busy machine changes less than the clock; pictures per second are those of one core.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from geoinv_core.heads import HeadAssets, Layers, build, picture, sample
from geoinv_core.train.dataset import random_view

VIEWS = ("front", "any", "wide")


def draw(assets: HeadAssets, seed: int, size: int, supersample: int) -> tuple[float, float]:
    """Seconds for one head's geometry, and for its pictures."""
    r = np.random.default_rng(seed)
    cameras = [random_view(r, kind) for kind in VIEWS]
    start = time.process_time()
    layers = Layers(assets, build(assets, [sample(assets, seed)])[0])
    built = time.process_time()
    for camera in cameras:
        picture(assets, layers, camera, size, supersample)
    return built - start, time.process_time() - built


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--count", type=int, default=20, help="heads")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--supersample", type=int, default=2)
    parser.add_argument("--heads", help="folder of the head data (default: GEOINV_HEADS)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    assets = HeadAssets.open(options.heads)
    with torch.no_grad():
        draw(assets, 0, options.size, options.supersample)  # compiles what is compiled at first use
        times = [draw(assets, seed, options.size, options.supersample) for seed in range(options.count)]
    whole = [(b + p) / len(VIEWS) for b, p in times]
    found = {
        "size": options.size,
        "samples": options.supersample**2,
        "heads": options.count,
        "geometry.ms_per_head": 1000 * statistics.median(b for b, _ in times),
        "drawing.ms_per_picture": 1000 * statistics.median(p for _, p in times) / len(VIEWS),
        "pictures_per_second": {"slowest": 1 / max(whole), "mean": 1 / statistics.mean(whole)},
    }
    print(json.dumps(found, indent=None if options.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
