"""A head's field to its textured mesh: surface, atlas, albedo, Blender frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geoinv_core.errors import GeoInvError
from geoinv_core.mesh.atlas import unwrap
from geoinv_core.mesh.bake import check_size
from geoinv_core.mesh.frame import Frame, neck_frame
from geoinv_core.mesh.head_mesh import HeadMesh, from_triangles
from geoinv_core.mesh.raw import raw_surface
from geoinv_core.mesh.texture import texture_of
from geoinv_core.progress import OnProgress

if TYPE_CHECKING:
    from geoinv_core.head import Head


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
    field = head.model.generator.field(head.planes)
    surface = raw_surface(field, head.model.neck_y, on_progress)
    vertices, faces = surface.vertices, surface.faces
    uv = unwrap(vertices, faces, texture, on_progress=on_progress)
    baked = texture_of(head, vertices, faces, uv, texture, on_progress=on_progress)
    frame = neck_frame(vertices, faces, head.unit_mm)
    mesh = from_triangles(frame.to_blender(vertices), faces, uv, baked.albedo, maps=baked.masks)
    return mesh, frame, list(surface.warnings)
