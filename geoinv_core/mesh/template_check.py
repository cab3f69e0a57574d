"""What a head template must be, whatever model it was made from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.crossing import crossed_quads
from geoinv_core.mesh.head_mesh import LANDMARKS
from geoinv_core.mesh.subdivide import edges
from geoinv_core.mesh.template import Float64, Template
from geoinv_core.mesh.topology import boundary_loops

_QUADS = (8_000, 16_000)
_VALENCE = (3, 6)
_SYMMETRY = 1e-6
"""World units that a vertex may lie off its counterpart's mirror image."""
_UV_SIDE = 1024
_COVERED = 0.65
"""Least share of the texture that is used."""
_STRETCH = 8.0
"""Most that a face may be stretched one way against the other, at the 99th percentile of the skin."""


def problems(template: Template) -> list[str]:
    """What is wrong with a template, each as a clause; empty where all is well."""
    return [*_surface(template), *_sides(template), *_uvs(template), *_marks(template)]


def _surface(t: Template) -> list[str]:
    found = []
    if not _QUADS[0] <= len(t.faces) <= _QUADS[1]:
        found.append(f"it has {len(t.faces)} quads instead of {_QUADS[0]} to {_QUADS[1]}")
    if any(len(set(face)) != 4 for face in t.faces.tolist()) or not np.isfinite(t.vertices).all():
        found.append("it holds faces that are no quads, or vertices that are not finite")
        return found
    e = edges(t.faces)
    loops = boundary_loops(t.triangles)
    if set(e.faces) != {1, 2} or len(t.vertices) - len(e.ends) + len(t.faces) != 1:
        found.append("it is no manifold disk")
    if len(loops) != 1 or not t.tagged("neck_ring")[loops[0]].all():
        found.append(f"it has {len(loops)} openings instead of the neck's alone")
    valence = np.bincount(e.ends.ravel(), minlength=len(t.vertices))
    inner = ~t.tagged("neck_ring")
    low, high = int(valence[inner].min()), int(valence[inner].max())
    if low < _VALENCE[0] or high > _VALENCE[1]:
        found.append(f"vertices have from {low} to {high} edges")
    if (valence[t.tagged("rim", "vermilion", "lip_line")] != 4).any():
        found.append("loops round eyes or lips have poles")
    crossed = crossed_quads(t.vertices, t.faces)
    if crossed.any():
        middle = t.vertices[t.faces[crossed]].mean((0, 1)).round(3).tolist()
        found.append(f"{int(crossed.sum())} faces pass through others (about {middle})")
    return found


def _sides(t: Template) -> list[str]:
    off = float(np.abs(t.vertices[t.mirror] * [-1, 1, 1] - t.vertices).max())
    return [f"its halves differ by {off:.1e} units"] if off > _SYMMETRY else []


def _uvs(t: Template) -> list[str]:
    found = []
    if t.uv.min() < 0 or t.uv.max() > 1:
        found.append("UVs leave the texture")
    folded = int((_signed_areas(t) <= 0).sum())
    if folded:
        found.append(f"{folded} faces are folded over in the UVs")
    count = coverage(t)
    if count.max() > 1:
        found.append(f"{int((count > 1).sum())} texels of {count.size} belong to several faces")
    if (count > 0).mean() < _COVERED:
        found.append(f"UVs use only {(count > 0).mean():.0%} of the texture")
    worst = float(np.quantile(stretch(t)[~t.hidden[t.faces].any(1)], 0.99))
    if worst > _STRETCH:
        found.append(f"UVs stretch faces by {worst:.1f}")
    return found


def _marks(t: Template) -> list[str]:
    if t.landmarks.shape != (LANDMARKS,) or len(set(t.landmarks.tolist())) != LANDMARKS:
        return ["its landmarks are not 68 vertices"]
    if not np.isin(t.landmarks, t.anchors).all():
        return ["some landmarks are no anchors"]
    return []


def _signed_areas(t: Template) -> Float64:
    """Doubled areas of the faces' triangles in UVs [2 F]."""
    uv = t.uv.astype(np.float64)
    corner = np.concatenate([uv[:, :3], uv[:, [0, 2, 3]]])
    a, b = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])


def coverage(t: Template, side: int = _UV_SIDE) -> npt.NDArray[np.uint8]:
    """How many faces' insides each texel's centre lies in, uint8 [side, side]."""
    uv = t.uv.astype(np.float64)
    count = np.zeros((side, side), np.uint8)
    for p in np.concatenate([uv[:, :3], uv[:, [0, 2, 3]]]) * side:
        (x0, y0), (x1, y1) = np.floor(p.min(0)).astype(int), np.ceil(p.max(0)).astype(int)
        x, y = np.meshgrid(np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5)
        inside = np.ones(x.shape, bool)
        for i in range(3):
            j = (i + 1) % 3
            inside &= (p[j, 0] - p[i, 0]) * (y - p[i, 1]) - (p[j, 1] - p[i, 1]) * (x - p[i, 0]) > 1e-9
        count[y0:y1, x0:x1] += inside
    return count


def stretch(t: Template) -> Float64:
    """How much longer each face is drawn in UVs one way than the other, float64 [F], 1 where evenly: the
    ratio of the singular values of the map from its first triangle to the texture (Sander et al. 2001)."""
    a, b = (t.vertices[t.faces[:, i]].astype(np.float64) - t.vertices[t.faces[:, 0]] for i in (1, 2))
    u, v = (t.uv[:, i].astype(np.float64) - t.uv[:, 0] for i in (1, 2))
    length = np.linalg.norm(a, axis=1)
    along = (a * b).sum(1) / length
    up = np.sqrt(np.maximum((b * b).sum(1) - along**2, 1e-18))
    zero = np.zeros_like(up)
    local = np.stack([np.stack([length, along], 1), np.stack([zero, up], 1)], 1)
    jacobian = np.stack([u, v], 2) @ np.linalg.inv(local)
    values = np.linalg.svd(jacobian, compute_uv=False)
    return np.asarray(values[:, 0] / np.maximum(values[:, 1], 1e-12))
