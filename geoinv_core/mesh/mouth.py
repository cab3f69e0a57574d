"""Teeth, gums and tongue in a fitted head: where they sit, and how they follow its shape keys.

They hang on the skull and on the jaw, not on the lips. The upper ones stay when a face moves; the lower ones
and the tongue go with the chin, as a rigid body, in keys that move the jaw and as far as the photo's own
expression has moved it. In keys of the build all of them grow with the face around the mouth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from geoinv_core.edit.labels import MIXES
from geoinv_core.mesh.anchors import predict
from geoinv_core.mesh.fit import Fitter
from geoinv_core.mesh.head_mesh import HeadMesh
from geoinv_core.mesh.keys import BODY, NEUTRAL
from geoinv_core.mesh.teeth import PARTS, patches, shells
from geoinv_core.mesh.template import Template

if TYPE_CHECKING:
    from geoinv_core.head import Head

Float64 = npt.NDArray[np.float64]
UInt8 = npt.NDArray[np.uint8]
Float16 = npt.NDArray[np.float16]
Bool = npt.NDArray[np.bool_]

COLOURS = {"teeth": (226, 217, 198), "gums": (172, 92, 88), "tongue": (168, 86, 84)}
"""sRGB of each part."""
JAW = ("jawOpen", "jawForward", "jawLeft", "jawRight")
"""Units that move the jaw."""
_BEHIND = 6.5
"""Millimetres from the line where lips meet back to the upper incisors: at 4.5 a smile on top of a smile
showed their edges through the lower lip."""
_MOUTH_MM, _SIZES = 51.0, (0.8, 1.2)
"""Width of the mouth that the teeth are made for, and factors of their size in others."""
_OUT = (0.0, -9.0, 34.0)
"""Millimetres that the tongue's tip goes in tongueOut."""
_AROUND = 0.13
"""World units round the mouth within which the face tells how its inside grows."""
_CORNERS, _INNER, _CHIN = (48, 54), (62, 66), 8


def at_rest(head: Head, fitter: Fitter, points: Float64) -> Float64:
    """About where the vertices `points` [V, 3] of a fitted head are without its expression."""
    space, now = head.model.label_space, head.inversion
    if space is None:
        return points
    calm = space.apply(now.c[0].cpu(), dict.fromkeys(space.layout.expressions, 0.0))
    both = np.stack([now.c[0].cpu().numpy(), calm.numpy()])
    known = predict(fitter.template, space.layout, np.repeat(now.z.cpu().numpy(), 2, 0), both)
    if known is None:
        return points
    moved: Float64 = points + fitter.spread(points, (known[1] - known[0])[None], skull_stays=True)[0]
    return moved


def placed(template: Template, points: Float64, rest: Float64, unit_mm: float) -> Float64:
    """The shells' vertices [N, 3], world units, in a head with vertices `points` [V, 3], which are at `rest`
    without its expression."""
    made = shells()
    marks = rest[template.landmarks]
    wide = np.linalg.norm(marks[_CORNERS[1]] - marks[_CORNERS[0]]) * unit_mm
    size = np.clip(wide / _MOUTH_MM, *_SIZES) / unit_mm
    meeting = marks[list(_INNER)].mean(0)
    meeting[0] = marks[list(_CORNERS), 0].mean()
    laid = meeting + size * (made.vertices - [0.0, 0.0, _BEHIND])
    return _with_jaw(laid, made.lower, _chin(template), rest, points)


def follow(
    template: Template,
    rest: Float64,
    laid: Float64,
    keys: Mapping[str, Float64],
    unit_mm: float,
) -> dict[str, Float64]:
    """Offsets [N, 3] of the shells, laid as `placed` does, for every key's offsets [V, 3] of the head, whose
    vertices without expression are `rest` [V, 3]."""
    made, still = shells(), np.zeros_like(laid)
    chin, around = _chin(template), _around(template, rest)
    calm = placed(template, rest, rest, unit_mm)
    single = {
        name: _with_jaw(calm, made.lower, chin, rest, rest + keys[name]) - calm
        for name in JAW
        if name in keys
    }
    if "tongueOut" in keys:
        out = (made.tip**1.5)[:, None] * np.array(_OUT) / unit_mm
        single["tongueOut"] = np.where((made.part == PARTS.index("tongue"))[:, None], out, 0.0)
    found = {}
    for name, offsets in keys.items():
        if name == NEUTRAL:
            found[name] = calm - laid
        elif name in BODY or name == "gender":
            found[name] = _moved(calm, rest[around], (rest + offsets)[around], grows=True) - calm
        elif name in single:
            found[name] = single[name]
        else:
            shares = MIXES.get(name, {})
            found[name] = sum((share * single[n] for n, share in shares.items() if n in single), start=still)
    return found


