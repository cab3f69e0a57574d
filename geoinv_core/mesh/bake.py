"""Colours of a field (and a photo) into a texture.

Colours are sRGB-encoded floats in 0..1 throughout, as the models' colour channels are; the result is
uint8 sRGB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from geoinv_core.errors import GeoInvError
from geoinv_core.mesh.bared import lips_alone
from geoinv_core.mesh.blend import Ground, blend_photo
from geoinv_core.mesh.lattice import Query
from geoinv_core.mesh.membrane import Membrane
from geoinv_core.mesh.raster import Coverage, depth_map, rasterise
from geoinv_core.mesh.strands import Hair, stranded
from geoinv_core.mesh.topology import neighbour_mean, vertex_normals
from geoinv_core.mesh.visibility import Sight, smooth_step
from geoinv_core.progress import OnProgress, report

if TYPE_CHECKING:
    from geoinv_core.render.field import Field

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
Colour = Callable[[Float32], Float32]
"""World points float32 [N, 3] to values float32 [N, 3]."""

TEXTURE_SIZES = (64, 8192)
_CHUNK = 1 << 18
_FAR = 10.0
"""World units: farther than any head is wide."""
_DEPTH_RESOLUTION = 512
_MASK_SIZE = 1024
_MOUTH = np.array([0.27, 0.09, 0.08], np.float32)
"""sRGB of the mouth's inside: its membranes in their own shadow."""
_OFF_SURFACE = (0.006, 0.015)
"""Distance to the field's surface, world units, over which its colour loses all credit (2.5 to 6 mm)."""


@dataclass(frozen=True)
class PhotoView:
    """A photo that sees the head.

    image: uint8 [S, S, 3] sRGB crop; camera: [25] of that crop.
    depth: [R, R] distance along the ray, not finite or <= 0 off the head; None: of the mesh itself.
    mask: [M, M] above 0.5 where the photo shows the head; None: unknown.
    lit: the field's colours under the photo's light; None: the model knows no other than these, and the
        photo's light stays in the texture.
    """

    image: UInt8
    camera: npt.NDArray[Any]
    depth: Float32 | None = None
    mask: npt.NDArray[Any] | None = None
    lit: Colour | None = None


@dataclass(frozen=True)
class Baked:
    """albedo: uint8 [T, T, 3] sRGB, row 0 at the top; gaps repeat the nearest island's edge.

    masks: "mask_NAME" -> uint8 [M, M], M at most 1024, 255 where a texel comes wholly from that source: photo
    (its own pixels), mirrored (the photo's other half), inpainted (continued from the surface around); the
    rest is the field's colour, drawn to the photo's tone. Then one for each region that was given.
    light: float32 [V, 3], the logarithm of the photo's light over linear albedo at the vertices; None
    without a photo.
    """

    albedo: UInt8
    masks: dict[str, UInt8]
    light: Float32 | None = None


