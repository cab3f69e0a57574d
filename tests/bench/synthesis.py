"""FFHQ-shaped synthesis, native renderer against plain PyTorch: python build.py bench synthesis --json

A random network of EG3D's released size (planes of 256, neural 128, 48 + 48 samples, super-resolution to
512); wall time (or processor time), both sides in turn in one run. Plain PyTorch is the renderer as one would
write it with grid_sample, the whole picture at a time, as the original does; `chunked` is our own PyTorch
backend. Ratios are PyTorch's time over ours, for whole pictures from styles (backbone, rendering,
super-resolution), for a next view with the planes at hand, and for the rendering alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, softplus

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from geoinv_core.camera import orbit, rays
from geoinv_core.generator import EG3D_AXES, GeneratorConfig, Picture, TriplaneGenerator, channel_table
from geoinv_core.render import Field, build
from geoinv_core.render.job import forget_planes


def ffhq() -> TriplaneGenerator:
    torch.manual_seed(0)
    config = GeneratorConfig(
        name="ffhq-shaped", channels=channel_table(256, 32768, 512), axes=EG3D_AXES, superresolution="8XDC",
        neural_resolution=128, image_resolution=512, sr_conv_clamp=256.0, camera_target=(0.0, 0.0, 0.2),
    )  # fmt: skip
    return TriplaneGenerator(config).eval().requires_grad_(False)


def plain_look(field: Field, points: Tensor) -> tuple[Tensor, Tensor]:
    """Raw density [N] and features [N, F] at [N, 3], without any chunk."""
    projected = torch.einsum("nk,pkj->pnj", points, field.plane_maps())[..., :2]
    found = grid_sample(field.planes[0], projected[:, None], padding_mode="zeros", align_corners=False)
    out = softplus(found[:, :, 0].mean(0).T @ field.w1.T + field.b1) @ field.w2.T + field.b2
    return out[:, 0], torch.sigmoid(out[:, 1:]) * 1.002 - 0.001


def weights_of(density: Tensor, depths: Tensor) -> Tensor:
    """Compositing weights [R, n - 1] of midpoints."""
    step = depths[:, 1:] - depths[:, :-1]
    alpha = 1 - torch.exp(-softplus((density[:, 1:] + density[:, :-1]) / 2 - 1) * step)
    through = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha + 1e-10], 1), 1)
    return alpha * through[:, :-1]


def plain_render(field: Field, camera: Tensor, side: int, near: float, far: float, samples: int) -> Tensor:
    """Features [1, F, side, side], two passes, every sample in full."""
    origins, directions = (t[0] for t in rays(camera, side))
    n = samples
    depths = (torch.linspace(near, far, n) + (far - near) / (n - 1) / 2).expand(len(origins), n)

    def look(at: Tensor) -> tuple[Tensor, Tensor]:
        points = origins[:, None] + directions[:, None] * at[..., None]
        density, features = plain_look(field, points.reshape(-1, 3))
        return density.view(at.shape), features.view(*at.shape, -1)

    density, features = look(depths)
    weight = weights_of(density, depths)
    weight = torch.nn.functional.max_pool1d(weight[:, None], 2, 1, 1)
    weight = torch.nn.functional.avg_pool1d(weight, 2, 1)[:, 0] + 0.01
    middle = (depths[:, 1:] + depths[:, :-1]) / 2
    pdf = weight[:, 1:-1] + 1e-5
    cdf = torch.cumsum(pdf / pdf.sum(1, keepdim=True), 1)
    cdf = torch.cat([torch.zeros_like(cdf[:, :1]), cdf], 1)
    u = ((torch.arange(n) + 0.5) / n).expand(len(cdf), n).contiguous()
    index = torch.searchsorted(cdf, u, right=True)
    below, above = (index - 1).clamp_min(0), index.clamp_max(cdf.shape[1] - 1)
    low, high = cdf.gather(1, below), cdf.gather(1, above)
    share = (u - low) / torch.where(high - low < 1e-5, 1.0, high - low)
    fine = middle.gather(1, below) + share * (middle.gather(1, above) - middle.gather(1, below))
    more_density, more_features = look(fine)
    depths, order = torch.cat([depths, fine], 1).sort(1)
    density = torch.cat([density, more_density], 1).gather(1, order)
    features = torch.cat([features, more_features], 1).gather(
        1, order[..., None].expand(-1, -1, features.shape[-1])
    )
    weight = weights_of(density, depths)
    total = (weight[..., None] * (features[:, 1:] + features[:, :-1]) / 2).sum(1) * 2 - 1
    return total.T.reshape(1, -1, side, side)


def plain_picture(generator: TriplaneGenerator, ws: Tensor, camera: Tensor, planes: Tensor | None) -> Tensor:
    k = generator.config
    planes = generator.planes(ws) if planes is None else planes
    features = plain_render(generator.field(planes), camera, k.neural_resolution, 2.25, 3.3, k.samples[0])
    return generator.superresolution(features[:, :3], features, ws, "none")[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="for busy machines; with --threads 1")
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    build.build()
    torch.set_num_threads(options.threads)
    generator = ffhq()
    camera = orbit(10, 5, target=generator.config.camera_target)[None]
    results: dict[str, Any] = {"threads": options.threads}
    with torch.inference_mode():
        ws = generator.map(torch.randn(1, 512), camera)
        planes = generator.planes(ws)
        apart = (
            plain_picture(generator, ws, camera, planes)
            - generator.synthesize(ws, camera, planes=planes).image
        )
        results["largest_difference"] = float(apart.abs().max())

        def native(cached: Tensor | None) -> Picture:
            forget_planes()
            return generator.synthesize(ws, camera, planes=cached)

        works: dict[str, Callable[[], Any]] = {
            "ours": lambda: native(None),
            "plain": lambda: plain_picture(generator, ws, camera, None),
            "chunked": lambda: generator.synthesize(ws, camera, backend="torch"),
            "ours_next_view": lambda: generator.synthesize(ws, camera, planes=planes),
            "plain_next_view": lambda: plain_picture(generator, ws, camera, planes),
            "ours_render_only": lambda: generator.render(planes, camera, 128),
            "plain_render_only": lambda: plain_render(generator.field(planes), camera, 128, 2.25, 3.3, 48),
        }
        took: dict[str, list[float]] = {name: [] for name in works}
        for work in works.values():
            work()
        for number in range(options.pairs):
            for name, work in list(works.items())[:: 1 if number % 2 else -1]:
                start = clock()
                work()
                took[name].append(clock() - start)
        results["seconds"] = {name: round(statistics.median(times), 3) for name, times in took.items()}
        for ratio, (theirs, mine) in {
            "picture_ratio": ("plain", "ours"),
            "picture_ratio_to_chunked": ("chunked", "ours"),
            "next_view_ratio": ("plain_next_view", "ours_next_view"),
            "render_ratio": ("plain_render_only", "ours_render_only"),
        }.items():
            pairs = [a / b for a, b in zip(took[theirs], took[mine], strict=True)]
            results[ratio] = {"min": min(pairs), "median": statistics.median(pairs), "max": max(pairs)}
        made = mock.Mock(wraps=generator.planes)
        with mock.patch.object(generator, "planes", made):
            for yaw in (0, 10, 20):
                generator.synthesize(ws, orbit(yaw)[None], planes=planes)
        results["planes_made_for_three_more_views"] = made.call_count
    print(json.dumps(results, indent=None if options.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
