"""A photo read: the encoder's answer, brought nearer to what the photo shows before anything is optimised."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from geoinv_core.edit import Labels
from geoinv_core.encoder import Encoded, Encoder
from geoinv_core.encoder.network import camera_of
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.heads.skin import skin_of
from geoinv_core.invert.form import formed
from geoinv_core.invert.hair import hair_coloured, hair_styled
from geoinv_core.invert.settle import settle
from geoinv_core.invert.shown import shown, silhouette


@dataclass(frozen=True)
class Answer:
    """What is known of a photo's head, with its code and planes."""

    found: Encoded
    ws: Tensor
    planes: Tensor
    front: Tensor | None
    """[1, 1, R, R] 1 where nothing lies in front of the head, to 0; None: nowhere"""
    hidden: float
    """share of the head that something lies in front of"""
    mask: Tensor | None
    """[1, 1, R, R] how much of the photo shows the head, 0..1, and nothing before or beside it; None: all"""


@torch.inference_mode()
def read(generator: TriplaneGenerator, encoder: Encoder, space: Labels | None, photo: Tensor) -> Answer:
    """Form and camera follow from the encoder's landmarks, then the camera and the hair's style and colour
    from what the head looks like.

    Args: space: the labels of both. photo: [1, 3, S, S] sRGB in -1..1.
    """
    found = encoder(photo)
    front, hidden = shown(found)
    mask = silhouette(found, front)
    skin = None if space is None else skin_of(space.layout)
    if skin is not None:
        found = formed(found, skin.to(photo.device), front)
    ws = generator.map(found.z, found.c) + found.delta
    planes = generator.planes(ws)
    if found.pose_spread is None or space is None:
        return Answer(found, ws, planes, front, hidden, mask)
    field = generator.colour_field(planes, ws)
    pose = settle(generator, field, photo, found.pose, found.pose_spread, front)
    found = replace(found, pose=pose, camera=camera_of(pose))
    for fit in (hair_styled, hair_coloured):
        other = fit(generator, found, field, photo, space, front)
        if other is not None:
            found, ws = other, generator.map(other.z, other.c) + other.delta
            planes = generator.planes(ws)
            field = generator.colour_field(planes, ws)
    return Answer(found, ws, planes, front, hidden, mask)
