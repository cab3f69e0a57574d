"""A head without its glasses, and its photo without their frames.

Frames are thinner than what planes can hold, so they come out in pieces; and a mesh of a face wants no frames
painted on its skin. The labels say that there are glasses, the photo where: dark lines around the eyes that
the same head drawn without them does not have.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING:
    from geoinv_core.head import Head

_SIZE = 256
"""Side of the compared pictures, pixels; all that follows is in pixels of them."""
_CHANGED = 0.2
"""Difference of a colour (sRGB) that tells where the model has its own glasses."""
_AROUND, _BETWEEN = 25, 41
"""How far beyond those the photo's may lie, and how wide the gaps between pieces are."""
_THICK = 19
"""Frames are thinner."""
_DARK = 0.1
"""How much darker than their surroundings lines are."""
_OWN = 7
"""How far brows and lids of the drawing may lie from the photo's."""
_SPECK = 25
"""Fewer pixels are no frame."""
_MARGIN, _FILL = 5, 7

Picture = npt.NDArray[np.uint8]


def bared(head: Head) -> Head:
    """The head without glasses; the same head where it wears none (or its model knows of none)."""
    if head.original is not None:
        plain = bared(head.original)
        return head if plain is head.original else plain.edit(head.edits)
    space, now = head.model.label_space, head.inversion
    if space is None or space.choices(now.c[0]).get("glasses", "none") == "none":
        return head
    c = space.with_choice(now.c[0], "glasses", "none")[None]
    with torch.inference_mode():
        moved = head.generator.map(now.z, c) - head.generator.map(now.z, now.c)
    found = replace(now, c=c, w_plus=(now.w_plus + moved).clone(), detail=None)
    bare = replace(head, inversion=found)
    if now.photo is None:
        return bare
    photo = _filled(now.photo, _frames(replace(head, inversion=replace(now, detail=None)), bare, now.photo))
    bare = replace(head, inversion=replace(found, photo=photo))
    if now.detail is None or head.model.detail is None:
        return bare
    image = torch.from_numpy(photo).permute(2, 0, 1)[None].float().to(head.model.device) / 127.5 - 1
    return bare.detailed(head.model.detail, image)


def _frames(worn: Head, bare: Head, photo: Picture) -> npt.NDArray[np.uint8]:
    """Where a photo shows frames, uint8 0 or 1 [_SIZE, _SIZE]."""
    drawn, plain = (one.look(one.camera, _SIZE)[0] for one in (worn, bare))
    changed = np.abs(drawn - plain).max(2) > _CHANGED
    zone = cv2.dilate(changed.astype(np.uint8), _disc(_AROUND))
    zone = cv2.morphologyEx(zone, cv2.MORPH_CLOSE, _disc(_BETWEEN))
    small = cv2.resize(photo, (_SIZE, _SIZE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    own = cv2.dilate(_dark_lines(plain), np.ones((_OWN, _OWN), np.uint8))
    lines = ((_dark_lines(small) - own > _DARK) & (zone > 0)).astype(np.uint8)
    _, number, about, _ = cv2.connectedComponentsWithStats(lines, connectivity=8)
    large = about[:, cv2.CC_STAT_AREA] >= _SPECK
    large[0] = False  # what is no line
    return np.asarray(large[number], np.uint8)


def _dark_lines(picture: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """How much darker than what lies on both sides, for thin things; of colours [S, S, 3] in 0..1."""
    grey = cv2.cvtColor(picture.astype(np.float32), cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, _disc(_THICK)), np.float32)


def _disc(side: int) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _filled(photo: Picture, frames: npt.NDArray[np.uint8]) -> Picture:
    """The photo with frames and a margin filled in from around them (Telea 2004)."""
    wide = cv2.dilate(frames, np.ones((_MARGIN, _MARGIN), np.uint8))
    side = photo.shape[0]
    mask = cv2.resize(wide, (side, side), interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.inpaint(photo, mask, _FILL, cv2.INPAINT_TELEA), np.uint8)