def bake(
    vertices: Float32,
    faces: Int32,
    uv: Float32,
    colour: Colour,
    size: int = 1024,
    photo: PhotoView | None = None,
    distance: Query | None = None,
    partner: Int32 | None = None,
    regions: Mapping[str, npt.NDArray[Any]] | None = None,
    mouth: npt.NDArray[Any] | None = None,
    hair: Hair | None = None,
    on_progress: OnProgress | None = None,
) -> Baked:
    """The albedo texture of a mesh.

    Args:
        vertices: world [V, 3]; faces: [F, 3]; uv: [F, 3, 2] in 0..1, origin lower left, without overlaps.
        colour: albedo of the field, sRGB-encoded 0..1, asked at the surface.
        size: side of the texture in pixels.
        photo: its pixels are used where it sees the surface.
        distance: of the field, world units; where the mesh leaves the field's surface, as in pits that it
            does not follow, the field's colour is not believed but continued from around. None: it is.
        partner: [V], each vertex' counterpart on the other half; None: the nearest to its mirror image.
        regions: name -> [V], True or a share 0..1 where a vertex belongs to it; "lips" keep lips' colours.
        mouth: bool [V], the mouth's inside, which neither field nor photo shows; None: there is none.
        hair: where it is, and has strands that the photo does not show; a region, too. None: nowhere.

    Raises: GeoInvError for a size that makes no sense or colours that are not finite; Cancelled.
    """
    check_size(size)
    report(on_progress, "texture", 0.45, "Laying out the texture")
    texels = texel_map(uv, size)
    points = texels.interpolate(vertices, faces)
    base = _ask(colour, points, on_progress)
    at_vertices = np.clip(colour(vertices), 0.0, 1.0)
    sources: dict[str, Float32] = {}
    light: Float32 | None = None
    lips = None if regions is None or "lips" not in regions else regions["lips"].astype(np.float32)
    doubt = np.zeros(len(vertices), np.float32)
    if distance is not None:
        doubt = smooth_step(np.abs(distance(vertices)), *_OFF_SURFACE)
    if lips is not None:
        doubt = np.maximum(doubt, 1 - lips_alone(at_vertices, np.ones_like(lips), lips))
    if doubt.max() > 0:
        doubt = _around(faces, doubt)
        at_vertices = _fill(vertices, faces, at_vertices, doubt)
        here = texels.interpolate(np.concatenate([at_vertices, doubt[:, None]], 1), faces)
        sources["inpainted"] = here[:, 3]
        base += here[:, 3:] * (here[:, :3] - base)
    if photo is not None:
        report(on_progress, "texture", 0.7, "Blending the photo in")
        normals = _smooth_normals(vertices, faces)
        depth = photo.depth
        if depth is None:
            depth = depth_map(vertices, faces, photo.camera, _DEPTH_RESOLUTION)
        sight = Sight(photo.camera, depth, photo.mask)
        lit = None if photo.lit is None else np.clip(photo.lit(vertices), 0.0, 1.0)
        membrane = Membrane(vertices, faces, at_vertices)
        ground = Ground(vertices, faces, normals, at_vertices, lit, membrane, lips)
        blended = blend_photo(ground, texels, points, base, photo.image, sight, partner)
        base, light = blended.colour, blended.light
        if hair is not None:
            base = stranded(texels, points, base, hair.at(texels, faces), blended.photo + blended.mirrored)
        sources |= {"photo": blended.photo, "mirrored": blended.mirrored}
        if "inpainted" in sources:
            sources["inpainted"] = sources["inpainted"] * (1 - blended.photo - blended.mirrored)
    if mouth is not None:
        share = texels.interpolate(mouth[:, None], faces)
        base = base + share * (_MOUTH - base)
        sources = {name: value * (1 - share[:, 0]) for name, value in sources.items()}
    report(on_progress, "texture", 0.95, "Finishing the texture")
    if hair is not None:
        regions = {**(regions or {}), "hair": hair.share}
    for name, share in (regions or {}).items():
        sources[name] = texels.interpolate(share[:, None], faces)[:, 0]
    padding = nearest_covered(texels)
    picture = paint(texels, base, padding)
    masks = {f"mask_{name}": _mask(texels, share, padding) for name, share in sources.items()}
    report(on_progress, "texture", 1.0, "Texture baked")
    return Baked(picture, masks, light)


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


def nearest_covered(texels: Coverage) -> npt.NDArray[np.int64]:
    """For every texel of the picture the nearest covered one, by its place in `texels`; int64 [T * T]."""
    if not len(texels.pixel):
        raise GeoInvError("The head's texture covers no pixel; choose a larger texture.", "texture")
    gaps = np.ones(texels.size**2, np.uint8)
    gaps[texels.pixel] = 0
    _, label = cv2.distanceTransformWithLabels(
        gaps.reshape(texels.size, texels.size), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    flat = label.ravel()
    source = np.zeros(int(flat.max()) + 1, np.int64)
    source[flat[texels.pixel]] = np.arange(len(texels.pixel))
    return np.asarray(source[flat], np.int64)


def paint(texels: Coverage, values: Float32, padding: npt.NDArray[np.int64] | None = None) -> UInt8:
    """A picture uint8 [T, T, C] from the covered texels' values 0..1 [N, C]; gaps take the nearest texel's.

    padding: `nearest_covered` of the texels, where it is at hand.
    """
    nearest = nearest_covered(texels) if padding is None else padding
    rounded = np.clip(values * 255.0 + 0.5, 0, 255).astype(np.uint8)
    return rounded[nearest].reshape(texels.size, texels.size, -1)


def _mask(texels: Coverage, share: Float32, padding: npt.NDArray[np.int64]) -> UInt8:
    picture = paint(texels, share[:, None], padding)[..., 0]
    side = min(texels.size, _MASK_SIZE)
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


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


def _around(faces: Int32, value: Float32) -> Float32:
    """The largest of the values [V] at a vertex and its neighbours, float32 [V]: texels between a vertex on
    the surface and one off it are off it, too."""
    result = value.copy()
    np.maximum.at(result, faces.ravel(), np.repeat(value[faces].max(1), 3))
    return result


def _fill(vertices: Float32, faces: Int32, colour: Float32, doubt: Float32) -> Float32:
    """Colours [V, 3] with those of doubt [V] 1 continued from around; float32 [V, 3]."""
    middle = np.median(colour[doubt < 0.5], axis=0) if (doubt < 0.5).any() else np.full(3, 0.5)
    smooth = Membrane(vertices, faces, np.zeros_like(colour))
    filled = middle + smooth.span(colour - middle, 1.0 - doubt, 0.5 * _OFF_SURFACE[0], _FAR)
    return np.asarray(colour + doubt[:, None] * (filled - colour), np.float32)


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
