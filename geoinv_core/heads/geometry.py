"""Labels to geometry: morphed base mesh, proxies that ride on it, and the similarity to world units.

World frame: x = the subject's left = right in the frontal image, y up, the face looks along +z; the frontal
camera (radius 2.7, focal 4.2647) sees an FFHQ-like crop of the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geoinv_core.camera import FOCAL, RADIUS
from geoinv_core.heads import glasses, grown
from geoinv_core.heads.assets import HeadAssets, Proxy
from geoinv_core.heads.labels import HeadLabels

EXTRA = 11
BEARD_HEIGHT, SHIRT_HEIGHT = 0.035, 0.05  # decimetres
STOUT = {
    "head-fat": 1.0,
    "neck-double": 0.8,
    "cheek-volume": 0.6,
    "cheek-inner": 0.3,
    "neck-scale-horiz": 0.4,
    "neck-scale-depth": 0.3,
}
"""What a weight of 1 adds to a face's features: the data's own targets for it move little but the body."""
_CHILD_TO_YOUNG, _YOUNG_TO_OLD = (11.0, 25.0), (25.0, 83.0)  # years of the data's age stages


@dataclass(frozen=True)
class Part:
    """One material of a head. Vertices are split at uv seams."""

    kind: str
    """skin, eyes, teeth, tongue, glasses, brow, lash, hair or beard"""
    vertices: Tensor
    """float32 [V, 3] world"""
    normals: Tensor
    """float32 [V, 3] unit"""
    triangles: Tensor
    """int64 [T, 3]"""
    uv: Tensor
    """float32 [V, 2], origin top left"""
    extra: Tensor
    """float32 [V, EXTRA]: ambient openness, hair shadow, beard, scalp hair, shirt, and the gradients of u and
    of v over the skin (3 each, per world unit). Of shells: openness, height, cover."""


@dataclass(frozen=True)
class HeadGeometry:
    """A head in world units."""

    labels: HeadLabels
    parts: list[Part]
    landmarks: dict[str, Tensor]
    """name to float32 [3] world; eyeballs, mouth corners, nose tip, chin, ears ..."""
    unit_mm: float
    """millimetres per world unit"""


def target_weights(assets: HeadAssets, labels: Sequence[HeadLabels], expression: bool = True) -> Tensor:
    """Weights of the morph targets, float32 [B, T]."""
    weights = torch.zeros(len(labels), len(assets.target_names))
    for row, label in zip(weights, labels, strict=True):
        for name, value in _weights(assets, label, expression):
            row[assets.target_index[name]] += value
    return weights.to(assets.device)


def _weights(assets: HeadAssets, a: HeadLabels, expression: bool) -> list[tuple[str, float]]:
    (c0, c1), (o0, o1) = _CHILD_TO_YOUNG, _YOUNG_TO_OLD
    stages = {
        "child": min(1.0, max(0.0, (c1 - a.age) / (c1 - c0))),
        "old": min(1.0, max(0.0, (a.age - o0) / (o1 - o0))),
    }
    stages["young"] = max(0.0, 1 - stages["child"] - stages["old"])
    result = []
    heavy, strong = abs(a.weight), abs(a.muscle)
    rest, total = max(0.0, 1 - heavy - strong), max(1.0, heavy + strong)
    for sex, sex_share in (("male", a.male), ("female", 1 - a.male)):
        for stage, stage_share in stages.items():
            share = sex_share * stage_share
            for origin in ("african", "asian", "caucasian"):
                result.append((f"macro/{origin}-{sex}-{stage}", share * getattr(a, origin)))
            body = f"body/{sex}-{stage}"
            result.append((f"{body}-averagemuscle-averageweight", share * rest))
            result.append(
                (f"{body}-averagemuscle-{'max' if a.weight > 0 else 'min'}weight", share * heavy / total)
            )
            result.append(
                (f"{body}-{'max' if a.muscle > 0 else 'min'}muscle-averageweight", share * strong / total)
            )
    for axis in dict.fromkeys([*a.features, *STOUT]):
        value = a.features.get(axis, 0.0) + STOUT.get(axis, 0.0) * a.weight
        result += [(name, abs(value)) for name in assets.axes[axis][value > 0]]
    for name, value in a.asymmetry.items():
        side = f"feat/{name}{'-l' if value > 0 else '-r'}"
        if side in assets.target_index:
            result.append((side, abs(value)))
    if expression:
        result += [(f"arkit/{name}", value) for name, value in a.expression.items()]
    return result


def morph(assets: HeadAssets, weights: Tensor) -> Tensor:
    """Weights [B, T] to base vertices [B, N, 3], decimetres."""
    offsets: Tensor = torch.sparse.mm(assets.morphs, weights.T).T
    return assets.rest + offsets.reshape(len(weights), -1, 3)


def vertex_normals(vertices: Tensor, triangles: Tensor) -> Tensor:
    """Area-weighted unit normals [V, 3]."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    face = torch.linalg.cross(b - a, c - a)
    normals = torch.zeros_like(vertices)
    for k in range(3):
        normals.index_add_(0, triangles[:, k], face)
    return torch.nn.functional.normalize(normals, dim=1)


