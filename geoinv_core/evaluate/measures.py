"""The measures: colour, outline, depth, normals and surface of a model's head against a true one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import conv2d

from geoinv_core.camera import rays
from geoinv_core.evaluate.truth import REGIONS, TrueHead, TrueView
from geoinv_core.head import Head
from geoinv_core.heads import HeadAssets
from geoinv_core.heads.surface import BARE, OuterSurface
from geoinv_core.mesh.closest import ClosestPoints
from geoinv_core.mesh.surface import extract
from geoinv_core.train.samples import normals

Array = NDArray[Any]
_NORMALS = 2048  # pixels of a view whose normal is compared
# cells along a side of the box for the model's mesh; marching cubes of a distance is finer than a cell
_LATTICE = 160
_POINTS = 2000  # points of each surface
_NEAR = 0.03  # world units: how far from the surface distances are compared


def psnr(a: Array, b: Array, where: Array) -> float:
    """Decibels over the pixels of `where`, for colours in 0..1; nan where there are none."""
    if not where.any():
        return math.nan
    return -10 * math.log10(max(float(np.square(a[where] - b[where]).mean()), 1e-10))


_GREY = (0.299, 0.587, 0.114)  # of sRGB values, as in the published code's rgb2gray
_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5


def ssim(a: Array, b: Array) -> float:
    """Structural similarity of two pictures [S, S, 3] in 0..1, as its authors publish it (Wang et al. 2004):
    on grey, with a Gaussian window of 11 pixels, K = .01 and .03, mean over where the whole window fits."""
    x, y = (torch.from_numpy(np.asarray(p, np.float64) @ np.array(_GREY))[None, None] for p in (a, b))
    at = torch.arange(_SSIM_WINDOW, dtype=torch.float64) - _SSIM_WINDOW // 2
    line = torch.exp(-(at**2) / (2 * _SSIM_SIGMA**2))
    window = (line[:, None] * line)[None, None] / line.sum() ** 2
    mx, my, xx, yy, xy = (conv2d(p, window) for p in (x, y, x * x, y * y, x * y))
    c1, c2 = 0.01**2, 0.03**2
    alike = (2 * mx * my + c1) * (2 * (xy - mx * my) + c2)
    apart = (mx * mx + my * my + c1) * (xx - mx * mx + yy - my * my + c2)
    return float((alike / apart).mean())


def compare_view(head: Head, true: TrueView, unit_mm: float) -> tuple[dict[str, float], Array]:
    """One view of a head against truth.

    Returns: psnr (inside the true mask, and per region as psnr.face ...), iou, depth_mm (median),
    normal_degrees (mean; per region too); and the picture.
    """
    size = len(true.mask)
    rgb, depth, opacity = head.look(true.camera, size)
    there, solid = true.mask > 0.5, opacity > 0.5
    both = there & solid & np.isfinite(true.depth)
    result = {
        "psnr": psnr(rgb, true.rgb, there),
        "iou": float((solid & there).sum() / max((solid | there).sum(), 1)),
        "depth_mm": _median(np.abs(depth - true.depth)[both]) * unit_mm,
    }
    chosen, angle = _normal_errors(head, true, depth, both)
    result["normal_degrees"] = _mean(angle)
    for k, name in enumerate(REGIONS):
        here = true.region == k
        if here.sum() < size:  # fewer pixels than that are an edge, not a region
            continue
        result[f"psnr.{name}"] = psnr(rgb, true.rgb, there & here)
        result[f"depth_mm.{name}"] = _median(np.abs(depth - true.depth)[both & here]) * unit_mm
        result[f"normal_degrees.{name}"] = _mean(angle[here.reshape(-1)[chosen]])
    return result, rgb


def _normal_errors(head: Head, true: TrueView, depth: Array, both: Array) -> tuple[Array, Array]:
    """The flat pixels compared, and the angles between true normal and the field's gradient, degrees."""
    at = np.flatnonzero(both)
    chosen = at[:: max(1, len(at) // _NORMALS)]
    origins, directions = (x[0].numpy() for x in rays(true.camera[None], len(depth)))
    points = origins[chosen] + directions[chosen] * depth.reshape(-1, 1)[chosen]
    with torch.inference_mode():
        where = torch.from_numpy(points.astype(np.float32))[None].to(head.model.device)
        ours = normals(head.model.generator, head.planes, where)[0].cpu().numpy()
    return chosen, angles(ours, true.normal.reshape(-1, 3)[chosen])


def angles(a: Array, b: Array) -> Array:
    """Degrees between unit vectors [N, 3]."""
    return np.asarray(np.degrees(np.arccos((a * b).sum(1).clip(-1, 1))))


def compare_surface(head: Head, true: TrueHead, assets: HeadAssets) -> dict[str, float]:
    """The model's zero level set against the true outer skin where no hair covers it, in millimetres.

    Returns: on_surface_mm, the mean distance that the field gives at true points; distance_mm, the mean error
    of the field's distances within 3 hundredths of a unit from the surface; completeness_mm and accuracy_mm,
    the mean distances from true points to the model's mesh and back; chamfer_mm, the mean of these two;
    normal_degrees, the mean angle between true normals and those of the nearest points of the model's mesh.
    """
    r = np.random.default_rng([20265, true.labels.seed])
    generator, mm = head.model.generator, true.unit_mm
    surface = OuterSurface(assets, true.geometry, true.layers.shader)
    p = surface.sample(_POINTS, r, bare=True)
    offset = torch.from_numpy(r.uniform(-_NEAR, _NEAR, (_POINTS, 1)).astype(np.float32))
    beside = p.points + p.normals * offset.to(p.points)
    with torch.inference_mode():
        points = torch.cat([p.points, beside])[None].to(head.model.device)
        field = generator.query(head.planes, points)[0][0].cpu()
        values = generator.sample_grid(head.planes, _LATTICE)[0].float().cpu().numpy()
    on, near = field.split(_POINTS)
    mesh = extract(values, generator.config.box_warp, target_faces=None, smoothing=0)
    ours = ClosestPoints(mesh.vertices, mesh.faces)
    there = ours(p.points.cpu().numpy())
    corner = ours.vertices[ours.triangles]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    middle = corner[r.choice(len(area), _POINTS, p=area / area.sum())].mean(1)
    nearest, skin = _visible(true, surface)
    back = nearest(middle)
    accuracy = float(back.distance[skin[back.triangle]].mean()) * mm
    completeness = float(there.distance.mean()) * mm
    return {
        "on_surface_mm": float(on.abs().mean()) * mm,
        "distance_mm": float((near - surface.signed_distance(beside).cpu()).abs().mean()) * mm,
        "completeness_mm": completeness,
        "accuracy_mm": accuracy,
        "chamfer_mm": (completeness + accuracy) / 2,
        "normal_degrees": _mean(angles(p.normals.cpu().numpy(), ours.face_normals[there.triangle])),
    }


def _visible(true: TrueHead, surface: OuterSurface) -> tuple[ClosestPoints, NDArray[np.bool_]]:
    """All that can be seen of a head, and which triangles of it are bare skin above the base of the neck."""
    vertices, triangles, start = [surface.vertices], [surface.triangles], len(surface.vertices)
    for part in true.geometry.parts[1:]:
        if part.kind not in ("brow", "lash"):  # these are painted on what lies behind them
            vertices.append(part.vertices.cpu().numpy())
            triangles.append(part.triangles.cpu().numpy() + start)
            start += len(part.vertices)
    joined = ClosestPoints(np.concatenate(vertices), np.concatenate(triangles))
    bare = np.zeros(len(joined.triangles), bool)
    bare[: len(surface.triangles)] = surface.head & (surface.cover.max(1) < BARE)
    return joined, bare


def mean_of(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every figure over the rows that have it."""
    rows = list(rows)
    keys = dict.fromkeys(key for row in rows for key in row)
    found = {key: [row[key] for row in rows if not math.isnan(row.get(key, math.nan))] for key in keys}
    return {key: float(np.mean(values)) for key, values in found.items() if values}


def _mean(x: Array) -> float:
    return float(x.mean()) if x.size else math.nan


def _median(x: Array) -> float:
    return float(np.median(x)) if x.size else math.nan
