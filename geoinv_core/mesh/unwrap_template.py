"""UVs of the template: one island for skin with its seam up the back of the head, small ones for the rest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.cage import TAGS
from geoinv_core.mesh.disk import cut_open, flatten_disk
from geoinv_core.mesh.topology import boundary_loops, compact

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]

_STRIP = 0.135
"""Height of the strip of small islands below the skin's, in textures."""
_MARGIN = 0.004
"""Empty border of each island, in textures: 8 texels of 2048."""
_RIGID_ROUNDS = 60
_OUTLINES = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
"""Shares of the rigid outline that are tried one after the other; at 0 it is convex, and nothing folds."""
_FACE_ZOOM = 0.55
"""How much longer the face's edges count than those of the back of the head."""


def unwrap(vertices: Float32, faces: Int32, tags: Bool, mirror: Int32) -> Float32:
    """UVs float32 [F, 4, 2] of a symmetric template, left-right symmetric, without overlaps.

    Islands: the skin, both ears (seam in the fold behind them), both eyeballs with their pockets, the mouth's
    inside.
    """

    def whole(*names: str) -> Bool:
        found: Bool = tags[:, [TAGS.index(name) for name in names]].any(1)[faces].all(1)
        return found

    right = vertices[faces, 0].mean(1) < 0
    eyes, bag, ears = whole("pocket", "eyeball"), whole("bag"), whole("ear")
    uv = np.zeros((len(faces), 4, 2))
    rest = ~(eyes | bag | ears)
    uv[rest] = _skin(vertices, faces[rest])
    for part in (eyes, ears, bag):
        for half in (part & ~right,) if part is not bag else (part,):
            uv[half] = _island(vertices, faces[half])
    order = {tuple(sorted(face)): i for i, face in enumerate(faces.tolist())}
    partner = np.array([order[tuple(sorted(face))] for face in mirror[faces].tolist()])
    # corner k of a face lies opposite to the corner of its partner that holds the mirrored vertex
    matched = (mirror[faces][:, :, None] == faces[partner][:, None, :]).argmax(2)
    across = np.take_along_axis(uv[partner], matched[..., None], 1) * [-1, 1] + [1, 0]
    pairs = (eyes | ears) & right
    uv[pairs] = across[pairs]
    middle = rest | bag
    uv[middle] = 0.5 * (uv + across)[middle]
    return _packed(uv, rest, bag, [(eyes & ~right, eyes & right), (ears & ~right, ears & right)])


def _packed(uv: Float64, skin: Bool, bag: Bool, pairs: list[tuple[Bool, Bool]]) -> Float32:
    """Islands of side 1 into their boxes: the skin above, the small ones in a strip below it."""
    result = np.zeros_like(uv)

    def put(part: Bool, left: float, bottom: float, width: float, height: float) -> None:
        size = np.array([width, height]) - 2 * _MARGIN
        result[part] = [left + _MARGIN, bottom + _MARGIN] + uv[part] * size

    put(skin, 0.0, _STRIP, 1.0, 1 - _STRIP)
    put(bag, 0.5 - _STRIP, 0.0, 2 * _STRIP, _STRIP)
    (eye_left, eye_right), (ear_left, ear_right) = pairs
    # the subject's left lies on the picture's right, as in a portrait
    put(eye_right, 0.5 - 2.4 * _STRIP, 0.0, 1.4 * _STRIP, _STRIP)
    put(eye_left, 0.5 + _STRIP, 0.0, 1.4 * _STRIP, _STRIP)
    put(ear_right, 0.0, 0.0, 1.2 * _STRIP, _STRIP)
    put(ear_left, 1 - 1.2 * _STRIP, 0.0, 1.2 * _STRIP, _STRIP)
    return result.astype(np.float32)


def _triangles(faces: Int32) -> Int32:
    return np.asarray(np.concatenate([faces[:, :3], faces[:, [0, 2, 3]]]), np.int32)


def _corners(of_triangles: Float64, quads: int) -> Float64:
    """Corner values of the triangles of `_triangles` back to quads [F, 4, 2]."""
    first, second = of_triangles[:quads], of_triangles[quads:]
    return np.concatenate([first, second[:, 2:]], 1)


def _island(vertices: Float32, faces: Int32) -> Float64:
    points, triangles = compact(vertices, _triangles(faces))
    return _corners(flatten_disk(points, triangles)[triangles], len(faces))


