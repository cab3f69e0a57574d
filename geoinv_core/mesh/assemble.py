"""From a head to its mesh: the quad template or the field's own surface, UVs, texture, shape keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from geoinv_core.errors import GeoInvError
from geoinv_core.mesh import mouth
from geoinv_core.mesh.atlas import unwrap
from geoinv_core.mesh.bake import check_size
from geoinv_core.mesh.field_check import strangers
from geoinv_core.mesh.fit import fitter
from geoinv_core.mesh.frame import Frame, neck_frame
from geoinv_core.mesh.guess import anchors_of
from geoinv_core.mesh.head_mesh import HeadMesh, from_quads, from_triangles
from geoinv_core.mesh.keys import shape_keys
from geoinv_core.mesh.lattice import field_query
from geoinv_core.mesh.normal_map import normal_map
from geoinv_core.mesh.raw import raw_surface
from geoinv_core.mesh.texture import hair_at, texture_of
from geoinv_core.progress import OnProgress, report

if TYPE_CHECKING:
    from geoinv_core.head import Head

TOPOLOGIES = ("quads", "raw")
REGIONS = ("face", "lips", "ear", "cranium", "neck", "eyeball")
"""Parts of the template that get a mask of their own."""

NO_GLASSES = "The mesh wears no glasses; what their frames hid in the photo is filled in from around them."
_OFF_MM = 3.0
"""Mean distance between mesh and field on the face that is told; heads stay within half a millimetre."""


def assemble(
    head: Head, topology: str, texture: int, on_progress: OnProgress | None = None, shapes: bool = True
) -> tuple[HeadMesh, Frame, list[str]]:
    """Mesh, frame and warnings of a head; without its glasses.

    Args:
        topology: "quads", the template that all heads share, or "raw", the field's own surface in triangles.
        texture: side of the albedo, pixels. shapes: whether to make shape keys (quads only).
    Raises: GeoInvError for an unknown topology, a texture size out of range or a field without a surface;
         Cancelled.
    """
    if topology not in TOPOLOGIES:
        raise GeoInvError(f'The topology "{topology}" is not known; choose "quads" or "raw".', "topology")
    check_size(texture)
    bare = head.bare
    mesh, frame, warnings = (
        _raw(bare, texture, on_progress) if topology == "raw" else _quads(bare, texture, on_progress, shapes)
    )
    return mesh, frame, warnings if bare is head else [*warnings, NO_GLASSES]


def _quads(
    head: Head, texture: int, on_progress: OnProgress | None, shapes: bool
) -> tuple[HeadMesh, Frame, list[str]]:
    fit = fitter()
    template = fit.template
    points, warnings = fitted(head, on_progress)
    corner = np.concatenate([template.uv[:, :3], template.uv[:, [0, 2, 3]]])
    hair = hair_at(head, points.astype(np.float32))
    regions = {name: template.tagged(name) for name in REGIONS}
    baked = texture_of(
        head,
        points.astype(np.float32),
        template.triangles,
        corner,
        texture,
        template.mirror,
        regions,
        template.groups["mouth_inside"],
        hair,
        on_progress,
    )
    maps = dict(baked.masks)
    field = head.plain_field
    if field.density == "sdf":  # a density is no distance, by which its surface could be found
        hidden = template.groups["mouth_inside"] | template.tagged("eyeball")
        report(on_progress, "texture", 1.0, "Drawing the normal map")
        maps["normal"] = normal_map(
            points.astype(np.float32),
            template.triangles,
            corner,
            field_query(field),
            field.box_warp / field.planes.shape[-1],
            texture,
            hidden,
            hair,
        )
    frame = neck_frame(template.vertices, template.triangles, head.unit_mm)  # the same for all heads
    found: dict[str, npt.NDArray[np.float64]] = {}
    if shapes:
        report(on_progress, "shapes", 0.0, "Making shape keys")
        found = shape_keys(head, fit, points, on_progress)
        if not found:
            warnings.append("The mesh has no shape keys, because this model has no labels that it knows.")
        report(on_progress, "shapes", 1.0, "Shape keys made")
    rest = mouth.at_rest(head, fit, points)
    inner = mouth.placed(template, points, rest, head.unit_mm)
    moves = mouth.follow(template, rest, inner, found, head.unit_mm)

    def offsets(keys: dict[str, npt.NDArray[np.float64]]) -> dict[str, npt.NDArray[np.float16]]:
        return {name: frame.vectors_to_blender(key).astype(np.float16) for name, key in keys.items()}

    mesh = from_quads(
        frame.to_blender(points),
        template.faces,
        template.uv,
        baked.albedo,
        template.landmarks,
        offsets(found),
        maps,
        template.groups,
    )
    return mouth.joined(mesh, frame.to_blender(inner), offsets(moves)), frame, warnings


def fitted(head: Head, on_progress: OnProgress | None = None) -> tuple[npt.NDArray[np.float64], list[str]]:
    """The template's vertices float64 [V, 3] on a head, world units, and warnings.

    Raises: GeoInvError for a field without a head; Cancelled.
    """
    fit = fitter()
    report(on_progress, "surface", 0.0, "Fitting the template")
    query = field_query(head.plain_field, head.generator.config.surface_level)
    anchors, warnings = anchors_of(head, fit.template, query)
    points = fit.fit(query, anchors, on_progress)
    warnings += strangers(query, head.generator.config.box_warp)
    if head.plain_field.density == "sdf":
        skin = fit.seen & fit.template.groups["face"]
        off = float(np.abs(query(points[skin].astype(np.float32))).mean()) * head.unit_mm
        if off > _OFF_MM:
            warnings.append(
                f"The mesh lies {off:.0f} mm off the model's own surface on average: check its shape, or use "
                "the topology raw."
            )
    report(on_progress, "surface", 1.0, "Template fitted")
    return points, warnings


def _raw(head: Head, texture: int, on_progress: OnProgress | None) -> tuple[HeadMesh, Frame, list[str]]:
    level = head.generator.config.surface_level
    surface = raw_surface(head.plain_field, level, head.model.neck_y, on_progress)
    vertices, faces = surface.vertices, surface.faces
    uv = unwrap(vertices, faces, texture, on_progress=on_progress)
    hair = hair_at(head, vertices)
    baked = texture_of(head, vertices, faces, uv, texture, hair=hair, on_progress=on_progress)
    frame = neck_frame(vertices, faces, head.unit_mm)
    mesh = from_triangles(frame.to_blender(vertices), faces, uv, baked.albedo, maps=baked.masks)
    return mesh, frame, list(surface.warnings)
