"""Colours of a field (and a photo) into a texture.

Colours are sRGB-encoded floats in 0..1 throughout, as the models' colour channels are; the result is
uint8 sRGB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from geoinv_core.errors import GeoInvError
from geoinv_core.mesh.blend import blend_photo
from geoinv_core.mesh.raster import Coverage, depth_map, rasterise
from geoinv_core.mesh.topology import neighbour_mean, vertex_normals
from geoinv_core.progress import OnProgress, report

if TYPE_CHECKING:
    from geoinv_core.render.field import Field

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
Colour = Callable[[Float32], Float32]
"""World points float32 [N, 3] to values float32 [N, 3]."""

TEXTURE_SIZES = (64, 8192)
_CHUNK = 1 << 17
_DEPTH_RESOLUTION = 512


@dataclass(frozen=True)
class PhotoView:
    """A photo that sees the head.

    image: uint8 [S, S, 3] sRGB crop; camera: [25] of that crop.
    depth: [R, R] distance along the ray, not finite or <= 0 off the head; None: of the mesh itself.
    mask: [M, M] above 0.5 where the photo shows the head; None: unknown.
    shading: world points [N, 3] to the linear light on them relative to their albedo [N, 3]; None: the
        photo's own light stays in the texture.
    """

    image: UInt8
    camera: npt.NDArray[Any]
    depth: Float32 | None = None
    mask: npt.NDArray[Any] | None = None
    shading: Colour | None = None


def bake(
    vertices: Float32,
    faces: Int32,
    uv: Float32,
    colour: Colour,
    size: int = 1024,
    photo: PhotoView | None = None,
    on_progress: OnProgress | None = None,
) -> UInt8:
    """The albedo texture of a mesh.

    Args:
        vertices: world [V, 3]; faces: [F, 3]; uv: [F, 3, 2] in 0..1, origin lower left, without overlaps.
        colour: albedo of the field, sRGB-encoded 0..1, asked at the surface.
        size: side of the texture in pixels.
        photo: its pixels are used where it sees the surface.

    Returns: uint8 [size, size, 3] sRGB, row 0 at the top; gaps repeat the nearest chart's edge.
    Raises: GeoInvError for a size that makes no sense; Cancelled.
    """
    check_size(size)
    report(on_progress, "texture", 0.45, "Laying out the texture")
    texels = texel_map(uv, size)
    points = texels.interpolate(vertices, faces)
    albedo = _ask(colour, points, on_progress)
    if photo is not None:
        report(on_progress, "texture", 0.75, "Blending the photo in")
        normals = texels.interpolate(_smooth_normals(vertices, faces), faces)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        depth = photo.depth
        if depth is None:
            depth = depth_map(vertices, faces, photo.camera, _DEPTH_RESOLUTION)
        shading = None if photo.shading is None else photo.shading(points)
        albedo = blend_photo(
            points, normals, albedo, photo.image, photo.camera, depth, photo.mask, shading
        ).colour
    report(on_progress, "texture", 0.95, "Finishing the texture")
    picture = paint(texels, albedo)
    report(on_progress, "texture", 1.0, "Texture baked")
    return picture


def check_size(size: int) -> None:
    """Raises: GeoInvError where a texture of this side cannot be made."""
    low, high = TEXTURE_SIZES
    if not low <= size <= high:
        raise GeoInvError(
            f"A texture of {size} pixels cannot be made: the side must be between {low} and {high}; "
            "choose for example 1024 or 2048.",
            "texture",
        )


def texel_map(uv: Float32, size: int) -> Coverage:
    """Which face covers each texel of a square texture; uv: [F, 3, 2] in 0..1, origin lower left."""
    return rasterise(np.stack([uv[..., 0], 1.0 - uv[..., 1]], -1) * size, size)


def paint(texels: Coverage, colour: Float32) -> UInt8:
    """A texture uint8 [T, T, 3] from the covered texels' sRGB colours [N, 3]; gaps take the nearest."""
    size = texels.size
    if not len(texels.pixel):
        raise GeoInvError("The head's texture covers no pixel; choose a larger texture.", "texture")
    flat = np.zeros((size * size, 3), np.uint8)
    flat[texels.pixel] = np.clip(np.rint(colour * 255.0), 0, 255).astype(np.uint8)
    gaps = np.ones(size * size, np.uint8)
    gaps[texels.pixel] = 0
    _, label = cv2.distanceTransformWithLabels(
        gaps.reshape(size, size), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    source = np.zeros(int(label.max()) + 1, np.int64)
    source[label.ravel()[texels.pixel]] = texels.pixel
    return np.ascontiguousarray(flat[source[label.ravel()]].reshape(size, size, 3))


def field_colour(field: Field, first: int) -> Colour:
    """Three feature channels of a field's first head, from channel `first` on, clipped to 0..1."""
    import torch

    from geoinv_core.render import query

    device = field.planes.device

    def evaluate(points: Float32) -> Float32:
        with torch.inference_mode():
            _, features = query(field, torch.from_numpy(np.ascontiguousarray(points))[None].to(device))
        return np.asarray(features[0, :, first : first + 3].clamp(0.0, 1.0).float().cpu().numpy(), np.float32)

    return evaluate


def _smooth_normals(vertices: Float32, faces: Int32) -> Float32:
    """Normals of a slightly smoothed head, so that the photo's border does not follow single faces."""
    normals = vertex_normals(vertices, faces)
    mean = neighbour_mean(faces, len(vertices))
    for _ in range(4):
        normals = 0.5 * (normals + mean(normals))
    return normals


def _ask(colour: Colour, points: Float32, on_progress: OnProgress | None) -> Float32:
    found = np.empty((len(points), 3), np.float32)
    for start in range(0, len(points), _CHUNK):
        report(on_progress, "texture", 0.5 + 0.25 * start / len(points), "Colouring the texture")
        found[start : start + _CHUNK] = colour(points[start : start + _CHUNK])
    if not np.isfinite(found).all():
        raise GeoInvError(
            "The head's texture could not be baked: the model gives colours that are not finite; "
            "try another photo, less refinement or smaller edits.",
            "texture",
        )
    return found