def _skin(vertices: Float32, faces: Int32) -> Float64:
    """The skin with its holes closed by fans, so that it is a disk once it is cut up the back.

    Its outline is the one that flattening as rigid as possible gives, or comes as near to it as it can
    without a face folding over; inside that, mean value weights keep faces from it.
    """
    points, triangles = compact(_zoomed(vertices), _triangles(faces))
    wanted = len(triangles)
    loops = boundary_loops(triangles)
    neck = max(range(len(loops)), key=lambda i: -points[loops[i], 1].mean())
    for number, loop in enumerate(loops):
        if number != neck:
            middle = len(points)
            points = np.concatenate([points, points[loop].mean(0, keepdims=True)]).astype(np.float32)
            fan = np.stack([np.roll(loop, -1), loop, np.full(len(loop), middle)], 1)
            triangles = np.concatenate([triangles, fan.astype(np.int32)])
    opened = cut_open(points, triangles)
    if opened is None:
        raise ValueError("The template's skin cannot be cut open.")
    cut, source = opened
    start = flatten_disk(points[source], cut.astype(np.int32))
    rigid = as_rigid_as_possible(points[source].astype(np.float64), cut, start)
    outline = (rigid - rigid.min(0)) / np.ptp(rigid, axis=0)
    for share in _OUTLINES:
        place = (1 - share) * start + share * outline  # the border of `start` is convex
        flat = flatten_disk(points[source], cut.astype(np.int32), place.__getitem__)
        a, b = flat[cut[:, 1]] - flat[cut[:, 0]], flat[cut[:, 2]] - flat[cut[:, 0]]
        if (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).min() > 0:
            break
    return _corners(flat[cut[:wanted]], len(faces))


def as_rigid_as_possible(points: Float64, faces: npt.NDArray[np.int64], start: Float64) -> Float64:
    """Flat places [V, 2] that keep the faces' shapes (Liu, Zhang, Xu, Gotsman and Gortler 2008).

    Faces may fold over. Args: points [V, 3]; faces [F, 3]; start [V, 2], not folded.
    """
    from scipy.sparse import coo_matrix, identity
    from scipy.sparse.linalg import splu

    count = len(points)
    p, q = (points[faces[:, i]] - points[faces[:, 0]] for i in (1, 2))
    length = np.linalg.norm(p, axis=1)
    along = (p * q).sum(1) / length
    up = np.sqrt(np.maximum((q * q).sum(1) - along**2, 1e-16))
    zero = np.zeros_like(up)
    local = np.stack([np.stack([zero, zero], 1), np.stack([length, zero], 1), np.stack([along, up], 1)], 1)
    pairs = [(1, 2, 0), (2, 0, 1), (0, 1, 2)]
    weight = []
    for j, k, i in pairs:
        u, v = local[:, j] - local[:, i], local[:, k] - local[:, i]
        cross = np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
        weight.append(((u * v).sum(1) / np.maximum(cross, 1e-12)).clip(0.02, 50))
    rows = np.concatenate([faces[:, j] for j, _, _ in pairs])
    columns = np.concatenate([faces[:, k] for _, k, _ in pairs])
    values = np.concatenate(weight)
    half = coo_matrix((values, (rows, columns)), shape=(count, count)).tocsr()
    full = half + half.T
    degree = np.asarray(full.sum(1)).ravel()
    system = coo_matrix((degree, (range(count), range(count))), shape=(count, count)) - full
    solver = splu((system + 1e-9 * identity(count)).tocsc())
    flat: Float64 = start * np.sqrt((length * up).sum() / 0.9)
    for _ in range(_RIGID_ROUNDS):
        covariance = np.zeros((len(faces), 2, 2))
        for (j, k, _), w in zip(pairs, weight, strict=True):
            edge = flat[faces[:, j]] - flat[faces[:, k]]
            covariance += w[:, None, None] * np.einsum("na,nb->nab", edge, local[:, j] - local[:, k])
        turn = covariance[:, 0, 0] + covariance[:, 1, 1], covariance[:, 1, 0] - covariance[:, 0, 1]
        radius = np.hypot(*turn) + 1e-12
        c, s = turn[0] / radius, turn[1] / radius
        goal = np.zeros((count, 2))
        for (j, k, _), w in zip(pairs, weight, strict=True):
            x, y = (local[:, j] - local[:, k]).T
            wanted = w[:, None] * np.stack([c * x - s * y, s * x + c * y], 1)
            for axis in (0, 1):
                goal[:, axis] += np.bincount(faces[:, j], wanted[:, axis], count)
                goal[:, axis] -= np.bincount(faces[:, k], wanted[:, axis], count)
        flat = solver.solve(goal)
    return flat


def _zoomed(vertices: Float32) -> Float32:
    """Vertices with the face blown up, so that it gets more of the texture."""
    middle = np.array([0.0, -0.04, -0.04], np.float32)
    y, z = vertices[:, 1], vertices[:, 2]
    between = np.clip((y + 0.29) / 0.06, 0, 1) * np.clip((0.2 - y) / 0.1, 0, 1)
    ahead = np.clip((z + 0.02) / 0.10, 0, 1) * between
    ahead = ahead * ahead * (3 - 2 * ahead)
    return (middle + (vertices - middle) * (1 + _FACE_ZOOM * ahead[:, None])).astype(np.float32)
