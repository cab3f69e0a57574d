"""Tuning of the generator's own weights to one picture, with its styles held still.

After Roich et al. 2022, "Pivotal tuning for latent-based editing of real images": first the styles are found,
then the weights close the rest of the gap. What changed is kept as differences, which belong to the head.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from geoinv_core.generator import TriplaneGenerator
from geoinv_core.invert.optimise import PREVIEW_EVERY, Settings, Start, Target, preview_of
from geoinv_core.invert.perceptual import Perceptual
from geoinv_core.progress import OnProgress, report

RATE = 3e-4
_TUNED = ("backbone.synthesis.", "decoder.", "superresolution.", "torgb.")


def tune(
    generator: TriplaneGenerator,
    ws: Tensor,
    camera: Tensor,
    image: Tensor,
    steps: int,
    perceptual: Perceptual | None = None,
    settings: Settings | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Tensor]:
    """Differences of weights, by name, that bring the drawing of `ws` closer to the picture.

    Args: as for `optimise`; the generator itself stays as it is. Raises: Cancelled.
    """
    k = settings or Settings()
    own = copy.deepcopy(generator)
    names = {n: p for n, p in own.named_parameters() if n.startswith(_TUNED) and not n.endswith("log_beta")}
    for parameter in names.values():
        parameter.requires_grad_()
    target = Target(generator, image, k, Start(ws, ws.new_ones(()), camera, blind=False))
    optimiser = torch.optim.Adam(names.values(), lr=RATE)
    best: dict[str, Tensor] = {}
    best_loss, stale = math.inf, 0
    before = dict(generator.named_parameters())
    with torch.enable_grad():
        for step in range(steps + 1):  # the last one only judges what the step before did
            picture = target.draw(own, ws, camera)
            loss = target.distance(picture, perceptual)
            value = float(loss.detach())
            if not math.isfinite(value):
                break
            if value < best_loss * 0.999:
                best_loss, stale = value, 0
                best = {n: (p.detach() - before[n]).clone() for n, p in names.items()} if step else {}
            else:
                stale += 1
            preview = preview_of(picture) if step % PREVIEW_EVERY == 0 else None
            report(on_progress, "refine", step / max(steps, 1), f"Tuning, step {step} of {steps}", preview)
            if stale >= k.patience or step == steps:
                break
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    return {name: change for name, change in best.items() if bool(change.any())}


def tuned_copy(generator: TriplaneGenerator, changes: Mapping[str, Tensor]) -> TriplaneGenerator:
    """The generator with differences added to its weights; itself where there are none."""
    if not changes:
        return generator
    own = copy.deepcopy(generator)
    with torch.no_grad():
        parameters = dict(own.named_parameters())
        for name, change in changes.items():
            parameters[name].add_(change.to(parameters[name]).view_as(parameters[name]))
    return own
