"""Train the bundled generator on drawn heads: `python -m geoinv_core train generator`.

Supervision is exact and pointwise (see `supervision`); the weights that count are the moving average's.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geoinv_core import render as rendering
from geoinv_core.generator import GeneratorConfig, TriplaneGenerator
from geoinv_core.heads.layout import LabelLayout
from geoinv_core.train.dataset import HeadSet
from geoinv_core.train.enlarge import enlarge
from geoinv_core.train.run import Averages, Ema, Run, mixed
from geoinv_core.train.supervision import TRUNCATION, Pixels, Points, points_from_pictures, random_pixels
from geoinv_core.train.team import Team

STEP = 0.002  # world units between the points whose distances give a slope
KEYS = ("z", "c", "camera", "rgb", "albedo", "mask", "segment", "depth", "normal")


@dataclass(frozen=True)
class Settings:
    """Everything that shapes a run."""

    batch: int = 8
    rate: float = 2e-3
    surface: int = 2048
    near: int = 1024
    free: int = 1024
    core: int = 128
    eikonal: int = 256
    """points off the surface where the distance should grow by as much as one walks"""
    rays: int = 1024
    """pixels per head that are drawn as the renderer draws them, beside the points; 0 for none"""
    decay: float = 0.999
    bfloat16: bool = True
    backend: str = "auto"
    """of the renderer, see geoinv_core.render.render"""
    log_every: int = 50
    """steps between two lines of the log"""


def default_config(layout: LabelLayout) -> GeneratorConfig:
    """The bundled model: signed distance, lit colour and albedo, whole heads."""
    return GeneratorConfig(
        name="default",
        z_dim=layout.z_dim,
        c_dim=len(layout.names),
        w_dim=256,
        mapping_layers=3,
        mapping_lr_mult=1.0,
        mapping_linear=True,
        normalize_z=False,
        normalize_c=False,
        channels=((4, 256), (8, 256), (16, 256), (32, 160), (64, 80), (128, 40)),
        plane_channels=32,
        plane_depth=2,
        noise=False,
        anchored=True,
        flow_rank=96,
        decoder_hidden=64,
        features=6,
        density="sdf",
        beta=0.004,
        distance_scale=0.1,
        distance_radius=0.35,
        samples=(48, 48),
        neural_resolution=128,
        image_resolution=128,
    )


def tiny_config(layout: LabelLayout) -> GeneratorConfig:
    """A model that trains in seconds, for tests."""
    return GeneratorConfig(
        name="tiny",
        z_dim=layout.z_dim,
        c_dim=len(layout.names),
        w_dim=32,
        mapping_layers=2,
        mapping_lr_mult=1.0,
        mapping_linear=True,
        normalize_z=False,
        normalize_c=False,
        channels=((4, 16), (8, 16), (16, 16)),
        plane_channels=8,
        plane_depth=2,
        noise=False,
        anchored=True,
        flow_rank=4,
        decoder_hidden=16,
        features=6,
        density="sdf",
        beta=0.01,
        distance_scale=0.1,
        distance_radius=0.35,
        samples=(16, 16),
        neural_resolution=32,
        image_resolution=32,
    )


def face_weight(points: Tensor) -> Tensor:
    """How much a surface point counts: [B, N], more around eyes and mouth, where expressions and likeness
    are.

    Heads are aligned, so a box in world units finds that part of every face.
    """
    x, y, z = points.unbind(-1)
    return 1 + 5 * ((x.abs() < 0.12) & (y > -0.2) & (y < 0.1) & (z > 0.1)).float()


def slopes(generator: TriplaneGenerator, planes: Tensor, points: Tensor) -> Tensor:
    """Gradients of the distance (or of minus the density) at points [B, N, 3], by forward differences.

    Differences and not autograd: a gradient of a gradient would need the renderer's second derivative.
    """
    offsets = torch.eye(3, device=points.device) * STEP
    probes = torch.cat([points, *(points + o for o in offsets)], 1)
    here, *ahead = generator.query(planes, probes)[0].chunk(4, 1)
    sign = 1.0 if generator.config.density == "sdf" else -1.0
    return torch.stack([(a - here) * sign for a in ahead], -1) / STEP


def eikonal(generator: TriplaneGenerator, planes: Tensor, points: Tensor) -> Tensor:
    """Mean square of |grad d| - 1 at points [B, N, 3]: distances have slope one (arXiv 2002.10099, eq. 2).

    E3DGE asks it of its generator, too (arXiv 2212.07409, section 3.1).
    """
    off: Tensor = slopes(generator, planes, points).norm(dim=-1) - 1
    return off.square().mean()


def losses(
    generator: TriplaneGenerator, planes: Tensor, p: Points, backend: str = "auto", even: int = 0
) -> dict[str, Tensor]:
    """The weighted terms of the loss at supervised points.

    even: how many of those off the surface have their slope looked at as well, see `eikonal`.
    """
    sizes = [p.surface.shape[1], p.near.shape[1], p.free.shape[1], p.core.shape[1]]
    points = torch.cat([p.surface, p.near, p.free, p.core], 1)
    distance, features = generator.query(planes, points, backend)
    on, near, free, core = distance.split(sizes, 1)
    colour = features[:, : sizes[0]]
    weight = face_weight(p.surface)
    colour_weight = weight[..., None]
    terms = {
        "colour": ((colour[..., :3] - p.colour[..., :3]).abs() * colour_weight).mean(),
        "albedo": 0.5 * ((colour[..., 3:6] - p.colour[..., 3:]).abs() * colour_weight).mean(),
        "surface": 16.0 * ((on - p.distance).abs() * weight).mean(),
        "near": 8.0 * (near.clamp(-TRUNCATION, TRUNCATION) - p.near_distance).abs().mean(),
        "free": 16.0 * (p.margin - free).clamp_min(0).mean(),
        "core": 4.0 * (core + 0.05).clamp_min(0).mean(),
        **twin_losses(p, on, colour),
    }
    if even:
        terms["eikonal"] = 0.05 * eikonal(generator, planes, p.near[:, :even])
    return terms


def twin_losses(p: Points, distance: Tensor, colour: Tensor) -> dict[str, Tensor]:
    """What changes between variants of a head, at the same pixels: that alone, and all of it.

    An error that both share costs nothing here, so where nothing changes nothing may, however blurred it is.
    distance [B, S], colour [B, S, 6]: the field's at the surface points.
    """
    if not p.twins:
        return {}

    def change(x: Tensor) -> Tensor:
        return x[1::2, : p.twins] - x[0::2, : p.twins]

    shade = (change(colour) - change(p.colour)).abs()
    # a moved surface has no one pixel in common; the distance there says as much as it can
    moved = (change(distance) - change(p.distance)).abs()
    return {"twin colour": 1.5 * shade.mean(), "twin distance": 8.0 * moved.mean()}


RAY_SPAN = (2.2, 3.2)
"""Heads lie between these distances from nearly every orbit camera, but for corners of the bust: tighter than
EG3D's, so samples are not wasted."""


