"""What a photo tells about the surface: pixels looked up where each point of it is seen, if it is seen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from geoinv_core import camera as cameras
from geoinv_core.detail.sides import Looks, unit
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.render import Field

PHOTO = 128
"""Side of the picture that is compared, pixels."""
SAMPLES = (24, 24)
REACH = 0.015
"""World units (6 mm) along the ray by which the drawn surface may lie elsewhere: visibility falls off as a
Gaussian of this width."""
_DARKEST = 0.02
PICTURE_CHANNELS = 11
"""Of `Evidence.picture`: photo, drawing, difference (logits), depth, opacity."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Of one head and one photo; S sides with R texels a side (see `sides.Looks`)."""

    picture: Tensor
    """[11, PHOTO, PHOTO], see PICTURE_CHANNELS"""
    at: Tensor
    """[2, S, 2, R, R] where in the photo each point, and its mirror image, would be seen, -1..1"""
    seen: Tensor
    """[2, S, 1, R, R] how surely it is, 0..1"""
    facing: Tensor
    """[2, S, 1, R, R] cosine between its normal and the way to the camera"""
    difference: Tensor
    """[2, S, 3, R, R] photo minus drawing there, in logits of sRGB; 0 where not seen"""
    base: Tensor
    """[S, 3, R, R] logits of the head's colour"""
    normals: Tensor
    """[S, 3, R, R]"""
    inside: Tensor
    """[S, 1, R, R]"""


def logit(colour: Tensor) -> Tensor:
    """sRGB 0..1 to what a sigmoid needs; deep blacks and bright whites are cut off."""
    return torch.logit(colour.clamp(_DARKEST, 1 - _DARKEST))


@dataclass(frozen=True, eq=False)
class Seen:
    """A photo beside the head, drawn as it stands in the photo: PHOTO pixels a side."""

    photo: Tensor
    """[1, 3, PHOTO, PHOTO] its colours in logits of sRGB"""
    ours: Tensor
    """[1, 3, PHOTO, PHOTO] the drawing's"""
    bare: Tensor
    """[1, 1, PHOTO, PHOTO] how much the photo shows the head and nothing in front of it, 0..1"""
    depth: Tensor
    opacity: Tensor
    """[1, 1, PHOTO, PHOTO] of the drawing"""

    @property
    def theirs(self) -> Tensor:
        """The photo's colours; the drawing's where the photo does not show the head."""
        return self.ours + (self.photo - self.ours) * self.bare

    @property
    def difference(self) -> Tensor:
        """Theirs minus ours; 0 beside the drawn head."""
        return (self.theirs - self.ours) * self.opacity

    @property
    def shown(self) -> Tensor:
        """How surely the photo shows the drawn head there, 0..1."""
        return self.bare * self.opacity


def see(
    generator: TriplaneGenerator, field: Field, photo: Tensor, camera: Tensor, mask: Tensor | None = None
) -> Seen:
    """Compare a photo with a drawing of the field.

    Args:
        field: colours of one head. photo: [1, 3, H, H] sRGB in -1..1. camera: [1, 25].
        mask: [1, 1, M, M] how much of the photo shows the head, 0..1; None: all.
    """
    if photo.shape[-1] != PHOTO:
        photo = interpolate(photo, size=(PHOTO, PHOTO), mode="bilinear", antialias=True)
    drawn = generator.draw(field, camera, PHOTO, SAMPLES)
    opacity = drawn.opacity.clamp(0, 1)
    bare = torch.ones_like(opacity)
    if mask is not None:
        bare = interpolate(mask, size=(PHOTO, PHOTO), mode="bilinear")
    ours = logit(drawn.features[:, :3] / opacity.clamp_min(1e-3))
    return Seen(logit(photo / 2 + 0.5), ours, bare, drawn.depth, opacity)


def gather(s: Seen, looks: Looks, camera: Tensor) -> Evidence:
    """Look the surface up in photo and drawing, as `camera` [1, 25] sees both."""
    middle = camera[:, [3, 7, 11]].norm(dim=1).view(-1, 1, 1, 1)
    depth = (s.depth - middle) * 4 * s.opacity
    picture = torch.cat([s.theirs / 2, s.ours / 2 * s.opacity, s.difference, depth, s.opacity], 1)

    mirror = torch.tensor([-1.0, 1.0, 1.0], device=camera.device).view(1, 3, 1, 1)
    found = []
    for change in (torch.ones_like(mirror), mirror):
        points, normals = looks.points * change, looks.normals * change
        S, _, R, _ = points.shape
        flat = points.permute(0, 2, 3, 1).reshape(1, -1, 3)
        at, distance = cameras.project(camera, flat)
        at = (at * 2 - 1).view(S, R, R, 2)
        values = torch.cat([s.difference, s.depth, s.shown], 1).expand(S, -1, -1, -1)
        values = grid_sample(values, at, align_corners=False)
        gap = (distance.view(S, 1, R, R) - values[:, 3:4]) / REACH
        ahead = unit(camera[:, [3, 7, 11]].view(1, 3, 1, 1) - points)
        facing = (ahead * normals).sum(1, keepdim=True)
        seen = torch.exp(-gap.square()) * values[:, 4:5] * (facing > 0) * looks.inside
        found.append((at.permute(0, 3, 1, 2), seen, facing, values[:, :3] * (seen > 0.02)))
    at, seen, facing, apart = (torch.stack(x) for x in zip(*found, strict=True))
    return Evidence(picture[0], at, seen, facing, apart, logit(looks.colour), looks.normals, looks.inside)
