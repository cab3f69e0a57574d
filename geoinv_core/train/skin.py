"""Learn where the skin of labelled heads lies: `python -m geoinv_core.train.skin [--heads FOLDER]`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from geoinv_core.heads.assets import HeadAssets
from geoinv_core.heads.labels import HeadLabels
from geoinv_core.heads.landmarks import IBUG
from geoinv_core.heads.layout import LabelLayout
from geoinv_core.heads.skin import DATA, feature_names, features
from geoinv_core.mesh.anchors import centre, positions, solve, varied

POINTS, HEADS = 400, 4000
_LOWEST = -0.3
"""World height of the lowest points: below the neck is nobody's face."""
_BATCH = 50

Float64 = NDArray[np.float64]


def spread_out(points: Float64, count: int) -> NDArray[np.int64]:
    """Indices [count] of points [N, 3] that lie as far from each other as can be, one after another."""
    chosen = [int(np.argmax(points[:, 2]))]
    distance = np.full(len(points), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
        chosen.append(int(np.argmax(distance)))
    return np.array(chosen)


def learn(
    assets: HeadAssets, heads: int, count: int = POINTS
) -> tuple[dict[str, NDArray[np.generic]], float]:
    """What `skin.npz` holds, and the mean error on a tenth of the heads, left out for it, in world units."""
    layout = LabelLayout.of(assets)
    mean = positions(assets, [HeadLabels(features=centre(assets))])[0]
    skin = np.unique(assets.skin_triangles.cpu().numpy())
    skin = skin[mean[skin, 1] > _LOWEST]
    marks = np.searchsorted(assets.arrays["base_id"], IBUG)
    chosen = np.concatenate([skin[spread_out(mean[skin], count)], marks])
    rows, targets = [], []
    for start in range(0, heads, _BATCH):
        labels = [varied(assets, seed) for seed in range(start, min(start + _BATCH, heads))]
        z, c = (np.stack(part) for part in zip(*map(layout.encode, labels), strict=True))
        rows.append(features(layout, torch.from_numpy(z), torch.from_numpy(c)).double().numpy())
        targets.append((positions(assets, labels)[:, chosen] - mean[chosen]).reshape(len(labels), -1))
    x, y = np.concatenate(rows), np.concatenate(targets)
    train = np.arange(len(x)) % 10 != 0
    error = (x[~train] @ solve(x[train], y[train]) - y[~train]).reshape(-1, len(chosen), 3)
    found: dict[str, NDArray[np.generic]] = {
        "features": np.array(" ".join(feature_names(layout))),
        "rest": mean[chosen].astype(np.float32),
        "weights": solve(x, y).astype(np.float16),
    }
    return found, float(np.linalg.norm(error, axis=2).mean())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Learn where the skin of labelled heads lies.")
    parser.add_argument("--heads", help="folder of the head data (default: GEOINV_HEADS)")
    parser.add_argument("--count", type=int, default=HEADS, help="heads to learn from")
    parser.add_argument("--out", type=Path, default=DATA)
    given = parser.parse_args(arguments)
    found, error = learn(HeadAssets.open(given.heads), given.count)
    np.savez_compressed(given.out, **found)
    print(f"{given.out}: mean error on heads that were not used: {error:.5f} world units")


if __name__ == "__main__":
    main()