def pixel_losses(generator: TriplaneGenerator, planes: Tensor, p: Pixels, backend: str) -> dict[str, Tensor]:
    """What is drawn against what should be: colours, outline and depth as a picture's user sees them.

    Points teach where the surface is; only rays teach how sharply it should appear.
    """
    drawn = rendering.render(
        generator.field(planes), p.origins, p.directions, *RAY_SPAN, (24, 24), "random", "importance", backend
    )
    # a signed picture is -1 where nothing is drawn, so halves add up to black
    colour = (drawn.features + 1) / 2
    far = ((drawn.depth - p.depth).abs() * (p.depth > 0)).clamp(max=0.1)
    return {
        "pixel colour": 3.0 * (colour[..., :3] - p.colour[..., :3]).abs().mean(),
        "pixel albedo": (colour[..., 3:6] - p.colour[..., 3:]).abs().mean(),
        "pixel mask": 2.0 * (drawn.opacity - p.mask).abs().mean(),
        "pixel depth": 4.0 * far.mean(),
    }


def parameter_groups(generator: TriplaneGenerator) -> list[dict[str, Any]]:
    """Rates by kind: weights start with unit variance and hardly move at the rate that suits biases and maps;
    displacements are fractions of the box, and what `flows` fitted is nearly right."""

    def share(name: str) -> float:
        return 0.05 if name.endswith("flow.fields") else 2.5 if name.endswith(".weight") else 1.0

    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in generator.named_parameters():
        groups.setdefault(share(name), []).append(parameter)
    return [{"params": parameters, "share": share} for share, parameters in groups.items()]


