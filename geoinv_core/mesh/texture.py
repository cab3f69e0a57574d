"""A head's texture on any mesh of it: the field's albedo and the photo's pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geoinv_core.detail.hair import ANSWER
from geoinv_core.mesh.bake import Baked, Colour, bake, field_colour
from geoinv_core.mesh.lattice import field_query
from geoinv_core.mesh.photo_view import photo_view
from geoinv_core.mesh.strands import Hair
from geoinv_core.progress import OnProgress

if TYPE_CHECKING:
    from geoinv_core.head import Head
    from geoinv_core.render.field import Field

CURLY = ("afro01", "curls", "buzz")
"""Styles of hair whose strands run nowhere in particular."""


def texture_of(
    head: Head,
    vertices: npt.NDArray[np.float32],
    triangles: npt.NDArray[np.int32],
    uv: npt.NDArray[np.float32],
    size: int,
    partner: npt.NDArray[np.int32] | None = None,
    regions: Mapping[str, npt.NDArray[Any]] | None = None,
    mouth: npt.NDArray[Any] | None = None,
    hair: Hair | None = None,
    on_progress: OnProgress | None = None,
) -> Baked:
    """Albedo and masks for a mesh that lies on the head.

    Args:
        vertices: world [V, 3]; triangles: [F, 3]; uv: [F, 3, 2] in 0..1, origin lower left.
        size: side of the texture in pixels.
        partner, regions, mouth, hair: see `bake`.
    Raises: GeoInvError, Cancelled.
    """
    field = head.field
    colour = _albedo(field)
    distance = field_query(head.plain_field) if field.density == "sdf" else None
    photo = photo_view(head, field)
    return bake(
        vertices, triangles, uv, colour, size, photo, distance, partner, regions, mouth, hair, on_progress
    )


def hair_at(head: Head, points: npt.NDArray[np.float32]) -> Hair | None:
    """Where a head's surface is hair, at points [N, 3] of it, by whether its colour changes with the hair's;
    None where it has none."""
    other, space = head.other_hair(), head.model.label_space
    if other is None or space is None:
        return None
    change = np.abs(_albedo(head.plain_field)(points) - _albedo(other)(points))
    share = np.asarray(np.clip(change.mean(1) / ANSWER, 0, 1), np.float32)
    return Hair(share, space.choices(head.inversion.c[0])["hair"] in CURLY)


def _albedo(field: Field) -> Colour:
    """A field's colours without light, or with it where it knows no others."""
    return field_colour(field, 3 if field.feature_count >= 6 else 0)
