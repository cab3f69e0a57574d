"""The true outer surface of a drawn head: exact signed distances, and points on it with normal and albedo.

The solid is the skin (with shirt and beard, without the lining of mouth and eye sockets while those are
hidden) and the eyeballs. Hair and grown beards have no inside and are not part of it; how much of them covers
a point of the skin is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoinv_core.heads.assets import HeadAssets
from geoinv_core.heads.geometry import HeadGeometry
from geoinv_core.heads.shading import Shader, Surface, to_srgb
from geoinv_core.mesh.closest import ClosestPoints
from geoinv_core.mesh.topology import boundary_loops, components

_OPEN_MOUTH = 0.008
"""World units (about 3 mm) between the lips from which the inside of the mouth counts as outside."""
_LIGHT = 0.15  # openness (baked for the mean head) above which a triangle lies outside
_MOUTH = (0.45, 7.12)  # decimetres: the lining lies between -x and x, below y; the eye sockets above
BARE = 0.3  # hair cover below which a point of the skin shows


@dataclass(frozen=True)
class SurfacePoints:
    """Points on the outer surface; tensors [N, ...] on the assets' device."""

    points: Tensor
    """float32 [N, 3] world"""
    normals: Tensor
    """float32 [N, 3] unit, of the faces, outward"""
    albedo: Tensor
    """float32 [N, 3] sRGB 0..1, unlit"""
    cover: Tensor
    """float32 [N] how much hair or grown beard covers the point, 0..1"""