def take_step(
    generator: TriplaneGenerator,
    optimiser: torch.optim.Optimizer,
    codes: tuple[Tensor, Tensor],
    points: Points,
    settings: Settings,
    pixels: Pixels | None = None,
    team: Team | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One step of the optimiser on a batch with z and c `codes`. Returns its styles and loss terms."""
    with mixed(codes[0].device, settings.bfloat16):
        ws = generator.map(*codes)
        planes = generator.planes(ws)
    planes = planes.float()
    terms = losses(generator, planes, points, settings.backend, settings.eikonal)
    if pixels is not None:
        terms |= pixel_losses(generator, planes, pixels, settings.backend)
    optimiser.zero_grad(set_to_none=True)
    torch.stack(list(terms.values())).sum().backward()
    if team is not None:
        team.average(generator.parameters())
    torch.nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
    optimiser.step()
    return ws.detach(), terms


def train(
    data: Path,
    folder: Path,
    minutes: float,
    settings: Settings = Settings(),
    tiny: bool = False,
    threads: int = 1,
    seed: int = 1,
    start: Path | None = None,
    session: float = math.inf,
) -> Path:
    """Train until the budget is spent; returns the file of the averaged weights (`generator.safetensors`).

    Under torchrun every process takes its own batches, and gradients are averaged.

    start: a model file to begin from; it may be smaller (see `enlarge`), and what it lacks begins afresh.
    session: minutes after which this call stops and leaves the rest to the next one.
    """
    from geoinv_core import weights

    torch.set_num_threads(threads)
    heads = HeadSet(data, KEYS)
    torch.manual_seed(seed)
    team = Team.join()
    device = team.device
    generator = TriplaneGenerator((tiny_config if tiny else default_config)(heads.layout)).to(device)
    optimiser = torch.optim.Adam(parameter_groups(generator), lr=settings.rate, betas=(0.9, 0.98), eps=1e-8)
    ema = Ema(generator, settings.decay)
    run = Run(folder, minutes, session=session, team=team)
    state = run.resume()
    if state is None and start is not None:
        first = weights.load(start, device)
        generator.load_state_dict(enlarge(first.state_dict(), first.config, generator), strict=False)
        ema = Ema(generator, settings.decay)
    elif state is not None:
        generator.load_state_dict(state["generator"])
        optimiser.load_state_dict(state["optimiser"])
        ema.state = {k: v.to(device) for k, v in state["ema"].items()}
    path = folder / "generator.safetensors"
    averages = Averages()

    def save() -> None:
        run.save(generator=generator.state_dict(), optimiser=optimiser.state_dict(), ema=ema.state)
        averaged = TriplaneGenerator(generator.config)
        averaged.load_state_dict(ema.state)
        weights.save(
            averaged,
            path,
            {
                "layout": heads.layout.to_json(),
                "steps": run.step,
                "minutes": round(run.elapsed / 60, 1),
                "heads": len(heads),
                "kept_out": heads.description.get("kept_out", {}),
                "device": str(torch.cuda.get_device_name()) if device.type == "cuda" else "CPU",
            },
        )

    for step in run.steps():
        # a resumed run goes on with the numbers it would have had
        r = np.random.default_rng([seed, step, team.rank])
        sampler = torch.Generator().manual_seed((seed * 1_000_003 + step) * team.size + team.rank)
        batch = heads.batch(r, settings.batch)
        points = points_from_pictures(
            batch, settings.surface, settings.near, settings.free, settings.core, sampler, heads.paired
        )
        points = points.to(device)
        pixels = None
        if settings.rays:
            pixels = random_pixels(batch, settings.rays, sampler, heads.paired).to(device)
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * group["share"] * run.schedule()
        codes = batch["z"].to(device), batch["c"].to(device)
        ws, terms = take_step(generator, optimiser, codes, points, settings, pixels, team)
        generator.w_avg.lerp_(ws[:, 0].float().mean(0), 0.005)
        ema.update(generator, step)
        averages.add(terms)
        if (step + 1) % settings.log_every == 0:
            run.log(heads=len(heads), **averages.take())
            heads.refresh()
        if run.due():
            save()
    if team.leads:
        save()
    team.leave()
    return path


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the bundled generator on drawn heads.")
    parser.add_argument("data", type=Path, help="folder of drawn heads (geoinv_core.train.dataset)")
    parser.add_argument("folder", type=Path, help="where checkpoints, log and weights go")
    parser.add_argument("--minutes", type=float, default=80)
    parser.add_argument("--batch", type=int, default=Settings.batch)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rate", type=float, default=Settings.rate)
    parser.add_argument("--rays", type=int, default=Settings.rays, help="drawn pixels per head and step")
    parser.add_argument("--start", type=Path, help="model file to begin from")
    parser.add_argument("--tiny", action="store_true")
    a = parser.parse_args(arguments)
    settings = Settings(batch=a.batch, rate=a.rate, rays=a.rays)
    train(a.data, a.folder, a.minutes, settings, a.tiny, a.threads, start=a.start)


if __name__ == "__main__":
    main()
