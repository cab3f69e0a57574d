"""Where a head's anchors are, before its template is fitted: from its labels, or from what its face shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.anchors import predict
from geoinv_core.mesh.lattice import Query
from geoinv_core.mesh.template import Template
from geoinv_core.mesh.wrap import cast

if TYPE_CHECKING:
    from geoinv_core.head import Head

Float64 = npt.NDArray[np.float64]

_VIEW = 256
_SHOWN = {
    "eye_left_outer": 45,
    "eye_left_inner": 42,
    "eye_right_outer": 36,
    "eye_right_inner": 39,
    "mouth_left": 54,
    "mouth_right": 48,
    "nose_tip": 30,
    "chin": 8,
}
"""Points that the photo's landmark network finds, and their numbers in iBUG's order."""
_SURE = 0.04
"""Expected error of a point, in sides of its square, up to which it is used."""
_FACE, _ENOUGH = 0.5, 6
"""Least score of a face, and least number of points."""
_BEFORE = 0.6
"""World units before and behind the middle between which rays look for the head."""
_OFF = 0.08
"""World units that the face may lie off the template's before the landmarks are not believed."""


def anchors_of(head: Head, template: Template, query: Query) -> tuple[Float64 | None, list[str]]:
    """Anchors float64 [A, 3] of a head, and warnings; None where the template has to do with its own place.

    A labelled head's follow from its labels; any other's from landmarks in its own frontal picture.
    """
    space, now = head.model.label_space, head.inversion
    if space is not None:
        found = predict(template, space.layout, now.z.cpu().numpy(), now.c.cpu().numpy())
        if found is not None:
            return found[0], []
    seen = _seen(head, template, query)
    if seen is None:
        return None, [
            "No face was found on the model's own picture of this head, so the mesh was fitted without "
            "landmarks: check that eyes and mouth lie where they should, or use the topology raw."
        ]
    return seen, []


def _seen(head: Head, template: Template, query: Query) -> Float64 | None:
    from geoinv_core.camera import orbit
    from geoinv_core.photo.landmarks import find

    config = head.generator.config
    camera = orbit(0.0, 0.0, config.camera_radius, target=config.camera_target)
    rgb, _, _ = head.look(camera, _VIEW)
    marks = find((rgb * 255).round().astype(np.uint8), (_VIEW / 2, _VIEW / 2), 0.43 * _VIEW)
    if marks.score < _FACE:
        return None
    sure = [name for name in _SHOWN if marks.spread[name] < _SURE * _VIEW]
    points = np.array([marks.points[name] for name in sure]).reshape(-1, 2) / _VIEW
    matrix, focal = camera[:16].double().numpy().reshape(4, 4), float(camera[16])
    ray = np.concatenate([(points - 0.5) / focal, np.ones((len(points), 1))], 1) @ matrix[:3, :3].T
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    places = cast(query, matrix[:3, 3] + (config.camera_radius - _BEFORE) * ray, ray, 2 * _BEFORE)
    hit = np.isfinite(places).all(1)
    if hit.sum() < _ENOUGH:
        return None
    target, used = places[hit], [name for name, good in zip(sure, hit, strict=True) if good]
    vertices = template.vertices.astype(np.float64)
    source = vertices[template.landmarks[[_SHOWN[name] for name in used]]]
    if np.linalg.norm(target.mean(0) - source.mean(0)) > _OFF:
        return None
    return _similar(vertices[template.anchors], source, target)


def _similar(points: Float64, source: Float64, target: Float64) -> Float64:
    """Points [N, 3] under the scaling and shift that take source [M, 3] to target best (no turn: the field
    stands upright and faces +z)."""
    a, b = source - source.mean(0), target - target.mean(0)
    scale = float((a * b).sum() / (a * a).sum())
    result: Float64 = (points - source.mean(0)) * scale + target.mean(0)
    return result
