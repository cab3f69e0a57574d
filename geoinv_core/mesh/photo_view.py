"""A head's photo as the baker wants it: pixels, camera, depth, and where it shows this head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from geoinv_core.mesh.bake import PhotoView, field_colour
from geoinv_core.mesh.cutout import cut_out

if TYPE_CHECKING:
    from geoinv_core.head import Head
    from geoinv_core.render.field import Field

_VIEW = 192
_MOVED = (0.004, 0.012)
"""World units that an edit may move the surface before the photo's pixels no longer fit it: none, all."""
_DARK = 0.05
"""sRGB that is added before colours are divided: noise of dark places is no hue."""


def photo_view(head: Head, field: Field) -> PhotoView | None:
    """The photo as this head would show it; None for a head without a photo.

    For an edited head the photo is changed by the ratio of the edited to the unedited rendering (after
    "expressive expression mapping with ratio images", Liu et al. 2001), and left out where the edit moved the
    surface.
    """
    if head.inversion.photo is None:
        return None
    image, camera = head.inversion.photo, head.camera
    after, depth, opacity = head.look(camera, _VIEW)
    if head.original is None:
        mask = cut_out(image, opacity)
    else:
        before, old_depth, old_opacity = head.original.look(camera, _VIEW)
        shown = cv2.resize(cut_out(image, old_opacity), (_VIEW, _VIEW), interpolation=cv2.INTER_LINEAR)
        moved = cv2.GaussianBlur(np.abs(depth - old_depth), (0, 0), 1.5)
        low, high = _MOVED
        mask = np.minimum(opacity, shown) * (1 - ((moved - low) / (high - low)).clip(0, 1))
        size = image.shape[0]
        ratio = cv2.GaussianBlur((after + _DARK) / (before + _DARK), (0, 0), 1.0).clip(0.4, 2.5)
        ratio, goal = (cv2.resize(x, (size, size), interpolation=cv2.INTER_LINEAR) for x in (ratio, after))
        image = changed(image, ratio.astype(np.float32), goal.astype(np.float32))
    if head.inversion.mask is not None:
        shown = head.inversion.mask[0, 0].cpu().numpy()
        mask = mask * cv2.resize(shown, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
    depth = np.where(opacity > 0.5, depth, np.inf).astype(np.float32)
    lit = field_colour(field, 0) if field.feature_count >= 6 else None
    return PhotoView(image, camera.numpy(), depth, mask, lit)


def changed(
    image: NDArray[np.uint8], ratio: NDArray[np.float32], goal: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """A photo under an edit's ratio image: [S, S, 3] sRGB.

    A pixel's hue moves towards the edited head's, and not past it: fair strands over the model's brown hair
    would turn blue by what makes the brown grey.

    Args: ratio: [S, S, 3] edited over unedited. goal: [S, S, 3] the edited head, 0..1.
    """
    before = np.log(image.astype(np.float32) / 255 + _DARK)
    after = before + np.log(ratio)
    wanted = np.log(goal.clip(0, 1) + _DARK)
    own, hue, aim = (x - x.mean(2, keepdims=True) for x in (before, after, wanted))
    hue = hue.clip(np.minimum(own, aim), np.maximum(own, aim))
    brightness = after.mean(2, keepdims=True)
    return np.asarray(((np.exp(brightness + hue) - _DARK) * 255 + 0.5).clip(0, 255), np.uint8)