class OuterSurface:
    """One head's outside in world units."""

    def __init__(self, assets: HeadAssets, geometry: HeadGeometry, shader: Shader | None = None) -> None:
        self.assets, self.geometry = assets, geometry
        self._shader = shader
        skin = geometry.parts[0]
        self.vid = assets.skin_corners[0].cpu().numpy()
        split = skin.triangles.cpu().numpy()
        vertices = np.zeros((len(assets.rest), 3))
        vertices[self.vid] = skin.vertices.cpu().numpy()
        self.vertices = vertices
        shown, lining, lips = hidden_parts(assets)
        if np.linalg.norm(vertices[lips[0]] - vertices[lips[1]]) > _OPEN_MOUTH:
            shown = shown | lining
        self.head: NDArray[np.bool_] = assets.arrays["skin_is_head"][shown]
        """[T] whether a triangle lies above the base of the neck"""
        self.split = split[shown]
        """int64 [T, 3] into the skin's split vertices"""
        self.triangles = self.vid[self.split]
        """int64 [T, 3] into `vertices` [V, 3], world"""
        cover = skin.extra[:, 1]
        if any(part.kind == "beard" for part in geometry.parts):
            cover = torch.maximum(cover, assets.beard[assets.skin_corners[0]])
        self.cover: NDArray[np.float32] = cover.cpu().numpy()[self.split]
        """[T, 3] how much hair or grown beard covers the corners, 0..1"""

    @cached_property
    def skin(self) -> ClosestPoints:
        """The skin alone, open at the neck's base and around the eyes."""
        return ClosestPoints(self.vertices, self.triangles)

    @cached_property
    def eyes(self) -> ClosestPoints:
        """The eyeballs as drawn: without the clear cornea."""
        part = self.geometry.parts[1]
        centre = part.uv[part.triangles].mean(1)
        opaque = (self.shader.opacity("eyes", centre.T) >= 0.5).cpu().numpy()
        triangles = self.assets.proxy("eyes").tri.cpu().numpy()
        welded = self.assets.proxy("eyes").vid.cpu().numpy()
        vertices = np.zeros((int(welded.max()) + 1, 3))
        vertices[welded] = part.vertices.cpu().numpy()
        return ClosestPoints(vertices, welded[triangles[opaque]])

    @cached_property
    def shader(self) -> Shader:
        return self._shader or Shader(self.assets, self.geometry)

    @cached_property
    def _closed(self) -> ClosestPoints:
        """The skin with a lid on each of its openings."""
        loops = boundary_loops(self.triangles)
        lids = [self.vertices[loop].mean(0) for loop in loops]
        fans = [
            np.stack([np.roll(loop, -1), loop, np.full(len(loop), len(self.vertices) + k)], 1)
            for k, loop in enumerate(loops)
        ]
        return ClosestPoints(np.concatenate([self.vertices, lids]), np.concatenate([self.triangles, *fans]))

    def signed_distance(self, points: Tensor) -> Tensor:
        """Signed distance [N] of world points [N, 3], negative inside, float32.

        Exact outside; inside, exact but behind the openings of eyes and mouth and near the base of the bust,
        where it is the distance to the lid that closes them.
        """
        at = points.detach().cpu().numpy()
        distance = np.minimum(self._closed.signed_distance(at), self.eyes.signed_distance(at))
        return torch.from_numpy(distance.astype(np.float32)).to(points.device)

    def sample(self, count: int, r: np.random.Generator, bare: bool = False) -> SurfacePoints:
        """Points spread evenly over the skin above the base of the neck, but for what lies inside the eyes.

        Args:
            bare: only where neither hair nor a grown beard covers it.
        """
        corner = self.vertices[self.triangles]
        area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
        area = area * self.head
        if bare:
            area = area * (self.cover.max(1) < BARE)
        chosen, weights = np.zeros(count, np.int64), np.zeros((count, 3), np.float32)
        drawn = np.arange(count)
        while len(drawn):
            chosen[drawn] = r.choice(len(area), len(drawn), p=area / area.sum())
            u, v = np.sqrt(r.random(len(drawn))), r.random(len(drawn))
            weights[drawn] = np.stack([1 - u, u * (1 - v), u * v], 1)
            position = (corner[chosen[drawn]] * weights[drawn, :, None]).sum(1)
            drawn = drawn[self._in_eyes(position)]
        return self._points(chosen, weights)

    def _in_eyes(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """[N] whether points [N, 3] lie inside an eyeball, where lids and tear ducts reach into it."""
        ball = self.eyes.vertices
        near: NDArray[np.bool_] = ((points > ball.min(0)) & (points < ball.max(0))).all(1)
        near[near] = self.eyes.signed_distance(points[near]) < 0
        return near

    def _points(self, chosen: NDArray[np.int64], weights: NDArray[np.float32]) -> SurfacePoints:
        part, device = self.geometry.parts[0], self.assets.device
        split = torch.from_numpy(self.split[chosen]).to(device)
        share = torch.from_numpy(weights).to(device)[..., None]

        def at(attribute: Tensor) -> Tensor:
            return (attribute[split] * share).sum(1)

        position = at(part.vertices)
        surface = Surface(at(part.normals).T, at(part.uv).T, at(part.extra).T, position.T)
        cover = (self.cover[chosen] * weights).sum(1)
        albedo, _ = self.shader.shade("skin", surface, position.new_tensor([0.0, 0.0, 2.7]))
        normals = torch.from_numpy(self.skin.face_normals[chosen].astype(np.float32)).to(device)
        return SurfacePoints(position, normals, to_srgb(albedo.T), torch.from_numpy(cover).to(device))

    @property
    def neck_y(self) -> float:
        """Mean world height of the base of the neck, where the bust begins."""
        rim = np.intersect1d(self.triangles[self.head], self.triangles[~self.head])
        return float(self.vertices[rim, 1].mean())


def hidden_parts(assets: HeadAssets) -> tuple[NDArray[np.bool_], NDArray[np.bool_], tuple[int, int]]:
    """What of the skin mesh lies outside.

    Returns: bool [T] outer triangles; bool [T] the lining of the mouth; base vertices in the middle of the
    upper and of the lower lip's inner rim.
    """
    triangles = assets.arrays["skin_tri"].astype(np.int64)
    open_to_light = assets.arrays["ao"][triangles].mean(1) >= _LIGHT * 255
    outer = np.zeros(len(triangles), bool)
    shown = np.flatnonzero(open_to_light)
    piece = components(triangles[shown].astype(np.int32), len(assets.arrays["rest"]))
    outer[shown[piece == np.bincount(piece).argmax()]] = True
    rest = assets.arrays["rest"]
    # Of the openings, the mouth is the one in the middle that is not the base of the bust.
    loops = sorted(boundary_loops(triangles[outer]), key=lambda loop: float(abs(rest[loop, 0].mean())))
    mouth = min(loops[:2], key=len)
    middle = mouth[np.argsort(np.abs(rest[mouth, 0]))[:2]]
    top, bottom = sorted(middle.tolist(), key=lambda v: -float(rest[v, 1]))
    lining = (
        ~outer & (np.abs(rest[triangles, 0].mean(1)) < _MOUTH[0]) & (rest[triangles, 1].mean(1) < _MOUTH[1])
    )
    return outer, lining, (top, bottom)
