"""Inversion by optimisation: styles and camera against one picture, through the differentiable renderer.

The recipe is the projector's of StyleGAN2 (Karras et al. 2020, appendix D: start from the mean style, a rate
that warms up and fades, noise on the style that dies away), with a camera that moves along, as inversions of
EG3D do (Ko et al. 2023, "3D GAN inversion with pose optimization"). W has one style for all layers, W+ (Abdal
et al. 2019) one for each, here as a shared one and small offsets of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from geoinv_core import camera as cameras
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.invert.perceptual import Perceptual
from geoinv_core.progress import OnProgress, report

Space = Literal["w", "w+"]
DEFAULT_STEPS = 200
"""Of an inversion that starts from the mean style."""
_WARM, _FADE = 0.05, 0.25
"""Shares of the run in which the rate rises and falls."""
_NOISE, _NOISE_END = 0.05, 0.75
"""Strength of the noise on the style, in spreads, and the share of the run after which there is none."""
_OFFSET_HOLD = 4.0
"""How much dearer a layer's own offset is than the shared one: it leaves the space the generator knows."""
_CAMERA_RATE = 0.1
PREVIEW_EVERY = 10
"""Steps."""
_SURE = 0.3
"""Share of the run before which nothing is taken for stuck."""


@dataclass(frozen=True)
class Settings:
    """How hard to look, and for what."""

    steps: int = DEFAULT_STEPS
    space: Space = "w+"
    seed: int = 0
    size: int = 64
    """Side of the compared pictures, pixels."""
    samples: tuple[int, int] = (24, 24)
    """Coarse and fine samples per ray."""
    rate: float = 0.05
    """Of Adam, in spreads of the style."""
    hold: float = 0.02
    """Weight of the squared distance from the start, in spreads."""
    similar: float = 0.5
    """Weight of the perceptual distance."""
    final: bool = False
    """Compare the picture after super-resolution: truer, and several times as slow."""
    patience: int = 60
    """Steps without gain after which the search ends."""


@dataclass(frozen=True)
class Start:
    """Where the search begins."""

    ws: Tensor
    """[1, L, w_dim]"""
    spread: Tensor
    """[w_dim] or []: how much styles differ between heads"""
    camera: Tensor
    """[1, 25]"""
    blind: bool
    """The styles say nothing of this photo yet: then noise helps to look around"""


@dataclass(frozen=True)
class Found:
    """The best that was met."""

    ws: Tensor
    """[1, L, w_dim]"""
    camera: Tensor
    """[1, 25]"""
    losses: tuple[float, ...]
    """of every step"""
    stopped_early: bool


def mean_start(
    generator: TriplaneGenerator,
    camera: Tensor,
    conditioning: Tensor | None,
    seed: int = 0,
    count: int = 1000,
) -> Start:
    """The mean style of random latents, and their spread.

    Args:
        camera: [1, 25] first guess. conditioning: [1, c_dim] that the mapping sees, such as a frontal camera;
            None: standard normal numbers, as standardised labels are.
    """
    random = torch.Generator().manual_seed(seed)
    z = torch.randn(count, generator.config.z_dim, generator=random).to(camera.device)
    c = torch.randn(count, generator.config.c_dim, generator=random).to(camera.device)
    if conditioning is not None:
        c = conditioning.expand(count, -1)
    with torch.no_grad():
        w = generator.map(z, c)[:, 0]
        mean, spread = w.mean(0), w.std(0)
    return Start(mean.expand(1, generator.num_ws, -1).clone(), spread.clamp_min(1e-4), camera, blind=True)


