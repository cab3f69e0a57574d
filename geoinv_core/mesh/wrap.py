"""The cage onto a head's field: rays to first positions, refinement, then sliding over the surface."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.cage import CURVES, TAGS, Cage
from geoinv_core.mesh.crossing import crossed_quads
from geoinv_core.mesh.lattice import Query
from geoinv_core.mesh.smooth_fit import Smoother, laplacian
from geoinv_core.mesh.sockets import lay_eyeballs
from geoinv_core.mesh.subdivide import edges, refine
from geoinv_core.mesh.untangle import untangled

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]

_LEVELS = 2
_ROUNDS = 40
_UNTANGLINGS = 5
_EAR_STIFFNESS, _FAIRNESS = 1.0, 20.0
_STEP = 0.004
"""World units between the points that give the field's gradient."""


def symmetric(query: Query) -> Query:
    """The mean of a field and its mirror image."""
    flip = np.array([-1, 1, 1], np.float32)
    return lambda points: 0.5 * (query(points) + query(points * flip))


def gradient(query: Query, points: Float64, step: float = _STEP) -> tuple[Float64, Float64]:
    """Values [N] and gradients [N, 3] of a field by differences over a tetrahedron's corners of size
    `step`."""
    corners = np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)], np.float64)
    asked = (points[None] + (step / 2) * corners[:, None]).reshape(-1, 3).astype(np.float32)
    values = query(asked).astype(np.float64).reshape(4, -1)
    return values.mean(0), np.einsum("kn,kc->nc", values, corners) / (2 * step)


def cast(query: Query, starts: Float64, directions: Float64, length: float = 0.7) -> Float64:
    """Where rays [N, 3] first enter the head; rays that miss give NaN."""
    steps = np.linspace(0, length, 281)
    points = starts[:, None] + directions[:, None] * steps[:, None]
    values = query(points.reshape(-1, 3).astype(np.float32)).reshape(len(starts), -1)
    inside = values < 0
    first = inside.argmax(1).clip(1)
    row = np.arange(len(starts))
    before, after = values[row, first - 1], values[row, first]
    share = before / np.maximum(before - after, 1e-12)
    depth = steps[first - 1] + share * (steps[1] - steps[0])
    hit: Float64 = starts + directions * depth[:, None]
    hit[~inside.any(1)] = np.nan
    return hit


def wrap(cage: Cage, query: Query) -> tuple[Float64, Int32, Bool, Int32]:
    """The refined cage on the zero level set of a field that is symmetric about x = 0.

    Returns: points [V, 3], symmetric; faces int32 [F, 4]; tags bool [V, len(TAGS)]; mirror int32 [V].
    """
    points, faces, tags, mirror = _first_positions(cage, query), cage.faces, cage.tags, cage.mirror
    curves = np.isin(TAGS, CURVES)
    for _ in range(_LEVELS):
        points, faces, tags, mirror = refine(points, faces, tags, mirror, curves)
    points = lay_eyeballs(_slide(points, faces, tags, mirror, query), faces, tags)
    free = ~_tag(tags, "eyeball", "neck_ring")
    for _ in range(_UNTANGLINGS):
        # sides are looked at one by one, since quads and their mirror images are split differently
        points, crossed = untangled(np.zeros_like(points), points, faces, free)
        points = symmetrised(points, mirror)
        if not crossed and not crossed_quads(points, faces).any():
            break
    return points, faces, tags, mirror


def symmetrised(points: Float64, mirror: Int32) -> Float64:
    """The mean of points [V, 3] and their counterparts' mirror images: exactly symmetric."""
    result: Float64 = 0.5 * (points + points[mirror] * np.array([-1.0, 1.0, 1.0]))
    return result


def _tag(tags: Bool, *names: str) -> Bool:
    found: Bool = tags[:, [TAGS.index(name) for name in names]].any(1)
    return found


def _first_positions(cage: Cage, query: Query) -> Float64:
    known = np.isfinite(cage.starts).all(1)
    fixed = known & (np.abs(cage.directions).sum(1) == 0)
    points = np.where(known[:, None], cage.starts, 0.0)
    thrown = known & ~fixed
    points[thrown] = cast(query, cage.starts[thrown], cage.directions[thrown])
    if not np.isfinite(points).all():
        raise ValueError("Some of the cage's rays miss the mean head.")
    e = edges(cage.faces).ends
    degree = np.bincount(e.ravel(), minlength=len(points))[:, None]
    for _ in range(400):
        total = np.zeros_like(points)
        np.add.at(total, e[:, 0], points[e[:, 1]])
        np.add.at(total, e[:, 1], points[e[:, 0]])
        points[~known] = (total / degree)[~known]
    return _lay_bag(points, cage)


