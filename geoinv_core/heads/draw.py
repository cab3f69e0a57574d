"""Labelled heads to pictures with their ground truth: colour, albedo, mask, depth, normals, segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from geoinv_core.heads.assets import HeadAssets
from geoinv_core.heads.geometry import HeadGeometry, build
from geoinv_core.heads.grown import STYLES
from geoinv_core.heads.labels import HeadLabels
from geoinv_core.heads.raster import Fragments, nearest, project, rasterise
from geoinv_core.heads.raster import interpolate as at_fragments
from geoinv_core.heads.shading import Shader, Surface, dot, to_linear, to_srgb, tone_map, unit

SEGMENTS = ("background", "skin", "eyes", "teeth", "tongue", "brow", "lash", "hair", "glasses")
_OPAQUE = ("skin", "eyes", "teeth", "tongue", "glasses")
_CLEAR = {"brow": "brow", "lash": "lash", "hair": "hair", "beard": "hair"}  # kind of part: its segment
_BIAS = {
    "brow": 0.02,
    "lash": 0.01,
    "hair": 0.002,
    "beard": 0.001,
}  # world units a layer may lie under the skin and still show


@dataclass(frozen=True)
class Picture:
    """One view of one head; all tensors [S, S, ...]."""

    rgb: Tensor
    """float32 [S, S, 3] sRGB 0..1, over the backdrop"""
    albedo: Tensor
    """float32 [S, S, 3] sRGB 0..1, unlit, zero outside the mask"""
    mask: Tensor
    """float32 [S, S] coverage of the head"""
    depth: Tensor
    """float32 [S, S] along the unit ray, world units, infinite outside"""
    normal: Tensor
    """float32 [S, S, 3] world, zero outside"""
    segment: Tensor
    """int64 [S, S] index into SEGMENTS"""
    camera: Tensor
    """float32 [25]"""


def draw(
    assets: HeadAssets,
    labels: Sequence[HeadLabels],
    cameras: Tensor,
    size: int,
    supersample: int = 2,
    background: bool = True,
) -> list[list[Picture]]:
    """Draw a batch of heads.

    Args:
        labels: B heads; cameras: float32 [B, V, 25]; size: pixels; supersample: samples per pixel and axis.
    Returns: B lists of V pictures, on the assets' device.
    """
    with torch.no_grad():
        return [
            [picture(assets, Layers(assets, g), camera, size, supersample, background) for camera in views]
            for g, views in zip(build(assets, labels), cameras.to(assets.device), strict=True)
        ]


class Layers:
    """One head's buffers, joined over its parts, with its shader; reused for all its views."""

    def __init__(self, assets: HeadAssets, geometry: HeadGeometry) -> None:
        self.geometry = geometry
        self.shader = Shader(assets, geometry)
        parts = geometry.parts
        self.vertices = torch.cat([p.vertices for p in parts])
        self.attributes = torch.cat(
            [
                torch.cat([p.normals for p in parts]),
                torch.cat([p.uv for p in parts]),
                torch.cat([p.extra for p in parts]),
                self.vertices,
            ],
            1,
        )
        self.cutout = self.attributes[:, 3:8].contiguous()  # uv and what else opacity asks for
        self.triangles: dict[str, Tensor] = {}
        start = 0
        for part in parts:
            self.triangles[part.kind] = part.triangles + start
            start += len(part.vertices)

    def surface(self, triangles: Tensor, fragments: Fragments) -> Surface:
        a = at_fragments(self.attributes, triangles, fragments)
        return Surface(a[:3], a[3:5], a[5:-3], a[-3:])

    def opacity(self, kind: str, fragments: Fragments) -> Tensor:
        """Alpha [n] of fragments of one kind of part."""
        a = at_fragments(self.cutout, self.triangles[kind], fragments)
        return self.shader.opacity(kind, a[:2], a[2:])


class _Canvas:
    """The supersampled buffers of a picture in the making, flat over pixels, colours and vectors in
    rows."""

    def __init__(self, size: int, device: torch.device, backdrop: Tensor) -> None:
        n = size * size
        self.rgb = backdrop.reshape(3, n).clone()
        self.albedo = torch.zeros(3, n, device=device)
        self.cover = torch.zeros(n, device=device)
        self.z = torch.full((n,), float("inf"), device=device)
        self.normal = torch.zeros(3, n, device=device)
        self.segment = torch.zeros(n, dtype=torch.int64, device=device)