def optimise(
    generator: TriplaneGenerator,
    start: Start,
    image: Tensor,
    perceptual: Perceptual | None = None,
    settings: Settings | None = None,
    on_progress: OnProgress | None = None,
) -> Found:
    """Move styles and camera until the drawing looks like the picture.

    The loss is the mean L1 distance of colours and the perceptual distance, where the model draws its own
    background, else where the first drawing shows the head (what lies behind is unknown); plus the squared
    distance from the start.

    Args: image: [1, 3, S, S] sRGB in [-1, 1], as the camera sees it.
    Raises: Cancelled.
    """
    k = settings or Settings()
    random = torch.Generator().manual_seed(k.seed)
    target = Target(generator, image, k, start)
    shared = torch.zeros_like(start.ws[:, :1]).requires_grad_()
    own = torch.zeros_like(start.ws).requires_grad_(k.space == "w+")
    turn, shift = (torch.zeros(1, 3, device=image.device).requires_grad_() for _ in range(2))
    styles = [shared, own] if k.space == "w+" else [shared]
    optimiser = torch.optim.Adam([{"params": styles}, {"params": [turn, shift]}], betas=(0.9, 0.99))
    best, best_loss, losses, stale = (start.ws, start.camera), math.inf, list[float](), 0
    with torch.enable_grad():
        for step in range(k.steps):
            done = step / k.steps
            rate = k.rate * min(1.0, (1 - done) / _FADE, (done + 1 / k.steps) / _WARM)
            optimiser.param_groups[0]["lr"], optimiser.param_groups[1]["lr"] = rate, rate * _CAMERA_RATE
            change = shared + own
            noise = _NOISE * max(0.0, 1 - done / _NOISE_END) ** 2 if start.blind else 0.0
            if noise:
                change = change + noise * torch.randn(shared.shape, generator=random).to(change)
            ws = start.ws + change * start.spread
            camera = moved(start.camera, turn, shift)
            picture = target.draw(generator, ws, camera)
            loss = target.distance(picture, perceptual) + k.hold * (
                shared.square().mean() + _OFFSET_HOLD * own.square().mean() + 10 * turn.square().mean()
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                break  # the best so far stands
            if losses[-1] < best_loss * 0.999:
                best, best_loss, stale = (
                    (_rest(start.ws + (shared + own) * start.spread), _rest(camera)),
                    losses[-1],
                    0,
                )
            else:
                stale += 1
            optimiser.step()
            preview = preview_of(picture) if step % PREVIEW_EVERY == 0 else None
            report(on_progress, "refine", (step + 1) / k.steps, f"Step {step + 1} of {k.steps}", preview)
            if stale >= k.patience and done >= _SURE:
                break
    report(on_progress, "refine", 1.0, "Fitted to the photo")
    return Found(*best, tuple(losses), len(losses) < k.steps)


class Target:
    """The picture to be met, and how a drawing is compared with it."""

    def __init__(self, generator: TriplaneGenerator, image: Tensor, settings: Settings, start: Start) -> None:
        self.settings = settings
        side = settings.size
        self.image = interpolate(image, size=(side, side), mode="area")
        if generator.config.draws_background:
            self.weight = torch.ones_like(self.image[:, :1])
        else:
            with torch.no_grad():
                planes = generator.planes(start.ws)
                found = generator.raw_picture(planes, start.ws, start.camera, side, settings.samples)
                self.weight = found.opacity.clamp(0, 1)

    def draw(self, generator: TriplaneGenerator, ws: Tensor, camera: Tensor) -> Tensor:
        """[1, 3, size, size] in [-1, 1]."""
        k = self.settings
        planes = generator.planes(ws)
        if not k.final:
            return generator.raw_picture(planes, ws, camera, k.size, k.samples).features * 2 - 1
        found = generator.synthesize(ws, camera, planes=planes, samples=k.samples)
        return interpolate(found.image, size=(k.size, k.size), mode="area")

    def distance(self, picture: Tensor, perceptual: Perceptual | None) -> Tensor:
        apart = ((picture - self.image).abs() * self.weight).sum() / (3 * self.weight.sum()).clamp_min(1)
        if perceptual is None or not self.settings.similar:
            return apart
        seen = torch.lerp(self.image, picture, self.weight)
        return apart + self.settings.similar * perceptual(seen, self.image)


def moved(camera: Tensor, turn: Tensor, shift: Tensor) -> Tensor:
    """A camera orbited about the world's origin and then shifted; differentiable.

    Args:
        camera: [1, 25]. turn: [1, 3] axis times angle (radians), shift: [1, 3] world units; both along the
            camera's own axes (right, down, forward).
    """
    cam2world, K = cameras.unpack(camera)
    x, y, z = turn.unbind(1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).unflatten(1, (3, 3))
    rotation = cam2world[:, :3, :3]
    turned = rotation @ torch.linalg.matrix_exp(skew)
    position = turned @ rotation.transpose(1, 2) @ cam2world[:, :3, 3:] + turned @ shift[..., None]
    top = torch.cat([turned, position], 2)
    return cameras.pack(torch.cat([top, cam2world[:, 3:]], 1), K)


def _rest(x: Tensor) -> Tensor:
    return x.detach().clone()


def preview_of(picture: Tensor) -> Image.Image:
    """[1, 3, S, S] in [-1, 1] as a picture."""
    pixels = (picture[0].detach().clamp(-1, 1) * 127.5 + 127.5).permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(pixels, np.uint8))
