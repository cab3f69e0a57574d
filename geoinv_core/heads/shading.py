"""Materials and light: surface points to unlit albedo and lit colour, both linear.

A key light with a soft shadow map, a sky-to-ground ambient weighted by openness, a rim light from behind;
wrapped diffuse for skin and hair, one glossy lobe. Plain enough to be fast, rich enough that light is a
label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, normalize, pad

from geoinv_core.heads.assets import HeadAssets
from geoinv_core.heads.geometry import HeadGeometry, Part
from geoinv_core.heads.grown import BEARD, STYLES, THIN, Style
from geoinv_core.heads.labels import HeadLabels
from geoinv_core.heads.raster import rasterise

# Skin colours (sRGB) from light to dark, evenly spaced over the label skin_tone.
_TONES = ((247, 213, 194), (236, 192, 166), (214, 162, 130), (178, 122, 90), (128, 82, 58), (82, 53, 40))
_FACE = (slice(380, 640), slice(300, 430))  # rows, columns of the atlas: cheeks, for the mean skin colour
_BUMP = 0.004  # world units between twice as bright as around and as dark
_SHADOW_TAPS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (0.7, 0.7), (-0.7, 0.7), (0.7, -0.7), (-0.7, -0.7))


def to_linear(srgb: Tensor) -> Tensor:
    """sRGB 0..1 to linear (IEC 61966-2-1)."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp_min(0) + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: Tensor) -> Tensor:
    """Linear to sRGB 0..1, clipped."""
    c = linear.clamp(0, 1)
    return torch.where(c <= 0.0031308, c * 12.92, 1.055 * c.clamp_min(1e-6) ** (1 / 2.4) - 0.055)


def tone_map(linear: Tensor) -> Tensor:
    """A soft shoulder for bright light."""
    x = linear.clamp_min(0) * 0.92
    return x * (1 + x / 2.6) / (1 + x * 0.75)


