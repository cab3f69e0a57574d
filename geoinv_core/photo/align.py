"""From four points of a face to the square crop that the models are trained on.

The crop follows the recipe published with FFHQ (Karras et al. 2019, section on alignment): a square centred
a little below the eyes, sized by the larger of eye distance and eye-to-mouth distance, turned upright.

Positions are continuous, x right, y down, the centre of a picture's first pixel at (.5, .5). Left and right
are the subject's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

POINTS = ("eye_left", "eye_right", "mouth_left", "mouth_right")
"""What the crop is made from: eyeball centres and mouth corners."""

FACE_SHARE = 0.62
"""Side of the square around the face itself (brows to chin), in sides of the crop."""

Points = Mapping[str, Sequence[float]]
F64 = NDArray[np.float64]


def stack(points: Points | ArrayLike) -> F64:
    """Points by name, or already an array [..., 4, 2] in the order of POINTS, to float64 [..., 4, 2]."""
    if isinstance(points, Mapping):
        return np.array([[float(v) for v in points[name]] for name in POINTS], np.float64)
    array = np.asarray(points, np.float64)
    if array.shape[-2:] != (4, 2):
        raise ValueError(
            f"Points must have the shape [..., 4, 2] (two eyes, two mouth corners), got {array.shape}."
        )
    return array


def crop_square(points: Points | ArrayLike) -> tuple[F64, F64]:
    """The crop as a square in the picture.

    Args:
        points: as for `stack`, in pixels of the picture.
    Returns: centre [..., 2]; half [..., 2], the vector from the centre to the middle of the right edge, whose
        length is half the side and whose direction is the crop's x axis.
    """
    p = stack(points)
    eyes, mouth = p[..., :2, :].mean(-2), p[..., 2:, :].mean(-2)
    across = p[..., 0, :] - p[..., 1, :]  # the subject's left eye is on the right of the picture
    down = mouth - eyes
    # `down` turned a quarter: it runs along `across` in a frontal face and carries the direction in profile.
    side = np.stack([down[..., 1], -down[..., 0]], -1)
    swapped = (across * side).sum(-1, keepdims=True) < 0
    axis = np.where(swapped, -across, across) + side
    length = np.linalg.norm(axis, axis=-1, keepdims=True)
    half = np.maximum(2.0 * np.linalg.norm(across, axis=-1), 1.8 * np.linalg.norm(down, axis=-1))[..., None]
    if not (np.isfinite(length).all() and (length > 1e-9).all()):
        raise ValueError("Eyes and mouth must be at different places.")
    return eyes + 0.1 * down, axis / length * half


def matrix_of(centre: ArrayLike, half: ArrayLike, size: int) -> F64:
    """The affine map [..., 2, 3] from picture to crop pixels; see `crop_square`."""
    c, h = np.asarray(centre, np.float64), np.asarray(half, np.float64)
    scale = size / 2 / (h * h).sum(-1, keepdims=True)
    x = h * scale
    y = np.stack([-x[..., 1], x[..., 0]], -1)
    linear = np.stack([x, y], -2)
    offset = size / 2 - (linear @ c[..., None])[..., 0]
    return np.concatenate([linear, offset[..., None]], -1)


def crop_of_points(points: Points | ArrayLike, size: int) -> F64:
    """Eye and mouth points in a picture to the map onto the aligned crop.

    Args:
        points: {"eye_left": (x, y), ...} or an array [..., 4, 2] in the order of POINTS, picture pixels.
        size: side of the crop in pixels.
    Returns: float64 [..., 2, 3], picture pixels -> crop pixels: a turn, one scale and a shift.
    Raises: ValueError when the points coincide or are not finite.
    """
    return matrix_of(*crop_square(points), size)


def transform(matrix: ArrayLike, points: ArrayLike) -> F64:
    """Apply an affine map [2, 3] to points [..., 2]."""
    m = np.asarray(matrix, np.float64)
    moved: F64 = np.asarray(points, np.float64) @ m[:, :2].T + m[:, 2]
    return moved


def invert(matrix: ArrayLike) -> F64:
    """The inverse of an affine map [2, 3]."""
    m = np.asarray(matrix, np.float64)
    linear = np.linalg.inv(m[:, :2])
    return np.concatenate([linear, -(linear @ m[:, 2:])], 1)


def inside(matrix: ArrayLike, size: int, picture: tuple[int, int], share: float = 1.0) -> float:
    """How much of the crop's middle lies inside the picture, 0..1.

    Args:
        picture: (width, height); share: side of the middle square, in sides of the crop.
    """
    at = (np.arange(32) + 0.5) / 32 * share + (1 - share) / 2
    grid = np.stack(np.meshgrid(at, at), -1).reshape(-1, 2) * size
    back = transform(invert(matrix), grid)
    return float(((back >= 0) & (back <= np.array(picture))).all(-1).mean())


def resample(rgb: NDArray[np.uint8], matrix: ArrayLike, size: int) -> NDArray[np.uint8]:
    """Draw the crop: antialiased when it shrinks the picture, smooth when it enlarges it.

    Beyond the picture's border the crop shows its mirror image, which fades to a blur and then to the median
    colour, so that no hard edge appears and no second face either.

    Args:
        rgb: uint8 [H, W, 3]; matrix: float64 [2, 3] picture pixels -> crop pixels.
    Returns: uint8 [size, size, 3].
    """
    m = np.asarray(matrix, np.float64)
    factor = 1.0 / max(float(np.hypot(m[0, 0], m[1, 0])), 1e-9)
    # A shrinking crop is first drawn at about the picture's own scale, then reduced with a Lanczos filter.
    detail = int(np.clip(np.ceil(factor), 1, max(1, 4096 // size)))
    fine = size * detail
    to_fine = m * detail
    flags = cv2.INTER_LANCZOS4 if factor < 1 else cv2.INTER_CUBIC
    moved = _corner_origin(to_fine)
    large = cv2.warpAffine(rgb, moved, (fine, fine), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    if detail > 1:
        large = np.asarray(Image.fromarray(large).resize((size, size), Image.Resampling.LANCZOS))
    return _fade_outside(np.ascontiguousarray(large, np.uint8), m, size, (rgb.shape[1], rgb.shape[0]))


def shrunk(rgb: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """A picture [H, W, 3] made smaller, factor at most 1."""
    if factor >= 1:
        return rgb
    size = (max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _corner_origin(matrix: F64) -> F64:
    """OpenCV puts (0, 0) at the first pixel's centre; our positions start at its corner."""
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ np.array([0.5, 0.5]) - 0.5
    return shifted


def _fade_outside(
    crop: NDArray[np.uint8], matrix: F64, size: int, picture: tuple[int, int]
) -> NDArray[np.uint8]:
    at = np.arange(size) + 0.5
    back = transform(invert(matrix), np.stack(np.meshgrid(at, at), -1))
    beyond = np.maximum(-back, back - np.array(picture)).max(-1)
    if not (beyond > 0).any():
        return crop
    far = np.maximum(beyond, 0) * float(np.hypot(matrix[0, 0], matrix[1, 0])) / size  # crop sides
    known = crop[far <= 0]
    median = np.median(known, axis=0) if len(known) else np.full(3, 128.0)
    soft = cv2.GaussianBlur(crop, (0, 0), 0.04 * size, borderType=cv2.BORDER_REFLECT_101).astype(np.float64)
    to_soft = np.clip(far / 0.05, 0, 1)[..., None]
    to_median = np.clip((far - 0.05) / 0.3, 0, 1)[..., None]
    mixed = crop * (1 - to_soft) + soft * to_soft
    mixed = mixed * (1 - to_median) + median * to_median
    result: NDArray[np.uint8] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
    return result
