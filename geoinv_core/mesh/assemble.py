"""A head's field to its textured mesh: surface, atlas, albedo, Blender frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from geoinv_core.errors import GeoInvError
from geoinv_core.mesh.atlas import unwrap
from geoinv_core.mesh.bake import bake, check_size, field_colour
from geoinv_core.mesh.frame import Frame, neck_frame
from geoinv_core.mesh.head_mesh import HeadMesh, from_triangles
from geoinv_core.mesh.lattice import field_query, sparse
from geoinv_core.mesh.photo_view import photo_view
from geoinv_core.mesh.surface import Surface, close_pits, extract
from geoinv_core.mesh.topology import handles
from geoinv_core.progress import OnProgress

if TYPE_CHECKING:
    from geoinv_core.head import Head
    from geoinv_core.render.field import Field

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]

RESOLUTION = 256
"""Lattice points along each axis of the box: 1.6 mm on a head of 400 mm a unit."""
FACES = 24_000
_PIT, _OPEN = 0.024, 0.0075
"""World units: pits and tunnels narrower than the first (10 mm) are closed, for the model is not sure of
them, unless a ball of the second's radius (3 mm) fits in, as in an open mouth."""
_BLUR = 0.005
"""World units by which the distance is smoothed."""


def assemble(
    head: Head, topology: str, texture: int, on_progress: OnProgress | None = None
) -> tuple[HeadMesh, Frame, list[str]]:
    """Mesh, frame and warnings of a head.

    Raises: GeoInvError for an unknown topology, a texture size out of range or a field without a surface;
        Cancelled.
    """
    if topology != "raw":
        raise GeoInvError(f'The topology "{topology}" is not available; choose "raw".', "topology")
    check_size(texture)
    generator = head.model.generator
    field = generator.field(head.planes)
    surface = _raw_surface(head, field, on_progress)
    uv = unwrap(surface.vertices, surface.faces, texture, on_progress=on_progress)
    has_albedo = field.feature_count >= 6
    colour = field_colour(field, 3 if has_albedo else 0)
    photo = photo_view(head, field)
    distance = field_query(field) if field.density == "sdf" else None
    baked = bake(
        surface.vertices, surface.faces, uv, colour, texture, photo, distance, on_progress=on_progress
    )
    frame = neck_frame(surface.vertices, surface.faces, head.unit_mm)
    mesh = from_triangles(
        frame.to_blender(surface.vertices), surface.faces, uv, baked.albedo, maps=baked.masks
    )
    return mesh, frame, list(surface.warnings)


def _raw_surface(head: Head, field: Field, on_progress: OnProgress | None) -> Surface:
    """The field's own surface. Where open pits turn out to be tunnels, which no single island of UVs can
    hold, all narrow ones are closed."""
    values = sparse(field_query(field), RESOLUTION, field.box_warp, on_progress)
    step = field.box_warp / (len(values) - 1)
    width = 2 * round(_PIT / step / 2) + 1
    distance = field.density == "sdf"
    for open_from in (_OPEN, np.inf) if distance else (np.inf,):
        clean = gaussian_filter(close_pits(values, width, open_from), _BLUR / step)
        surface = extract(
            clean, field.box_warp, neck_y=head.model.neck_y, target_faces=FACES, on_progress=on_progress
        )
        if handles(surface.faces) <= 0:
            break
    return surface