def fit_proxy(proxy: Proxy, vertices: Tensor) -> Tensor:
    """Proxy vertices [n, 3] on one morphed base mesh [N, 3], decimetres."""
    stretch = vertices.new_tensor(
        [abs(float(vertices[a, k] - vertices[b, k])) / d for k, (a, b, d) in enumerate(proxy.scale)]
    )
    return (proxy.weight[..., None] * vertices[proxy.ref]).sum(1) + proxy.offset * stretch


def alignment(assets: HeadAssets, neutral: Tensor) -> tuple[float, Tensor]:
    """The similarity of one neutral head [N, 3] (decimetres): world = (x - origin) * scale.

    The frontal crop spans max(2 x eye distance, 1.8 x eye-mouth distance) on each side of a point a tenth of
    the
    way from the eyes to the mouth; the scale is a fixed point because that plane's depth depends on it.
    """
    at = assets.meta["landmarks"]
    left, right = (neutral[assets.tensor(assets.arrays[k], torch.int64)].mean(0) for k in ("eye_l", "eye_r"))
    mouth, eyes = (neutral[at["mouth_l"]] + neutral[at["mouth_r"]]) / 2, (left + right) / 2
    down = mouth - eyes
    half = max(2.0 * float((left - right)[:2].norm()), 1.8 * float(down[:2].norm()))
    centre = eyes + 0.1 * down
    ears = float(neutral[[at["ear_l"], at["ear_r"]], 2].mean())
    z = ears + 0.25 * (float(neutral[at["nose_tip"], 2]) - ears)
    scale, face = 1.0, float(eyes[2] * 2 + mouth[2]) / 3
    for _ in range(20):
        scale = 0.5 * (RADIUS - scale * (face - z)) / FOCAL / half
    return scale, torch.stack([centre[0], centre[1], centre.new_tensor(z)])


def build(assets: HeadAssets, labels: Sequence[HeadLabels]) -> list[HeadGeometry]:
    """Geometry of a batch of heads."""
    both = morph(assets, torch.cat([target_weights(assets, labels, e) for e in (False, True)]))
    neutral, posed = both[: len(labels)], both[len(labels) :]
    return [_build(assets, a, n, x) for a, n, x in zip(labels, neutral, posed, strict=True)]


