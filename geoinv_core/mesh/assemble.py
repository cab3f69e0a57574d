"""A head's field to its textured mesh: surface, atlas, albedo, Blender frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, grey_opening

from geoinv_core.errors import GeoInvError
from geoinv_core.mesh.atlas import unwrap
from geoinv_core.mesh.bake import bake, check_size, field_colour
from geoinv_core.mesh.frame import Frame, neck_frame
from geoinv_core.mesh.head_mesh import HeadMesh, from_triangles
from geoinv_core.mesh.lattice import field_query, sparse
from geoinv_core.mesh.photo_view import photo_view
from geoinv_core.mesh.surface import extract
from geoinv_core.progress import OnProgress

if TYPE_CHECKING:
    from geoinv_core.head import Head

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]

RESOLUTION = 192
"""Lattice points along each axis of the box: 2.1 mm on a head of 400 mm a unit."""
FACES = 24_000
_PIT = 5
"""Pits and tunnels narrower than this many lattice steps (10 mm) are closed: the model is not sure of
them."""
_BLUR = 1.0
"""Lattice steps by which the distance is smoothed."""


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
    field = head.field
    query = field_query(field, head.generator.config.surface_level)
    values = sparse(query, RESOLUTION, field.box_warp, on_progress)
    values = gaussian_filter(grey_opening(values, _PIT), _BLUR)
    surface = extract(
        values, field.box_warp, neck_y=head.model.neck_y, target_faces=FACES, on_progress=on_progress
    )
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
