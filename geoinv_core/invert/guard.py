"""Geometry that a refinement may not spoil: what the photo does not show must stay as the encoder knew it.

An optimisation against one picture is free to bend everything that the picture does not show. So the depth
of the head is measured from both sides before and after, and the step is shortened until it has changed by
no more than a stated amount. Hence refinement cannot make the depth there worse by more than that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geoinv_core.camera import orbit
from geoinv_core.generator import TriplaneGenerator

ALLOWED_MM = 1.0
"""Mean change of the depth seen from the sides, millimetres."""
VIEWS = (-60.0, 60.0)
_SIZE, _SAMPLES = 32, (24, 24)
_SHARES = (1.0, 0.8, 0.6, 0.45, 0.3, 0.2, 0.1)


def side_depths(generator: TriplaneGenerator, ws: Tensor) -> tuple[Tensor, Tensor]:
    """Depth (world units) and opacity of a head [1, L, w_dim] from the sides, [2, 1, S, S] each."""
    k = generator.config
    with torch.no_grad():
        planes = generator.planes(ws)
        views = [
            generator.render(
                planes,
                orbit(yaw, radius=k.camera_radius, target=k.camera_target)[None].to(ws),
                _SIZE,
                _SAMPLES,
                ws=ws,
            )
            for yaw in VIEWS
        ]
    return torch.cat([v.depth for v in views]), torch.cat([v.opacity for v in views])


def change_mm(generator: TriplaneGenerator, before: tuple[Tensor, Tensor], ws: Tensor) -> float:
    """Mean change of depth against `side_depths` of another code where both show the head, and its thickness
    along the outline where only one does, in millimetres."""
    depth, opacity = before
    there, solid = side_depths(generator, ws)
    both, one = (opacity > 0.5) & (solid > 0.5), (opacity > 0.5) ^ (solid > 0.5)
    changed = (depth - there).abs()[both].sum() + one.sum() * (1 / _SIZE)
    return float(changed / (both | one).sum().clamp_min(1)) * float(generator.config.unit_mm)


def guarded(
    generator: TriplaneGenerator, start: Tensor, found: Tensor, allowed_mm: float = ALLOWED_MM
) -> tuple[Tensor, float, float]:
    """As much of the way from one code to another as leaves the sides as they are.

    Args: start, found: [1, L, w_dim].
    Returns: the code, the share of the way (0..1), and the change of the sides in millimetres.
    """
    before = side_depths(generator, start)
    for share in _SHARES:
        ws = start + share * (found - start)
        change = change_mm(generator, before, ws)
        if change <= allowed_mm:
            return ws, share, change
    return start.clone(), 0.0, 0.0