def _lay_bag(points: Float64, cage: Cage) -> Float64:
    """The mouth's inside: a flat pocket behind the lips that opens backwards."""
    bag = _tag(cage.tags, "bag")
    line = _tag(cage.tags, "lip_line")
    rest = np.flatnonzero(bag & ~line)
    # rings follow the lip line strip by strip; the back of the bag is one more step behind
    e = edges(cage.faces).ends
    depth = np.where(line, 0, 99)
    for _ in range(8):
        for a, b in ((0, 1), (1, 0)):
            inside = bag[e[:, 0]] & bag[e[:, 1]]
            np.minimum.at(depth, e[inside, a], depth[e[inside, b]] + 1)
    middle_y = points[line, 1].mean()
    width = np.abs(points[line, 0]).max()
    front = np.flatnonzero(line)
    neighbours: dict[int, list[int]] = {}
    for a, b in e.tolist():
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    back, height, shrink = {1: 0.010, 2: 0.030}, {1: 0.006, 2: 0.013}, {1: 1.0, 2: 0.92}
    origin = {int(v): int(v) for v in front}
    for level in (1, 2):
        for v in rest[depth[rest] == level]:
            parent = next(origin[n] for n in neighbours[int(v)] if n in origin and depth[n] == level - 1)
            origin[int(v)] = parent
            x, y, z = points[parent]
            open_ = np.sqrt(max(0.0, 1 - (x / width) ** 2))
            side = 0.0 if abs(abs(x) - width) < 1e-4 else np.sign(y - middle_y)
            points[v] = (x * shrink[level], middle_y + side * height[level] * open_, z - back[level])
    inner = rest[depth[rest] > 2]
    degree = np.bincount(e.ravel(), minlength=len(points))[:, None]
    for _ in range(200):
        total = np.zeros_like(points)
        np.add.at(total, e[:, 0], points[e[:, 1]])
        np.add.at(total, e[:, 1], points[e[:, 0]])
        points[inner] = (total / degree)[inner]
    points[inner, 2] -= 0.012
    return points


def _slide(points: Float64, faces: Int32, tags: Bool, mirror: Int32, query: Query) -> Float64:
    """Even the skin's spacing out while it stays on the surface; named curves keep their place.

    Ears are too thin for that: they keep the shape that the cage gives them, and follow their roots.
    """
    ear = _tag(tags, "ear")
    hidden = _tag(tags, "eyeball", "bag") | (_tag(tags, "pocket") & ~_tag(tags, "rim"))
    hidden &= ~_tag(tags, "lip_line")
    drawn = _tag(tags, "lid", "lips")
    laid, points = points, points.copy()
    starts = np.where(drawn[:, None], points, 0.0)[drawn]
    starts[:, 2] = 0.5
    points[drawn] = cast(query, starts, np.broadcast_to([0.0, 0.0, -1.0], starts.shape).copy())
    ring = _tag(tags, "neck_ring")
    projects = ~hidden & ~drawn & ~ear
    slides = projects & ~ring
    e = edges(faces).ends
    degree = np.bincount(e.ravel(), minlength=len(points))[:, None]
    for _ in range(_ROUNDS):
        total = np.zeros_like(points)
        np.add.at(total, e[:, 0], points[e[:, 1]])
        np.add.at(total, e[:, 1], points[e[:, 0]])
        value, slope = gradient(query, points)
        length = np.linalg.norm(slope, axis=1, keepdims=True)
        normal = slope / np.maximum(length, 1e-6)
        normal[ring, 1] = 0.0
        shift = total / degree - points
        across = shift - (shift * normal).sum(1, keepdims=True) * normal
        step = (value[:, None] / np.maximum(length, 0.3) * normal).clip(-0.01, 0.01)
        move = np.where(slides[:, None], 0.5 * across, 0.0) - np.where(projects[:, None], step, 0.0)
        points = symmetrised(points + move, mirror)
    visible = faces[~hidden[faces].any(1)]
    lap = laplacian(visible, len(points))
    smoother = Smoother(lap, np.where(ear, _EAR_STIFFNESS, 0.0))
    known = (~hidden & ~ear).astype(np.float64)
    shift = smoother.solve(1e3 * known, points - laid, points - laid, 1.0, 400)
    points[ear] = (laid + shift)[ear]
    fair = Smoother(lap, _tag(tags, "cranium", "neck").astype(np.float64))
    fairer = fair.solve(1.0 * ~hidden, points, points, _FAIRNESS, 200)
    points[~hidden & ~ear] = fairer[~hidden & ~ear]
    points[ring, 1] = laid[ring, 1]
    return symmetrised(points, mirror)
