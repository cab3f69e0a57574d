"""The generator's own heads as training pictures: `python -m geoinv_core train samples`.

After E3DGE (arXiv 2212.07409, section 3.1), whose encoder never sees anything else: random codes drawn by
the generator come with their exact code, camera, depth and normals. Shards have the format of `dataset`, so
that the encoder can read both; labels are sampled as for drawn heads with even expressions, hence the code
of a sample is map(z, c).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoinv_core import weights
from geoinv_core.camera import rays
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.heads import HeadAssets, LabelLayout, build
from geoinv_core.heads.landmarks import ibug
from geoinv_core.train.dataset import DEPTH, HEADS, further, landmark_names, random_view
from geoinv_core.train.expressions import balanced

_STEP = 0.002  # world units between the points whose distances give a normal


def normals(generator: TriplaneGenerator, planes: Tensor, points: Tensor) -> Tensor:
    """Unit gradients of the signed distance at points [1, N, 3], by central differences."""
    offsets = torch.eye(3, device=points.device) * _STEP
    ahead, behind = (
        torch.stack([generator.query(planes, points + side * o)[0] for o in offsets], -1) for side in (1, -1)
    )
    return torch.nn.functional.normalize(ahead - behind, dim=-1)


def view(generator: TriplaneGenerator, planes: Tensor, camera: Tensor, size: int) -> dict[str, NDArray[Any]]:
    """One picture of one head, in the encodings of a shard (without the view axis)."""
    camera = camera.to(planes.device)
    out = generator.render(planes, camera[None], size)
    colour = (
        (out.features[0].permute(1, 2, 0) + 1) / 2
        if generator.config.signed
        else out.features[0].permute(1, 2, 0)
    )
    opacity, depth = out.opacity[0, 0], out.depth[0, 0]
    solid = opacity > 0.5
    origins, directions = rays(camera[None], size)
    points = origins + directions * depth.reshape(1, -1, 1)
    normal = normals(generator, planes, points).view(size, size, 3) * solid[..., None]
    code = torch.where(solid, (depth - further(camera) - DEPTH[0]) / DEPTH[1], torch.zeros_like(depth)).clamp(
        0, 65535
    )

    def bytes_of(x: Tensor) -> NDArray[np.uint8]:
        return np.asarray((x.clamp(0, 1) * 255).round().cpu().numpy(), np.uint8)

    return {
        "rgb": bytes_of(colour[..., :3]),
        "albedo": bytes_of(colour[..., 3:6] / opacity.clamp_min(1e-3)[..., None]),
        "mask": bytes_of(opacity),
        "segment": solid.cpu().numpy().astype(np.uint8),  # all of it skin, for want of better knowledge
        "normal": np.asarray((normal * 127).round().cpu().numpy(), np.int8),
        "depth": code.cpu().numpy().astype(np.uint16),
    }


def draw_samples(
    generator: TriplaneGenerator, assets: HeadAssets, folder: Path, start: int, count: int, size: int
) -> list[Path]:
    """Shards of generator samples; existing ones are skipped. Returns their files."""
    layout, names = LabelLayout.of(assets), landmark_names(assets)
    folder.mkdir(parents=True, exist_ok=True)
    description = {"layout": layout.to_json(), "landmarks": names, "views": ["photo"], "size": size}
    (folder / "dataset.json").write_text(json.dumps(description))
    paths = []
    for first in range(start, start + count, HEADS):
        path = folder / f"heads-{first:07d}.npz"
        paths.append(path)
        if path.exists():
            continue
        rows = []
        for seed in range(first, min(first + HEADS, start + count)):
            labels = balanced(assets, seed)
            geometry = build(assets, [labels])[0]
            camera = random_view(np.random.default_rng([20264, seed]), "photo")
            z, c = layout.encode(labels)
            with torch.inference_mode():
                device = generator.w_avg.device
                ws = generator.map(torch.from_numpy(z)[None].to(device), torch.from_numpy(c)[None].to(device))
                row = {k: v[None] for k, v in view(generator, generator.planes(ws), camera, size).items()}
            rows.append(
                row
                | {
                    "z": z,
                    "c": c,
                    "depth_from": further(camera[None]).numpy(),
                    "unit_mm": np.array(geometry.unit_mm, np.float32),
                    "camera": camera[None].numpy(),
                    "landmarks": torch.stack([geometry.landmarks[n] for n in names]).cpu().numpy(),
                    "ibug": ibug(assets, geometry).cpu().numpy(),
                }
            )
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, **{k: np.stack([row[k] for row in rows]) for k in rows[0]})
        temporary.rename(path)
        print(path, flush=True)
    return paths


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the generator's own heads for training the encoder.")
    parser.add_argument("generator", type=Path, help="model file")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--heads", help="folder of the head data (default: GEOINV_HEADS)")
    parser.add_argument("--start", type=int, default=500_000)
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--size", type=int, default=128)
    a = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    draw_samples(
        weights.load(a.generator, device), HeadAssets.open(a.heads), a.folder, a.start, a.count, a.size
    )


if __name__ == "__main__":
    main()
