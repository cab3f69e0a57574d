"""Held-out heads as drawn: what a model is measured against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoinv_core.camera import orbit, rays
from geoinv_core.head import BACKDROP
from geoinv_core.heads import HeadAssets, HeadGeometry, HeadLabels, Layers, Picture, build, picture
from geoinv_core.heads.shading import to_linear, to_srgb

REGIONS = ("face", "hair", "neck", "scalp")
"""Scalp is all other skin: the bare back of the head, and the ears."""
_SUPERSAMPLE = 2


@dataclass(frozen=True)
class TrueView:
    """One picture of a true head; arrays [S, S, ...]."""

    rgb: NDArray[np.float32]
    """[S, S, 3] sRGB 0..1 over the renderer's grey, so that thin hair shows the same in both"""
    mask: NDArray[np.float32]
    depth: NDArray[np.float32]
    """along the ray, world units, infinite outside"""
    normal: NDArray[np.float32]
    """[S, S, 3]"""
    region: NDArray[np.int64]
    """index into REGIONS, -1 outside"""
    camera: Tensor


@dataclass(frozen=True)
class TrueHead:
    """One head from several sides."""

    labels: HeadLabels
    geometry: HeadGeometry
    layers: Layers
    views: Mapping[str, TrueView]

    @property
    def unit_mm(self) -> float:
        return self.geometry.unit_mm


def draw_truth(assets: HeadAssets, labels: HeadLabels, views: Mapping[str, float], size: int) -> TrueHead:
    """Draw a head from orbit cameras; views: name to yaw in degrees."""
    with torch.no_grad():
        geometry = build(assets, [labels])[0]
        layers = Layers(assets, geometry)
        drawn = {n: view_of(assets, layers, orbit(yaw).to(assets.device), size) for n, yaw in views.items()}
    return TrueHead(labels, geometry, layers, drawn)


def view_of(assets: HeadAssets, layers: Layers, camera: Tensor, size: int) -> TrueView:
    p = picture(assets, layers, camera, size, _SUPERSAMPLE, background=False)
    behind = to_linear(torch.tensor(BACKDROP)) * (1 - p.mask[..., None])
    over = to_srgb(to_linear(p.rgb) + behind)
    region = _regions(p, layers.geometry.landmarks)
    rgb, mask, depth, normal = (x.cpu().numpy() for x in (over, p.mask, p.depth, p.normal))
    return TrueView(rgb, mask, depth, normal, region.cpu().numpy(), camera.cpu())


def _regions(p: Picture, landmarks: Mapping[str, Tensor]) -> Tensor:
    """Which region each pixel belongs to, by its place on the head; int64 [S, S].

    The neck begins below a line from the chin back to the mouth's height under the ears; the face ends at the
    ears.
    """
    size = len(p.depth)
    origins, directions = rays(p.camera[None], size)
    solid = torch.isfinite(p.depth)
    depth = torch.where(solid, p.depth, torch.zeros_like(p.depth))
    _, y, z = (origins[0] + directions[0] * depth.reshape(-1, 1)).view(size, size, 3).unbind(-1)
    ears = (landmarks["ear_l"][2] + landmarks["ear_r"][2]) / 2
    mouth, chin = (landmarks["mouth_l"][1] + landmarks["mouth_r"][1]) / 2, landmarks["chin"]
    forward = ((z - ears) / (chin[2] - ears)).clamp(0, 1)
    neck = y < mouth + (chin[1] - 0.015 - mouth) * forward
    region = torch.full_like(p.segment, REGIONS.index("scalp"))
    region[z > ears] = REGIONS.index("face")
    region[neck] = REGIONS.index("neck")
    region[p.segment == 7] = REGIONS.index("hair")
    region[~solid] = -1
    return region