def joined(mesh: HeadMesh, laid: npt.NDArray[np.float32], moves: Mapping[str, Float16]) -> HeadMesh:
    """A head's mesh with the shells [N, 3] and, key by key, their offsets [N, 3], in its own frame."""
    made, count = shells(), len(mesh.vertices)
    inner, outer = np.zeros(len(laid), bool), np.zeros(count, bool)
    parts = {name: np.concatenate([outer, made.part == k]) for k, name in enumerate(PARTS)}
    return replace(
        mesh,
        vertices=np.concatenate([mesh.vertices, laid]),
        faces=np.concatenate([mesh.faces, made.faces + np.int32(count)]),
        uv=np.concatenate([mesh.uv, made.uv]),
        albedo=painted(mesh.albedo),
        shapes={name: np.concatenate([key, moves[name]]) for name, key in mesh.shapes.items()},
        maps={name: flat(picture, name == "normal") for name, picture in mesh.maps.items()},
        groups={name: np.concatenate([member, inner]) for name, member in mesh.groups.items()} | parts,
    )


def painted(albedo: UInt8) -> UInt8:
    """A texture [T, T, 3] with the parts' colours where their UVs lie."""
    result = albedo.copy()
    for part, place in patches():
        result[_rows_and_columns(place, len(albedo))] = COLOURS[part]
    return result


def flat(picture: UInt8, normal: bool) -> UInt8:
    """A map over the same UVs with nothing there: no mask, or a plain surface."""
    result = picture.copy()
    for _, place in patches():
        result[_rows_and_columns(place, len(picture))] = (128, 128, 255) if normal else 0
    return result


def _rows_and_columns(place: tuple[float, float, float, float], size: int) -> tuple[slice, slice]:
    u0, v0, u1, v1 = (round(x * size) for x in place)
    return slice(size - v1, size - v0), slice(u0, u1)


def _chin(template: Template) -> Bool:
    """bool [V]: skin of the chin below the lips, which goes with the jaw."""
    at, marks = template.vertices, template.vertices[template.landmarks]
    low, high = marks[_CHIN, 1], 0.75 * marks[57, 1] + 0.25 * marks[_CHIN, 1]
    found: Bool = (
        template.groups["face"]
        & (at[:, 1] > low)
        & (at[:, 1] < high)
        & (np.abs(at[:, 0]) < 0.06)
        & (at[:, 2] > 0.1)
    )
    return found


def _around(template: Template, rest: Float64) -> Bool:
    middle = rest[template.landmarks[list(_INNER)]].mean(0)
    near: Bool = (np.linalg.norm(rest - middle, axis=1) < _AROUND) & template.groups["face"]
    return near


def _with_jaw(laid: Float64, lower: Bool, chin: Bool, before: Float64, after: Float64) -> Float64:
    """Shells [N, 3] whose lower part has gone the way of the chin between two heads [V, 3]."""
    result = laid.copy()
    result[lower] = _moved(laid[lower], before[chin], after[chin])
    return result


def _moved(points: Float64, before: Float64, after: Float64, grows: bool = False) -> Float64:
    """Points [N, 3] taken along by the rigid motion (or similarity) that brings one set [M, 3] nearest to
    another. Source: S. Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", 1991."""
    from_, to = before.mean(0), after.mean(0)
    a, b = before - from_, after - to
    u, spread, vt = np.linalg.svd(b.T @ a)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    turn = (u * signs) @ vt
    scale = float((spread * signs).sum() / (a**2).sum()) if grows else 1.0
    result: Float64 = (points - from_) @ turn.T * scale + to
    return result