def picture(
    assets: HeadAssets,
    layers: Layers,
    camera: Tensor,
    size: int,
    supersample: int = 2,
    background: bool = True,
) -> Picture:
    """One view of a head whose layers are at hand."""
    S = size * supersample
    empty = torch.zeros(3, S, S, device=assets.device)
    canvas = _Canvas(
        S, assets.device, backdrop(layers.geometry.labels.seed, S, assets.device) if background else empty
    )
    corners = project(layers.vertices, camera, S)
    eye = camera[:16].view(4, 4)[:3, 3]
    _draw_opaque(canvas, layers, corners, eye, S)
    _draw_transparent(canvas, layers, corners, eye, S)

    def pooled(x: Tensor) -> Tensor:
        image, k = x.view(-1, S, S), supersample
        rows = sum((image[:, i::k] for i in range(1, k)), start=image[:, ::k])
        whole = sum((rows[..., i::k] for i in range(1, k)), start=rows[..., ::k])
        return (whole / k**2).permute(1, 2, 0)

    def centre(x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], S, S)[
            ..., supersample // 2 :: supersample, supersample // 2 :: supersample
        ]

    cover = pooled(canvas.cover)
    albedo = pooled(canvas.albedo) / cover.clamp_min(1e-3)
    return Picture(
        to_srgb(pooled(tone_map(canvas.rgb))).contiguous(),
        to_srgb(albedo).contiguous(),
        cover[..., 0].clamp(0, 1),
        centre(canvas.z) * centre(_ray_length(camera, S)),
        centre(canvas.normal).permute(1, 2, 0).contiguous(),
        centre(canvas.segment),
        camera,
    )


def _ray_length(camera: Tensor, size: int) -> Tensor:
    """How far along its ray a point with camera z = 1 lies, [size * size]."""
    at = (torch.arange(size, device=camera.device) + 0.5) / size
    y, x = torch.meshgrid(at, at, indexing="ij")
    pixel = torch.stack([x, y, torch.ones_like(x)]).view(3, -1)
    local = torch.linalg.inv(camera[16:].view(3, 3)) @ pixel
    return dot(local, local).sqrt()


def _draw_opaque(canvas: _Canvas, layers: Layers, corners: Tensor, eye: Tensor, S: int) -> None:
    kinds = [k for k in _OPAQUE if k in layers.triangles]
    triangles = torch.cat([layers.triangles[k] for k in kinds])
    kind = torch.cat(
        [torch.full((len(layers.triangles[k]),), i, device=triangles.device) for i, k in enumerate(kinds)]
    )
    fragments = rasterise(corners, triangles, S, cull=True)
    eyes = (kind[fragments.triangle] == kinds.index("eyes")).nonzero()[:, 0]
    if len(eyes):  # the clear cornea is dropped before the depth test
        uv = layers.surface(triangles, fragments.keep(eyes)).uv
        solid = torch.ones(len(fragments.z), dtype=torch.bool, device=triangles.device)
        solid[eyes] = layers.shader.opacity("eyes", uv) >= 0.5
        fragments = fragments.keep(solid.nonzero()[:, 0])
    pixel, front = nearest(fragments, S * S)
    fragments = fragments.keep(front)
    surface = layers.surface(triangles, fragments)
    which = kind[fragments.triangle]
    for i, name in enumerate(kinds):
        here = (which == i).nonzero()[:, 0]
        if len(here):
            part = Surface(*(x[:, here] for x in vars(surface).values()))
            at = pixel[here]
            canvas.albedo[:, at], canvas.rgb[:, at] = layers.shader.shade(name, part, eye)
    canvas.cover[pixel] = 1
    canvas.z[pixel] = fragments.z
    canvas.normal[:, pixel] = unit(surface.normal)
    segments = torch.tensor([SEGMENTS.index(k) for k in kinds], device=which.device)
    canvas.segment[pixel] = segments[which]