def _build(assets: HeadAssets, labels: HeadLabels, neutral: Tensor, posed: Tensor) -> HeadGeometry:
    scale, origin = alignment(assets, neutral)
    tri = assets.skin_triangles
    shirt = ((assets.below_neckline + labels.neckline * 0.4 - 0.1) / 0.06).clamp(0, 1)
    beard = assets.beard * labels.beard
    surface = posed + vertex_normals(posed, tri) * (SHIRT_HEIGHT * shirt + BEARD_HEIGHT * beard)[:, None]
    style = grown.STYLES.get(labels.hair)
    has_mesh = style is None and labels.hair not in ("bald", "buzz")
    shadow = assets.hair_shadow(labels.hair) if has_mesh else torch.zeros_like(beard)
    if style:
        shadow = assets.hairline * min(1.0, style.length / 0.1)
    scalp = assets.scalp * {"buzz": 1.0, "bald": 0.0}.get(labels.hair, 0.75)
    openness = assets.tensor(assets.arrays["ao"]) / 255
    vid, uv, split = assets.skin_corners
    normals = vertex_normals(surface, tri)
    world = (surface[vid] - origin) * scale
    extra = torch.cat(
        [torch.stack([openness, shadow, beard, scalp, shirt], 1)[vid], uv_gradients(world, uv, split)], 1
    )
    parts = [Part("skin", world, normals[vid], split, uv, extra)]

    def add_shells(kind: str, where: Tensor, style: grown.Style) -> None:
        s = grown.grow(assets, surface, normals, where, style)
        if len(s.triangles):
            extra = torch.zeros(len(s.vertices), EXTRA, device=assets.device)
            extra[:, 0] = openness[vid][s.source] * (0.45 + 0.55 * s.height)
            extra[:, 1], extra[:, 2] = s.height, s.cover
            world = (s.vertices - origin) * scale
            parts.append(Part(kind, world, s.normals, s.triangles, uv[s.source], extra))

    def add(kind: str, proxy: Proxy, ambient: Tensor | float) -> None:
        vertices = fit_proxy(proxy, posed)
        normals = vertex_normals(vertices, proxy.vid[proxy.tri])
        extra = torch.zeros(len(proxy.vid), EXTRA, device=assets.device)
        extra[:, 0] = ambient[proxy.vid] if isinstance(ambient, Tensor) else ambient
        world = (vertices[proxy.vid] - origin) * scale
        parts.append(Part(kind, world, normals[proxy.vid], proxy.tri, proxy.uv, extra))

    add("eyes", assets.proxy("eyes"), assets.tensor(assets.arrays["ao_eyes"]) / 255)
    add("teeth", assets.proxy("teeth"), assets.tensor(assets.arrays["ao_teeth"]) / 255)
    add("tongue", assets.proxy("tongue"), 0.45)
    add("brow", assets.proxy("eyebrows", labels.brow), 1.0)
    add("lash", assets.proxy("eyelashes", labels.lash), 1.0)
    if has_mesh:
        proxy = assets.proxy("hair", labels.hair)
        height = assets.tensor(assets.arrays[f"px{proxy.index}_depth"]) / 255
        add("hair", proxy, 0.35 + 0.65 * (height * 1.6).clamp(0, 1))
    if style:
        add_shells("hair", assets.hairline, style)
    long = (labels.beard - grown.BEARD_FROM) / (1 - grown.BEARD_FROM)
    if long > 0:
        add_shells("beard", assets.beard, grown.BEARD.grown_to(long))
    points = {name: surface[i] for name, i in assets.meta["landmarks"].items()}
    for name in ("eye_l", "eye_r"):
        points["eyeball" + name[3:]] = posed[assets.tensor(assets.arrays[name], torch.int64)].mean(0)
    if labels.glasses != "none":
        parts.append(_glasses(labels, points, posed, origin, scale))
    landmarks = {name: (point - origin) * scale for name, point in points.items()}
    return HeadGeometry(labels, parts, landmarks, 100.0 / scale)


def _glasses(
    labels: HeadLabels, points: dict[str, Tensor], posed: Tensor, origin: Tensor, scale: float
) -> Part:
    left, right = points["eyeball_l"], points["eyeball_r"]
    near = (posed[:, 0].abs() < 0.45) & ((posed[:, 1] - left[1] - 0.12).abs() < 0.12)
    vertices, triangles = glasses.frame(
        left, right, float(posed[near, 2].max()), (points["ear_l"], points["ear_r"]), labels.glasses
    )
    extra = torch.zeros(len(vertices), EXTRA, device=vertices.device)
    extra[:, 0] = 1
    normals = vertex_normals(vertices, triangles)
    return Part("glasses", (vertices - origin) * scale, normals, triangles, extra[:, :2], extra)


def uv_gradients(vertices: Tensor, uv: Tensor, triangles: Tensor) -> Tensor:
    """Gradients of u and of v over a surface, [V, 6] per unit of length, averaged over each vertex's
    triangles."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    p, q, r = (uv[triangles[:, k]] for k in range(3))
    e, f, s, t = b - a, c - a, q - p, r - p
    normal = torch.linalg.cross(e, f)
    area = normal.square().sum(1, keepdim=True).clamp_min(1e-18)
    # Dual basis of the edges e, f in the triangle's plane; a uv's gradient is its differences in that basis.
    dual_e, dual_f = torch.linalg.cross(f, normal) / area, torch.linalg.cross(normal, e) / area
    gradient = torch.cat([dual_e * s[:, k : k + 1] + dual_f * t[:, k : k + 1] for k in range(2)], 1)
    total, count = vertices.new_zeros(len(vertices), 6), vertices.new_zeros(len(vertices), 1)
    for k in range(3):
        total.index_add_(0, triangles[:, k], gradient)
        count.index_add_(0, triangles[:, k], torch.ones_like(area))
    return total / count.clamp_min(1)
