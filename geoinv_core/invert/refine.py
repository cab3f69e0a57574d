"""Optimisation after the encoder: w_plus and camera against the photo, held near the encoder's geometry."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from geoinv_core.encoder import camera_of
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.progress import OnProgress, report

_SIZE = 48
_SAMPLES = (24, 24)
_RATE = 0.01
_HOLD = 0.05
_PATIENCE = 12


def refine(
    generator: TriplaneGenerator,
    ws: Tensor,
    pose: Tensor,
    image: Tensor,
    steps: int,
    on_progress: OnProgress | None = None,
) -> tuple[Tensor, Tensor]:
    """Move styles and camera until the drawing looks more like the photo.

    The loss is the L1 distance of colours where the first drawing shows the head (what lies behind is
    unknown), plus the squared step away from the encoder's code in units of its spread. Stops early
    when nothing improves.

    Args:
        ws: [1, L, w_dim]; pose: [1, 6] (see `encoder.camera_of`); image: [1, 3, S, S] in [-1, 1]; steps: at
            most.
    Returns: the best ws [1, L, w_dim] and camera [1, 25]. Raises Cancelled.
    """
    target = interpolate(image, size=(_SIZE, _SIZE), mode="area")
    start, start_pose = ws.detach(), pose.detach()
    # Styles share one scale: the spread of the mean style's entries.
    scale = generator.w_avg.std().clamp_min(1e-3)
    change = torch.zeros_like(start).requires_grad_()
    turn = torch.zeros_like(start_pose).requires_grad_()
    optimiser = torch.optim.Adam([{"params": [change], "lr": _RATE}, {"params": [turn], "lr": _RATE * 0.2}])
    with torch.no_grad():
        first = _draw(generator, start, camera_of(start_pose))
        weight = first[1].clamp(0, 1)
    best, best_loss, stale = (start, camera_of(start_pose)), float("inf"), 0
    with torch.enable_grad():
        for step in range(steps):
            report(on_progress, "refine", step / steps, f"Refining, step {step + 1} of {steps}")
            camera = camera_of(start_pose + turn)
            colour, _ = _draw(generator, start + change * scale, camera)
            error = ((colour - target).abs() * weight).sum() / (3 * weight.sum()).clamp_min(1)
            loss = error + _HOLD * change.square().mean() + 0.5 * turn.square().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if float(loss.detach()) < best_loss * 0.999:
                best, best_loss, stale = (
                    ((start + change * scale).detach().clone(), camera.detach().clone()),
                    float(loss.detach()),
                    0,
                )
            else:
                stale += 1
            optimiser.step()
            if stale >= _PATIENCE:
                break
    report(on_progress, "refine", 1.0, "Refined")
    return best


def _draw(generator: TriplaneGenerator, ws: Tensor, camera: Tensor) -> tuple[Tensor, Tensor]:
    """Colour [1, 3, S, S] in [-1, 1] (black behind) and opacity [1, 1, S, S]."""
    out = generator.render(generator.planes(ws), camera, _SIZE, _SAMPLES)
    return out.features[:, :3], out.opacity
