"""The photo's own pixels on the surface that the photo sees, blended into the field's colours.

All colours here are sRGB-encoded floats in 0..1: equal steps look equal, so feathering leaves no dark rims.

Every texel gets a weight in 0..1 for the photo: the product of what the camera sees (depth test), how
squarely it sees it (angle), how far the pixel is from a silhouette (a slightly wrong outline would paint
background on the head) and, near silhouettes, whether photo and field agree on the colour at all. Where the
weight falls, the colour does not fall back to the field's own: the ratio of photo to field is continued
smoothly over the rest of the surface, in space rather than in the texture, so that no border shows at the
blend nor at the charts' edges. This is the membrane of Poisson blending, by pull-push instead of a solver.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.raster import camera_position, project_points

Float32 = npt.NDArray[np.float32]

_EDGE = (0.012, 0.06)
"""Distance to the head's outline, in picture widths, where the photo's weight starts and is full."""
_INNER_EDGE = (0.006, 0.024)
"""The same for outlines within the head, such as the nose's in front of a cheek."""
_COSINE = (0.2, 0.55)
"""Cosine between normal and view, likewise: below .2 a pixel stretches over five texel lengths."""
_DEPTH_TOLERANCE = 0.02
"""World units that a texel may lie behind the depth map (8 mm on a head)."""
_STEP = 0.05
"""A jump of depth within three pixels that is an outline and no slope, world units at 128 pixels."""
_DISAGREE = (0.18, 0.35)
"""Colour distance between the smoothed photo and the matched field where background is suspected."""
_CELLS, _TONES = 32, 6
"""Resolution of the grid that carries the photo's tone on: along each axis of space, and of lightness."""
_DARK = 0.06
"""Added to colours before they are divided, so that the noise of dark pixels is not amplified."""


@dataclass(frozen=True)
class Blended:
    """colour: float32 [N, 3] sRGB-encoded 0..1. weight: float32 [N], the photo's share."""

    colour: Float32
    weight: Float32


def blend_photo(
    texel_points: Float32,
    texel_normals: Float32,
    field_albedo: Float32,
    photo: npt.NDArray[np.uint8],
    camera: npt.NDArray[Any],
    depth: Float32,
    mask: npt.NDArray[Any] | None = None,
    shading: Float32 | None = None,
) -> Blended:
    """Colours for texels from a photo and a field.

    Args:
        texel_points: world [N, 3]; texel_normals: unit, outward [N, 3].
        field_albedo: [N, 3] sRGB-encoded 0..1.
        photo: uint8 [S, S, 3] sRGB, the crop that `camera` [25] describes.
        depth: [R, R] distance along the ray from that camera, of the mesh or the field; not finite or <= 0
            where there is no head.
        mask: [M, M], above 0.5 (or True) where the photo shows the head; None: wherever depth is.
        shading: [N, 3] linear light that falls on each texel relative to its albedo (1 = unchanged); the
            photo is divided by it. None: the photo is taken as it is.
    """
    position, distance = project_points(camera, texel_points)
    seen = _sample(_reliability(depth, mask), position)[:, 0]
    away = camera_position(camera) - texel_points
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)
    cosine = np.einsum("ij,ij->i", away, texel_normals)
    behind = distance - _sample(_farthest_nearby(depth), position)[:, 0]
    weight = seen * _smooth_step(cosine, *_COSINE)
    weight *= 1.0 - _smooth_step(behind, _DEPTH_TOLERANCE, 2 * _DEPTH_TOLERANCE)
    weight *= ((position > 0) & (position < 1)).all(1)

    picture = photo.astype(np.float32) / 255.0
    colour = np.clip(_sample(picture, position, cv2.INTER_CUBIC), 0.0, 1.0)
    if shading is not None:
        light = np.clip(shading, 0.35, 2.5)
        colour = to_srgb(to_linear(colour) / light)
    if weight.max(initial=0.0) <= 0.0:
        return Blended(np.clip(field_albedo, 0.0, 1.0), np.zeros(len(weight), np.float32))
    weight *= _agreement(picture, position, colour, field_albedo, weight)
    matched = _continue_in_space(texel_points, field_albedo, colour, weight)
    mixed = weight[:, None] * colour + (1.0 - weight[:, None]) * matched
    return Blended(np.clip(mixed, 0.0, 1.0).astype(np.float32), weight.astype(np.float32))


