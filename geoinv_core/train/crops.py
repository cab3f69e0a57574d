"""Photo-like crops of drawn heads, as an encoder sees faces, with everything that is true about them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from geoinv_core import camera as cameras
from geoinv_core.encoder.config import INPUT
from geoinv_core.encoder.network import camera_of, pose_of
from geoinv_core.heads import SEGMENTS
from geoinv_core.train.augment import backgrounds, face_crop, jitter, occluders, photograph, resample
from geoinv_core.train.mouths import filled, flashed, lips_coloured

ANCHORS = ("eyeball_l", "eyeball_r", "mouth_l", "mouth_r")
"""Landmarks that a crop is laid by."""
MAX_YAW = 80.0  # degrees; beyond, a detector would not have found a face


@dataclass
class Crops:
    """Pictures as the encoder sees them, with everything that is true about them."""

    image: Tensor
    """[B, 3, S, S] in [-1, 1]"""
    pose: Tensor
    """[B, 6]"""
    view: Tensor
    """int64 [B] which view of the head was used"""
    cover: Tensor
    """[B, 1, S, S] where the head is, 0..1"""
    occlusion: Tensor
    """[B, 1, S, S] where something lies in front of it, 0..1"""
    ibug: Tensor | None
    """[B, 68, 2] landmarks in crop widths, None where the shard has none"""

    @property
    def targets(self) -> dict[str, Tensor]:
        """What can be learned of the crop beside the head's labels."""
        found = {"pose": self.pose, "cover": self.cover, "occlusion": self.occlusion}
        return found if self.ibug is None else found | {"ibug": self.ibug}


def crop_pose(camera: Tensor, matrix: Tensor) -> Tensor:
    """The pose [B, 7] of a crop of any camera's picture that shows the head near its middle.

    The camera is taken for one that looks at the origin, and what distinguishes their pictures for a
    similarity: roll, another focal length and a slight turn off the middle are that, up to perspective.

    Args: camera: [B, 25]. matrix: [B, 2, 3] from its picture to the crop.
    """
    at = camera[:, [3, 7, 11]]
    distance = at.norm(dim=1)
    yaw, pitch = torch.atan2(at[:, 0], at[:, 2]), torch.asin(at[:, 1] / distance)
    away = distance / cameras.RADIUS
    zero = torch.zeros_like(yaw)
    usual = camera_of(torch.stack([yaw, pitch, zero, zero, zero, zero, away.log()], 1))
    right = usual[:, [0, 4, 8]]
    probes = torch.stack([torch.zeros_like(right), 0.1 * right], 1)
    before, after = (cameras.project(c, probes)[0] for c in (usual, camera))
    span, moved = before[:, 1, 0] - before[:, 0, 0], after[:, 1] - after[:, 0]
    a, b = (moved / span[:, None]).unbind(1)
    linear = torch.stack([torch.stack([a, -b], 1), torch.stack([b, a], 1)], 1)
    offset = after[:, 0] - (linear @ before[:, 0, :, None])[..., 0]
    joined = matrix[:, :, :2] @ torch.cat([linear, offset[..., None]], 2)
    joined[:, :, 2] = joined[:, :, 2] + matrix[:, :, 2]
    return pose_of(yaw, pitch, joined, away)


def make_crops(
    batch: dict[str, Tensor], anchors: list[int], generator: torch.Generator, size: int = INPUT
) -> Crops:
    """One photo-like crop of every head, `size` pixels a side, from a view that shows its face."""
    B, V = batch["mask"].shape[:2]
    turned = torch.atan2(batch["camera"][..., 3], batch["camera"][..., 11])
    score = torch.rand(B, V, generator=generator) + (turned.abs() < math.radians(MAX_YAW))
    view = score.argmax(1)
    rows = torch.arange(B)
    camera = batch["camera"][rows, view]
    matrix = jitter(face_crop(batch["landmarks"][:, anchors], camera), generator)
    rgb = batch["rgb"][rows, view].permute(0, 3, 1, 2).float() / 255
    if "segment" in batch:
        rgb = flashed(rgb, batch["segment"][rows, view] == SEGMENTS.index("teeth"), generator)
    mask = batch["mask"][rows, view][:, None].float() / 255
    pose = crop_pose(camera, matrix)
    ibug = cameras.project(camera_of(pose), batch["ibug"])[0] if "ibug" in batch else None
    drawn = resample(torch.cat([rgb, mask], 1), matrix, size)
    image, cover = drawn[:, :3], drawn[:, 3:]
    if ibug is not None:
        image = lips_coloured(filled(image, ibug, generator), ibug, generator)
    behind = backgrounds(B, size, generator, rgb)
    keep = torch.rand(B, 1, 1, 1, generator=generator) < 0.2
    image = torch.where(keep, image, image * cover + behind * (1 - cover))
    image, occlusion = occluders(image, generator)
    image = photograph(image, generator)
    return Crops(image * 2 - 1, pose, view, cover, occlusion, ibug)