def unit(vectors: Tensor) -> Tensor:
    """Normalised vectors [3, n]."""
    return vectors * torch.rsqrt(dot(vectors, vectors).clamp_min(1e-24))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products [n] of vectors [3, n]."""
    return (a * b).sum(0)


def sample_texture(texture: Tensor, uv: Tensor) -> Tensor:
    """Bilinear: texture [C, H, W], uv [2, n] (origin top left) to [C, n]."""
    grid = (uv * 2 - 1).T[None, None]
    return grid_sample(texture[None], grid, padding_mode="border", align_corners=False)[0, :, 0]


@dataclass
class Surface:
    """Interpolated attributes of the points to shade, all [., n]: what follows combines whole rows, which is
    several times faster on a CPU than triples."""

    normal: Tensor
    uv: Tensor
    extra: Tensor
    position: Tensor


class Shader:
    """Shades the parts of one head under its own light."""

    def __init__(self, assets: HeadAssets, geometry: HeadGeometry, shadow_size: int = 256) -> None:
        self.assets, self.labels = assets, geometry.labels
        labels, device = self.labels, assets.device
        self.hair_colour = to_linear(torch.tensor(labels.hair_colour, device=device))
        self.shirt = to_linear(torch.tensor(labels.shirt, device=device))
        self.skin = _toned_skin(assets, labels)
        self.relief = relief(assets, labels.skin)
        light = labels.light
        vector: Callable[[tuple[float, ...]], Tensor] = lambda v: torch.tensor(v, device=device)  # noqa: E731
        self.light = normalize(vector(light.direction), dim=0)
        self.key, self.sky, self.ground = vector(light.key), vector(light.sky), vector(light.ground)
        self.across, self.ahead = vector(light.across), vector(light.ahead)
        self.rim_direction = normalize(vector((light.rim_side * 0.8, 0.35, -0.5)), dim=0)
        self._shadow_map(geometry.parts, shadow_size)

    def _shadow_map(self, parts: list[Part], size: int) -> None:
        forward = -self.light
        right = normalize(torch.linalg.cross(forward, forward.new_tensor([0.0, 1.0, 0.0])), dim=0)
        self.to_light = torch.stack([right, torch.linalg.cross(forward, right), forward])
        casters = [p for p in parts if p.kind in ("skin", "hair", "glasses")]
        start, corners, triangles = 0, [], []
        for part in casters:
            corners.append(self._in_light(part.vertices, size))
            triangles.append(part.triangles + start)
            start += len(part.vertices)
        fragments = rasterise(torch.cat(corners), torch.cat(triangles), size, cull=False)
        far = torch.full((size * size,), 9.0, device=self.light.device)
        self.shadow = far.scatter_reduce(0, fragments.pixel, fragments.z, "amin").view(size, size)

    def _in_light(self, position: Tensor, size: int) -> Tensor:
        local = position @ self.to_light.T
        return torch.cat([(local[:, :2] / 1.3 + 0.5) * size, local[:, 2:] + 3], 1)

    def _visibility(self, position: Tensor) -> Tensor:
        """Share of the key light that arrives, [n]."""
        size = len(self.shadow)
        x, y, z = self._in_light(position.T, size).unbind(1)
        depth, edge = self.shadow.view(-1), z - 0.018
        reach = {d: d * self.labels.light.softness for tap in _SHADOW_TAPS for d in tap}
        columns = {d: (x + r).long().clamp_(0, size - 1) for d, r in reach.items()}
        rows = {d: (y + r).long().clamp_(0, size - 1).mul_(size) for d, r in reach.items()}
        blocked = torch.zeros_like(x)
        for dx, dy in _SHADOW_TAPS:
            at = depth.index_select(0, rows[dy] + columns[dx])
            blocked += (edge - at).mul_(1 / 0.012).clamp_(0, 1)
        return 1 - blocked / len(_SHADOW_TAPS)

    def opacity(self, kind: str, uv: Tensor, extra: Tensor | None = None) -> Tensor:
        """Alpha [n] of see-through parts; 1 elsewhere. Shells need `extra` (see `Part`)."""
        if extra is not None and (style := self._style(kind)):
            height, cover = extra[1], extra[2]
            tuft = self._tufts(style, uv)
            tip = (((style.share + (1 - style.share) * tuft) * 1.25 - height) * 5 + 0.5).clamp(0, 1)
            return tip * ((cover - THIN - 0.2 * (1 - tuft)) * 5).clamp(0, 1)  # tuft by tuft at the edge too
        if kind == "eyes":
            return sample_texture(self.assets.texture(f"eye_{self.labels.eyes}", "RGBA")[3:4], uv)[0]
        if kind == "hair":
            return sample_texture(self.assets.texture(f"hair_{self.labels.hair}", "LA")[1:2], uv)[0]
        if kind == "brow":
            cover = sample_texture(self.assets.texture(f"brow_{self.labels.brow}", "L"), uv)[0]
            return (cover * 1.8).clamp(max=0.95)
        if kind == "lash":
            return sample_texture(self.assets.texture(f"lash_{self.labels.lash}", "L"), uv)[0] * 0.75
        return torch.ones(uv.shape[1], device=uv.device)

    def _style(self, kind: str) -> Style | None:
        return BEARD if kind == "beard" else STYLES.get(self.labels.hair) if kind == "hair" else None

    def _tufts(self, style: Style, uv: Tensor) -> Tensor:
        """How far each tuft reaches [n], evenly spread over 0..1."""
        tiles = uv.new_tensor([style.tufts, style.tufts * (0.45 if style.tufts > 4 else 1)])
        return sample_texture(tufts(self.assets), uv * tiles[:, None] % 1)[0]

    def shade(self, kind: str, s: Surface, eye: Tensor) -> tuple[Tensor, Tensor]:
        """Albedo and lit colour, linear [3, n] each, seen from the world point `eye` [3]."""
        view = unit(eye[:, None] - s.position)
        normal = unit(s.normal)
        if kind == "skin":
            normal = self._bumped(normal, s)
        else:  # cards and shells have no inside
            normal = torch.where(dot(normal, view) < 0, -normal, normal)
        facing = dot(normal, view).clamp(0, 1)
        lit = self._visibility(s.position + normal * 0.006)
        openness = s.extra[0]
        wrap = normal.new_zeros(3, 1)
        exponent, strength = 20.0, cast("Tensor | float", 0.0)
        if kind == "skin":
            albedo, dry = self._skin_albedo(s)
            wrap = normal.new_tensor([[0.30], [0.14], [0.09]])
            openness = openness * (1 - 0.75 * s.extra[1])
            exponent, strength = 22.0, 0.055 * self.labels.gloss * dry
        elif kind == "eyes":
            albedo = (
                to_linear(sample_texture(self.assets.texture(f"eye_{self.labels.eyes}", "RGBA")[:3], s.uv))
                * 0.82
            )
            openness, exponent, strength = openness**1.3, 220.0, 0.22
        elif kind == "teeth":
            tint = normal.new_tensor([[1.15], [1.02], [0.90]])
            albedo = to_linear(sample_texture(self.assets.texture("teeth", "RGB"), s.uv)) * tint
            lit, openness, exponent, strength = lit * 0.5 + 0.25, openness.clamp_min(0.55), 40.0, 0.1
        elif kind == "tongue":
            albedo = to_linear(sample_texture(self.assets.texture("tongue", "RGB"), s.uv)) * 0.7
            lit, exponent, strength = lit * 0.4, 30.0, 0.05
        elif kind == "glasses":
            albedo = normal.new_tensor([[0.03], [0.028], [0.027]]).expand_as(normal)
            exponent, strength = 60.0, 0.35
        elif kind in ("hair", "beard"):
            value = self._hair_value(kind, s) / 0.4
            albedo = (self.hair_colour[:, None] * value**1.25).clamp(0, 1)
            wrap = normal.new_full((3, 1), 0.35)
            exponent, strength = 14.0, 0.10 * value * (0.4 + self.hair_colour.mean() * 2)
        else:  # brow, lash
            albedo = (self.hair_colour[:, None] * {"brow": 0.5, "lash": 0.15}[kind]).expand_as(normal)
        key, sky, ground, across, ahead = (
            x[:, None] for x in (self.key, self.sky, self.ground, self.across, self.ahead)
        )
        along = self.light @ normal
        diffuse = ((along + wrap) / (1 + wrap)).clamp_min(0)
        ambient = ground + (sky - ground) * (normal[1] * 0.5 + 0.5) + across * normal[0] + ahead * normal[2]
        ambient = (openness * ambient).clamp_min(0)
        colour = albedo * (ambient + key * diffuse * (lit * (0.35 + 0.65 * openness)))
        half = dot(normal, unit(self.light[:, None] + view)).clamp_min(0)
        fresnel = 0.3 + 0.7 * (1 - facing).square().square()
        lobe = (exponent + 8) / 12 * half**exponent * (along > 0)
        colour = colour + key * (lit * strength * fresnel * lobe)
        if kind in ("skin", "hair", "beard"):
            rim = (self.rim_direction @ normal).clamp_min(0) * (1 - facing).square()
            colour = colour + self.labels.light.rim * rim * (albedo * 0.6 + 0.12 * openness)
        if kind == "eyes":  # the window that every eye reflects
            mirrored = unit(2 * facing * normal - view)
            window = normal.new_tensor([[0.3], [0.55], [0.78]])
            colour = colour + 0.9 * sky * torch.exp(-(mirrored - window).square().sum(0) * 170)
        return albedo, colour

    def _bumped(self, normal: Tensor, s: Surface) -> Tensor:
        slope = sample_texture(self.relief, s.uv) * (1 - s.extra[4]).clamp(0, 1)
        tilt = slope[0] * s.extra[5:8] + slope[1] * s.extra[8:11]
        return unit(normal - (_BUMP * tilt).clamp(-0.5, 0.5))

    def _skin_albedo(self, s: Surface) -> tuple[Tensor, Tensor]:
        """Albedo [3, n] and how dry the surface is [n] (beard, scalp hair and shirt do not shine)."""
        beard, scalp, shirt = s.extra[2], s.extra[3], s.extra[4]
        hair = self.hair_colour[:, None]
        albedo = sample_texture(self.skin, s.uv)
        noise = sample_texture(stubble(self.assets), s.uv * 9 % 1)[0]
        beard = (beard * (1.1 + 0.9 * noise)).clamp(0, 1) ** 1.2 * 0.82
        scalp = (scalp * (0.95 + 0.8 * noise)).clamp(0, 1) * 0.85
        shirt = (shirt * 3 - 1).clamp(0, 1)
        albedo = albedo * (1 - beard) + hair * ((0.48 + 0.4 * noise) * beard)
        albedo = albedo * (1 - scalp) + hair * ((0.7 + 0.4 * noise) * scalp)
        albedo = albedo * (1 - shirt) + self.shirt[:, None] * shirt
        return albedo.clamp(0, 1), (1 - beard) * (1 - scalp) * (1 - shirt)

    def _hair_value(self, kind: str, s: Surface) -> Tensor:
        """Brightness detail [n], about 0.4 on average."""
        if style := self._style(kind):
            return 0.16 + 0.22 * s.extra[1] + 0.22 * self._tufts(style, s.uv)
        return sample_texture(self.assets.texture(f"hair_{self.labels.hair}", "LA")[:1], s.uv)[0]


def relief(assets: HeadAssets, skin: str) -> Tensor:
    """Gradient [2, H, W] over uv of a skin's height, read from its luminance: what is darker than its
    neighbourhood lies deeper (pores, wrinkles, the border of the lips)."""
    key = (f"skin_{skin}", "relief")
    if key not in assets._textures:
        grey = assets.texture(f"skin_{skin}", "RGB").mean(0)[None, None]
        around = avg_pool2d(avg_pool2d(pad(grey, (12,) * 4, "replicate"), (25, 1), 1), (1, 25), 1)
        height = pad((grey / around.clamp_min(0.05)).clamp(0.8, 1.15), (1,) * 4, "replicate")[0, 0]
        size = grey.shape[-1]
        assets._textures[key] = (size / 2) * torch.stack(
            [height[1:-1, 2:] - height[1:-1, :-2], height[2:, 1:-1] - height[:-2, 1:-1]]
        )
    return assets._textures[key]


def tufts(assets: HeadAssets) -> Tensor:
    """Tiling smooth noise [1, 256, 256], evenly spread over 0..1."""
    key = ("tufts", "noise")
    if key not in assets._textures:
        noise = torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(2))
        for width in (3, 5, 3):
            noise = avg_pool2d(pad(noise, (width // 2,) * 4, "circular"), width, 1)
        rank = noise.flatten().argsort().argsort().float() / noise.numel()
        assets._textures[key] = rank.view(1, 256, 256).to(assets.device)
    return assets._textures[key]


def stubble(assets: HeadAssets) -> Tensor:
    """Tiling noise [1, 256, 256], zero mean, for stubble and curls."""
    key = ("stubble", "noise")
    if key not in assets._textures:
        noise = torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(1))
        noise = avg_pool2d(pad(noise, (1, 1, 1, 1), "circular"), 3, 1)
        noise = (noise - noise.mean()) / noise.std() * 0.5
        assets._textures[key] = noise[0].clamp(-1, 1).to(assets.device)
    return assets._textures[key]


def _toned_skin(assets: HeadAssets, labels: HeadLabels) -> Tensor:
    """The skin texture, linear [3, H, W], with the mean colour that skin_tone asks for."""
    texture = to_linear(assets.texture(f"skin_{labels.skin}", "RGB"))
    at = labels.skin_tone * (len(_TONES) - 1)
    i = min(int(at), len(_TONES) - 2)
    tones = torch.tensor(_TONES, device=assets.device) / 255
    wanted = to_linear(tones[i] * (1 - (at - i)) + tones[i + 1] * (at - i))
    gain = wanted / texture[:, _FACE[0], _FACE[1]].mean((1, 2))
    return texture * gain.clamp(0.3, 2.2)[:, None, None]
