"""The camera settled: turned and moved until the photo falls on the head as the code draws it.

An encoder's camera is off by a degree or two, and detail laid on the surface from there lies beside the
features that it belongs to. What is drawn once, as coloured points of the surface, is looked up in the photo
for ever better cameras: direct image alignment (Lucas & Kanade 1981; with depth, Engel et al. 2018, "Direct
sparse odometry"). Points whose colours the code does not know (hair, make-up, background through a gap) weigh
little, as under Cauchy's distribution; how sure the encoder was of each angle holds the rest.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from geoinv_core import camera as cameras
from geoinv_core.encoder.network import camera_of
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.render import Field

SIZE, SAMPLES = 64, (24, 24)
"""Of the drawing: its pixels are the points."""
PHOTO = 96
"""Side of the photo that points are looked up in, pixels: the grid of a step's slopes."""
ROUNDS = 8
UNLIKE = 0.2
"""Difference of colours, sRGB, from which on a point counts for less."""
HOLD = 5e-4
"""Weight of the squared distance from the encoder's camera, in its own spreads, against the mean squared
difference of colours."""
_STEP = (5e-3, 5e-3, 5e-3, 5e-3, 2e-3, 2e-3, 1e-2)
"""Of each number of a pose, for its slope: about half a pixel of PHOTO."""
_GAIN = 0.999
"""of the cost, under which a round is the last"""
_PLAIN = 0.01
"""Variance of a channel, sRGB squared, at which half of another contrast is believed."""
_SOLID = 0.9
_FEWEST = 200
"""Points; with fewer the face is hardly in the picture."""


def settle(
    generator: TriplaneGenerator,
    field: Field,
    photo: Tensor,
    pose: Tensor,
    spread: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """A better pose [1, 7] of the same picture (see `camera_of`).

    Args:
        field: the head's colours (`TriplaneGenerator.colour_field`). photo: [1, 3, S, S] sRGB in -1..1.
        pose: [1, 7] the encoder's, spread: [1, 7] how sure it is of it (standard deviations).
        mask: [1, 1, R, R] how much of the photo shows the head, 0..1; None: all.
    """
    with torch.inference_mode():
        points, colours = _surface(generator, field, camera_of(pose), mask)
        if len(points) < _FEWEST:
            return pose
        picture = interpolate(photo, size=(PHOTO, PHOTO), mode="area") / 2 + 0.5
        hold = torch.diag(HOLD / spread[0].double().square().clamp_min(1e-6))
        steps = torch.diag(torch.tensor(_STEP, device=photo.device))
        start = now = best = pose.double()
        least, trust = math.inf, torch.ones_like(points[:, 0])
        for _ in range(ROUNDS + 1):
            tried = torch.cat([now.float(), now.float() + steps, now.float() - steps])
            seen = _looked_up(picture, points, camera_of(tried))
            own, ahead, back = seen.split([1, len(steps), len(steps)])
            apart = own[0] - _toned(colours, own[0], trust)
            slopes = (ahead - back) / (2 * steps.diagonal()[:, None, None])
            unlike = apart.square().sum(1) / UNLIKE**2
            moved = (now - start)[0]
            cost = UNLIKE**2 * float(torch.log1p(unlike).mean()) + float(moved @ hold @ moved)
            if not cost < least * _GAIN:
                break
            least, best = cost, now
            trust = 1 / (1 + unlike)
            weighted = slopes * (trust / len(points))[:, None]
            curve = (weighted.flatten(1) @ slopes.flatten(1).T).double() + hold
            slope = (weighted.flatten(1) @ apart.flatten()).double() + hold @ moved
            now = now - torch.linalg.solve(curve, slope)[None]
        return best.float().clone()


def _surface(
    generator: TriplaneGenerator, field: Field, camera: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Points [N, 3] of the head that a camera [1, 25] sees, and their colours [N, 3], sRGB 0..1."""
    drawn = generator.draw(field, camera, SIZE, SAMPLES)
    solid = drawn.opacity.flatten() > _SOLID
    if mask is not None:
        solid &= interpolate(mask, size=(SIZE, SIZE), mode="bilinear").flatten() > _SOLID
    origins, directions = cameras.rays(camera, SIZE)
    points = (origins + directions * drawn.depth.flatten(2).transpose(1, 2))[0]
    colours = (drawn.features[:, :3] / drawn.opacity.clamp_min(_SOLID))[0].flatten(1).T
    return points[solid], colours[solid]


def _toned(colours: Tensor, seen: Tensor, trust: Tensor) -> Tensor:
    """Colours [N, 3] with each channel's mean, and as much of its contrast as can be told, as in those seen
    [N, 3]: a dark photo would else be moved to where its bright places meet the drawing's dark ones."""
    weight = (trust / trust.sum())[:, None]
    own, theirs = ((weight * x).sum(0) for x in (colours, seen))
    together = (weight * (colours - own) * (seen - theirs)).sum(0)
    gain = (together + _PLAIN) / ((weight * (colours - own).square()).sum(0) + _PLAIN)
    return gain * (colours - own) + theirs


def _looked_up(picture: Tensor, points: Tensor, camera: Tensor) -> Tensor:
    """Colours [B, N, 3] of points [N, 3] in a picture [1, 3, S, S] taken by each camera [B, 25]."""
    at, _ = cameras.project(camera, points.expand(len(camera), -1, -1))
    pictures = picture.expand(len(camera), -1, -1, -1)
    found = grid_sample(pictures, at[:, None] * 2 - 1, padding_mode="border", align_corners=False)
    return found[:, :, 0].transpose(1, 2)