def to_linear(encoded: npt.NDArray[Any]) -> Float32:
    """sRGB-encoded 0..1 to linear light (IEC 61966-2-1)."""
    value = np.asarray(encoded, np.float32)
    return np.where(value <= 0.04045, value / 12.92, ((np.maximum(value, 0.0) + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: npt.NDArray[Any]) -> Float32:
    """Linear light to sRGB-encoded, clipped to 0..1."""
    value = np.clip(np.asarray(linear, np.float32), 0.0, 1.0)
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * np.maximum(value, 1e-9) ** (1 / 2.4) - 0.055)


def _reliability(depth: Float32, mask: npt.NDArray[Any] | None) -> Float32:
    """How far each pixel is from outlines and holes, as a weight 0..1, float32 [R, R]."""
    size = depth.shape[0]
    head = np.isfinite(depth) & (depth > 0)
    if mask is not None:
        resized = cv2.resize(np.asarray(mask, np.float32), (size, size), interpolation=cv2.INTER_AREA)
        head &= resized > 0.5
    cross = np.ones((3, 3), np.uint8)
    highest = cv2.dilate(np.where(head, depth, -1e6).astype(np.float32), cross)
    lowest = cv2.erode(np.where(head, depth, 1e6).astype(np.float32), cross)
    smooth = highest - lowest < max(_STEP * 128 / size, 0.012)
    weight = _smooth_step(_distance_inside(head), *_EDGE)
    weight *= _smooth_step(_distance_inside(smooth | ~head), *_INNER_EDGE)
    return np.asarray(cv2.GaussianBlur(weight, (0, 0), max(size / 200, 0.8)), np.float32)


def _distance_inside(region: npt.NDArray[np.bool_]) -> Float32:
    """Distance to the region's border in picture widths; the picture's own border counts. float32 [R, R]."""
    padded = np.pad(region, 1).astype(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance[1:-1, 1:-1] / len(region), np.float32)


def _farthest_nearby(depth: Float32) -> Float32:
    """The largest depth in 3x3 pixels (empty ones ignored), so that a slope does not hide itself."""
    filled = np.where(np.isfinite(depth) & (depth > 0), depth, 0.0).astype(np.float32)
    return np.asarray(cv2.dilate(filled, np.ones((3, 3), np.uint8)), np.float32)


def _agreement(
    picture: Float32, position: Float32, colour: Float32, field_albedo: Float32, weight: Float32
) -> Float32:
    """1 where photo and field can show the same thing, float32 [N], after matching their mean colours."""
    core = weight > 0.8 * weight.max()
    offset = np.median(colour[core] - field_albedo[core], axis=0)
    low = np.asarray(cv2.GaussianBlur(picture, (0, 0), picture.shape[0] / 64), np.float32)
    residual = np.linalg.norm(_sample(low, position) - field_albedo - offset, axis=1)
    # the core of the view is trusted: there the photo knows better than a blurry field
    doubt = _smooth_step(residual, *_DISAGREE) * (1.0 - _smooth_step(weight, 0.5, 0.95))
    return np.asarray(1.0 - doubt, np.float32)


def _continue_in_space(points: Float32, base: Float32, target: Float32, weight: Float32) -> Float32:
    """`base` [N, 3] moved to the tone of `target` [N, 3], which is known with `weight` [N]; float32 [N, 3].

    The ratio target / base is continued by normalised Gaussian averages on a bilateral grid (space and the
    lightness of `base`, so that skin's change does not tint hair), from wide to narrow; a narrower average
    takes over where it has data.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates

    shape = (_CELLS, _CELLS, _CELLS, _TONES)
    low = points.min(0)
    cell = float((points.max(0) - low).max()) / (_CELLS - 1) + 1e-9
    tone = np.clip(base @ np.array([0.3, 0.6, 0.1], np.float32), 0.0, 1.0) * (_TONES - 1)
    at = np.concatenate([(points - low) / cell, tone[:, None]], 1).T
    index = np.ravel_multi_index(tuple(np.rint(at).astype(np.int64)), shape)
    total = int(np.prod(shape))
    ratio = np.log((target + _DARK) / (base + _DARK))
    known = weight**2  # half-trusted texels should not colour what lies beyond them
    amounts = [np.bincount(index, known, total)]
    amounts += [np.bincount(index, known * ratio[:, i], total) for i in range(3)]
    # charts have unequal texel densities: a cell counts once, by how well it is known
    count = np.maximum(np.bincount(index, minlength=total), 1)
    grids = [(amount / count).reshape(shape).astype(np.float32) for amount in amounts]
    mean = np.array([grid.sum() for grid in grids[1:]]) / max(float(grids[0].sum()), 1e-9)
    result = [np.full(shape, 0.5 * m, np.float32) for m in mean]  # far away only half is believed
    for sigma in (8.0, 4.0, 2.0, 1.0):
        blurred = [gaussian_filter(grid, (sigma, sigma, sigma, 0.7), mode="constant") for grid in grids]
        # a flat patch that is seen in full fills about 1 / (2.5 sigma) of a Gaussian ball
        trust = np.clip(blurred[0] * 2.5 * sigma / 0.15, 0.0, 1.0)
        inverse = 1.0 / np.maximum(blurred[0], 1e-9)
        for i in range(3):
            result[i] += trust * (blurred[i + 1] * inverse - result[i])
    gain = np.stack([map_coordinates(grid, at, order=1, mode="nearest") for grid in result], 1)
    return np.asarray((base + _DARK) * np.exp(gain) - _DARK, np.float32)


def _sample(picture: Float32, position: Float32, interpolation: int = cv2.INTER_LINEAR) -> Float32:
    """A picture [S, S] or [S, S, C] at positions [N, 2] in widths, float32 [N, C]; borders are repeated."""
    height, width = picture.shape[:2]
    # OpenCV wants maps of fewer than 32768 rows and columns
    side = 4096
    padded = np.zeros((-(-max(len(position), 1) // side) * side, 2), np.float32)
    padded[: len(position)] = position * (width, height) - 0.5
    maps = padded.reshape(-1, side, 2)
    rows = [
        cv2.remap(picture, block[..., 0], block[..., 1], interpolation, borderMode=cv2.BORDER_REPLICATE)
        for block in np.split(maps, range(8192, len(maps), 8192))
    ]
    found = np.concatenate(rows).reshape(side * len(maps), -1)
    return np.asarray(found[: len(position)], np.float32)


def _smooth_step(value: npt.NDArray[Any], low: float, high: float) -> Float32:
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), np.float32)
