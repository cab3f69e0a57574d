"""A head's field to its textured mesh: surface or fitted template, UVs, albedo, shape keys, Blender frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, grey_opening

from geoinv_core.errors import GeoInvError
from geoinv_core.mesh.atlas import unwrap
from geoinv_core.mesh.bake import PhotoView, bake, check_size, field_colour
from geoinv_core.mesh.blend import to_linear
from geoinv_core.mesh.fit import fitter
from geoinv_core.mesh.frame import Frame, neck_frame
from geoinv_core.mesh.guess import anchors_of
from geoinv_core.mesh.head_mesh import HeadMesh, from_quads, from_triangles
from geoinv_core.mesh.keys import shape_keys
from geoinv_core.mesh.lattice import field_query, sparse
from geoinv_core.mesh.surface import extract
from geoinv_core.progress import OnProgress, report

if TYPE_CHECKING:
    from geoinv_core.head import Head
    from geoinv_core.render.field import Field

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
_FIT_POINTS = 20_000
_VIEW = 192
_MOVED = (0.004, 0.012)
"""World units that an edit may move the surface before the photo's pixels no longer fit it: none, all."""


TOPOLOGIES = ("quads", "raw")


def assemble(
    head: Head, topology: str, texture: int, on_progress: OnProgress | None = None, shapes: bool = True
) -> tuple[HeadMesh, Frame, list[str]]:
    """Mesh, frame and warnings of a head.

    Args:
        topology: "quads" (the template, fitted) or "raw" (the surface as it is, in triangles).
        shapes: whether a mesh of quads gets shape keys.
    Raises: GeoInvError for an unknown topology, a texture size out of range or a field without a surface;
        Cancelled.
    """
    if topology not in TOPOLOGIES:
        raise GeoInvError(f'The topology "{topology}" is not known; choose "quads" or "raw".', "topology")
    check_size(texture)
    return (_quads if topology == "quads" else _raw)(head, texture, on_progress, shapes)


def _quads(
    head: Head, texture: int, on_progress: OnProgress | None, shapes: bool
) -> tuple[HeadMesh, Frame, list[str]]:
    fit = fitter()
    template = fit.template
    points, warnings = fitted(head, on_progress)
    corner = np.concatenate([template.uv[:, :3], template.uv[:, [0, 2, 3]]])
    albedo = _albedo(head, points.astype(np.float32), template.triangles, corner, texture, on_progress)
    frame = neck_frame(template.vertices, template.triangles, head.unit_mm)  # the same for all heads
    keys: dict[str, npt.NDArray[np.float16]] = {}
    if shapes:
        report(on_progress, "shapes", 0.0, "Making shape keys")
        found = shape_keys(head, fit, points, on_progress)
        keys = {name: frame.vectors_to_blender(offset).astype(np.float16) for name, offset in found.items()}
        if not keys:
            warnings.append("The mesh has no shape keys, because this model has no labels that it knows.")
        report(on_progress, "shapes", 1.0, "Shape keys made")
    vertices = frame.to_blender(points)
    mesh = from_quads(vertices, template.faces, template.uv, albedo, template.landmarks, keys)
    return mesh, frame, warnings


def fitted(head: Head, on_progress: OnProgress | None = None) -> tuple[npt.NDArray[np.float64], list[str]]:
    """The template's vertices float64 [V, 3] on a head, world units, and warnings.

    Raises: GeoInvError for a field without a head; Cancelled.
    """
    fit = fitter()
    report(on_progress, "surface", 0.0, "Fitting the template")
    query = field_query(head.field, head.generator.config.surface_level)
    anchors, warnings = anchors_of(head, fit.template, query)
    points = fit.fit(query, anchors, on_progress)
    report(on_progress, "surface", 1.0, "Template fitted")
    return points, warnings