def _draw_transparent(canvas: _Canvas, layers: Layers, corners: Tensor, eye: Tensor, S: int) -> None:
    """Brows, lashes and hair, composited exactly front to back; hair's half-opaque crossing becomes the
    surface."""
    found: list[tuple[Fragments, Tensor]] = []
    names = [name for name in _CLEAR if name in layers.triangles]
    for name in names:
        shells = name == "beard" or layers.geometry.labels.hair in STYLES
        cull = shells and name in ("hair", "beard")  # of shells the inside never shows
        fragments = rasterise(corners, layers.triangles[name], S, cull, canvas.z, _BIAS[name])
        found.append((fragments, layers.opacity(name, fragments)))
    shown = [(alpha > 0.03).nonzero()[:, 0] for _, alpha in found]
    kind = torch.cat([torch.full_like(index, i) for i, index in enumerate(shown)])
    if not len(kind):
        return
    alpha = torch.cat([a[index] for (_, a), index in zip(found, shown, strict=True)]).clamp(max=0.999)
    fragments = Fragments(
        *(
            torch.cat(x)
            for x in zip(*(f.keep(index) for (f, _), index in zip(found, shown, strict=True)), strict=True)
        )
    )
    order = torch.argsort((fragments.pixel << 32) | (fragments.z * 2**26).long())
    pixel, alpha = fragments.pixel[order], alpha[order]
    # Transmittance in front of each fragment: a running sum of logarithms that restarts with every pixel.
    passed = torch.log1p(-alpha).double()
    total = passed.cumsum(0)
    first = torch.ones_like(alpha, dtype=torch.bool)
    first[1:] = pixel[1:] != pixel[:-1]
    start = (total - passed)[first.nonzero()[:, 0]][first.long().cumsum(0) - 1]
    transmittance = torch.exp(total - passed - start).float()
    seen = (transmittance * alpha > 0.008).nonzero()[:, 0]  # shade only what shows
    order, alpha, transmittance = order[seen], alpha[seen], transmittance[seen]
    fragments, kind = fragments.keep(order), kind[order]
    weight = transmittance * alpha
    albedo, colour, normal, position = (torch.zeros(3, len(alpha), device=alpha.device) for _ in range(4))
    hair = torch.zeros_like(alpha, dtype=torch.bool)
    for i, name in enumerate(names):
        here = (kind == i).nonzero()[:, 0]
        if len(here):
            surface = layers.surface(layers.triangles[name], fragments.keep(here))
            albedo[:, here], colour[:, here] = layers.shader.shade(name, surface, eye)
            normal[:, here], position[:, here] = surface.normal, surface.position
            hair[here] = _CLEAR[name] == "hair"
    pixel = fragments.pixel

    def summed(values: Tensor) -> Tensor:
        return torch.zeros_like(canvas.cover).index_add_(0, pixel, values * weight)

    cover = summed(torch.ones_like(weight))
    canvas.rgb = canvas.rgb * (1 - cover) + torch.stack([summed(row) for row in colour])
    canvas.albedo = canvas.albedo * (1 - cover) + torch.stack([summed(row) for row in albedo])
    canvas.cover = torch.maximum(canvas.cover, cover)
    half = hair & (transmittance >= 0.5) & (transmittance * (1 - alpha) < 0.5)
    half = (half & (fragments.z < canvas.z[pixel])).nonzero()[:, 0]
    at = pixel[half]
    canvas.z[at], canvas.segment[at] = fragments.z[half], SEGMENTS.index("hair")
    towards = unit(normal[:, half])
    view = unit(eye[:, None] - position[:, half])
    canvas.normal[:, at] = torch.where(dot(towards, view) < 0, -towards, towards)


def backdrop(seed: int, size: int, device: torch.device) -> Tensor:
    """A soft two-colour backdrop, linear [3, size, size]."""
    r = np.random.default_rng([20262, seed])
    noise = torch.from_numpy(r.normal(size=(1, 1, 5, 5)).astype(np.float32)).to(device)
    t = torch.sigmoid(interpolate(noise, size=(size, size), mode="bicubic", align_corners=True)[0, 0] * 1.3)
    first, second = (
        to_linear(
            torch.tensor(np.clip(r.uniform(0.05, 0.95) + r.normal(0, 0.12, 3), 0, 1).astype(np.float32))
        )
        for _ in range(2)
    )
    first, second = (c.to(device)[:, None, None] for c in (first, second))
    return first * t + second * (1 - t)