def _raw(
    head: Head, texture: int, on_progress: OnProgress | None, shapes: bool
) -> tuple[HeadMesh, Frame, list[str]]:
    del shapes  # every raw surface has its own vertices
    field = head.field
    query = field_query(field, head.generator.config.surface_level)
    values = sparse(query, RESOLUTION, field.box_warp, on_progress)
    values = gaussian_filter(grey_opening(values, _PIT), _BLUR)
    surface = extract(
        values, field.box_warp, neck_y=head.model.neck_y, target_faces=FACES, on_progress=on_progress
    )
    uv = unwrap(surface.vertices, surface.faces, texture, on_progress=on_progress)
    albedo = _albedo(head, surface.vertices, surface.faces, uv, texture, on_progress)
    frame = neck_frame(surface.vertices, surface.faces, head.unit_mm)
    mesh = from_triangles(frame.to_blender(surface.vertices), surface.faces, uv, albedo)
    return mesh, frame, list(surface.warnings)


def _albedo(
    head: Head,
    vertices: Float32,
    triangles: npt.NDArray[np.int32],
    uv: Float32,
    texture: int,
    on_progress: OnProgress | None,
) -> UInt8:
    field = head.field
    colour = field_colour(field, 3 if field.feature_count >= 6 else 0)
    photo = _photo_view(head, field) if head.inversion.photo is not None else None
    return bake(vertices, triangles, uv, colour, texture, photo, on_progress)


def _photo_view(head: Head, field: Field) -> PhotoView:
    """The photo as this head would show it.

    For an edited head the photo is changed by the ratio of the edited to the unedited rendering (after
    "expressive expression mapping with ratio images", Liu et al. 2001), and left out where the edit moved the
    surface.
    """
    assert head.inversion.photo is not None
    image, camera = head.inversion.photo, head.camera
    after, depth, opacity = head.look(camera, _VIEW)
    mask = opacity
    if head.original is not None:
        before, old_depth, old_opacity = head.original.look(camera, _VIEW)
        size = image.shape[0]
        ratio = cv2.GaussianBlur((after + 0.05) / (before + 0.05), (0, 0), 1.0).clip(0.4, 2.5)
        photo = image.astype(np.float32) * cv2.resize(ratio, (size, size), interpolation=cv2.INTER_LINEAR)
        image = photo.clip(0, 255).astype(np.uint8)
        low, high = _MOVED
        moved = cv2.GaussianBlur(np.abs(depth - old_depth), (0, 0), 1.5)
        mask = np.minimum(opacity, old_opacity) * (1 - ((moved - low) / (high - low)).clip(0, 1))
    depth = np.where(opacity > 0.5, depth, np.inf).astype(np.float32)
    return PhotoView(
        image, camera.numpy(), depth, mask, _shading(field) if field.feature_count >= 6 else None
    )


def _shading(field: Field) -> Callable[[Float32], Float32]:
    """The light at world points, linear, relative to albedo: the model knows both lit and unlit colour.

    Their ratio, point by point, carries every error of the model into the texture. So only its smooth part is
    kept: brightness as a second-order polynomial of the direction from the head's middle (nine terms, as many
    as second-order spherical harmonics, which suffice for diffuse light: Ramamoorthi and Hanrahan 2001),
    fitted to logarithms.
    """
    lit, unlit = field_colour(field, 0), field_colour(field, 3)

    def shading(points: Float32) -> Float32:
        chosen = points[:: max(1, len(points) // _FIT_POINTS)]
        ratio = (to_linear(lit(chosen)).mean(1) + 0.02) / (to_linear(unlit(chosen)).mean(1) + 0.02)
        terms = _quadratic(chosen)
        # A ridge keeps directions that no point shows from running away.
        normal = terms.T @ terms + 1e-3 * len(chosen) * np.eye(terms.shape[1])
        weights = np.linalg.solve(normal, terms.T @ np.log(ratio.clip(0.1, 8.0)))
        smooth = np.exp(_quadratic(points) @ weights).clip(0.4, 2.5)
        return np.repeat(smooth[:, None], 3, 1).astype(np.float32)

    return shading


def _quadratic(points: Float32) -> npt.NDArray[np.float64]:
    d = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-6)
    x, y, z = d.astype(np.float64).T
    return np.stack([np.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1], 1)
