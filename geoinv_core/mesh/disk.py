"""A head as one UV island: cut from the neck up the back of the head, then flattened.

A head with one open ring at the neck and no handles is a disk once a seam is cut. Tutte's embedding with
Floater's mean value weights puts the border on a convex curve and every inner vertex into the weighted middle
of its neighbours: no triangle can fold over. The weights are then divided by how much their vertices are
stretched, a few times (Yoshizawa, Belyaev and Seidel 2004), which evens out the texture's density and keeps
the guarantee, since the weights stay positive.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.topology import boundary_loops

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_ROUNDS = 6
_CORNER = 5.0
"""Exponent of the superellipse that carries the border: strictly convex, and 96 % of its square."""


_MIN_DENSITY = 0.3
"""Where more than 2 % of the faces get less than this share of the mean resolution, charts are better."""


def flatten(vertices: npt.NDArray[np.float32], faces: npt.NDArray[np.int32]) -> Float64 | None:
    """UVs of the face corners of a head, one island without overlaps that fills 0..1.

    Args:
        vertices: world [V, 3], y up, the face along +z; faces: [F, 3], outward.
    Returns: float64 [F, 3, 2], origin lower left; None where the mesh is no such disk (handles, several or no
        rings, edges with more than two faces) or where parts of it would get too little of the texture.
    """
    loops = boundary_loops(faces)
    if len(loops) != 1 or not _is_disk(faces, len(vertices)):
        return None
    points = vertices.astype(np.float64)
    path = _seam(points, faces, loops[0])
    if path is None:
        return None
    cut_faces, source = _cut(faces, len(points), path)
    if len(boundary_loops(cut_faces)) != 1 or not _is_disk(cut_faces, len(source)):
        return None
    uv = _embed(points[source], cut_faces)
    corner: Float64 = uv[cut_faces]
    a, b = (corner[:, i] - corner[:, 0] for i in (1, 2))
    area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    if area.min() <= 1e-12:
        return None
    p, q = _edges(points, faces.astype(np.int64))
    world = np.linalg.norm(np.cross(p, q), axis=1)
    density = np.sqrt(area / area.sum() / (world / world.sum()))
    return corner if np.quantile(density, 0.02) > _MIN_DENSITY else None


def flatten_disk(
    vertices: npt.NDArray[np.float32],
    faces: npt.NDArray[np.int32],
    place: Callable[[Int64], Float64] | None = None,
) -> Float64:
    """UVs of the vertices of a surface that is a disk already, as in `flatten`.

    Args:
        place: from the border's vertices int64 [N], in order, to their UVs [N, 2]; None: a superellipse. A
            border that is not convex may cost the guarantee that nothing folds over.
    Returns: float64 [V, 2].
    """
    return _embed(vertices.astype(np.float64), faces.astype(np.int64), place)


def cut_open(vertices: npt.NDArray[np.float32], faces: npt.NDArray[np.int32]) -> tuple[Int64, Int64] | None:
    """A head with one open ring, cut from the ring up its back into a disk.

    Returns: faces int64 [F, 3] of the cut surface; the original vertex int64 [V'] of each of its vertices;
    None where no seam is found.
    """
    points = vertices.astype(np.float64)
    path = _seam(points, faces, boundary_loops(faces)[0])
    return None if path is None else _cut(faces, len(points), path)


def _is_disk(faces: npt.NDArray[Any], count: int) -> bool:
    """Whether each edge has one or two faces, and vertices - edges + faces = 1."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1).astype(
        np.int64
    )
    _, uses = np.unique(edges[:, 0] * count + edges[:, 1], return_counts=True)
    return bool(uses.max() <= 2) and count - len(uses) + len(faces) == 1


def _seam(points: Float64, faces: npt.NDArray[np.int32], ring: Int64) -> Int64 | None:
    """Vertices from the neck ring's back up the middle of the back of the head to its crown; int64 [N]."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import dijkstra

    size = float((points.max(0) - points.min(0)).max())
    middle = points[ring].mean(0)[0]
    back = np.abs(points[:, 0] - middle) / size
    start = int(ring[np.argmin(points[ring, 2] / size + 2 * back[ring])])
    # 20 degrees behind the top: hair hides it, and the forehead stays whole
    high = points[:, 1] / size - 0.35 * points[:, 2] / size - 2 * back
    high[ring] = -np.inf
    end = int(np.argmax(high))
    a, b = faces[:, [0, 1, 2]].ravel(), faces[:, [1, 2, 0]].ravel()
    length = np.linalg.norm(points[a] - points[b], axis=1)
    forward = np.maximum((points[:, 2] - points[end, 2]) / size, 0)
    cost = length * (1 + 400 * (back[a] ** 2 + back[b] ** 2) + 20 * (forward[a] + forward[b]))
    on_ring = np.zeros(len(points), bool)
    on_ring[ring] = True
    # the path leaves the ring at once and never comes back
    open_way = ~(on_ring[a] & (a != start)) & ~(on_ring[b] & (b != start))
    graph = coo_matrix((cost[open_way], (a[open_way], b[open_way])), shape=(len(points),) * 2)
    _, previous = dijkstra(graph, directed=False, indices=start, return_predecessors=True)
    path = [end]
    while path[-1] != start:
        before = int(previous[path[-1]])
        if before < 0:
            return None
        path.append(before)
    return np.array(path[::-1], np.int64) if len(path) > 2 else None


def _cut(faces: npt.NDArray[np.int32], count: int, path: Int64) -> tuple[Int64, Int64]:
    """Faces with the path's vertices (but its end) doubled on its left side.

    Returns: faces int64 [F, 3]; the original vertex of each vertex int64 [V'].
    """
    result = faces.astype(np.int64)
    size = count + 1
    edge_face: dict[int, int] = {}
    for i in range(3):
        keys = result[:, i] * size + result[:, (i + 1) % 3]
        edge_face.update(dict(zip(keys.tolist(), range(len(faces)), strict=True)))
    copy = {int(v): count + i for i, v in enumerate(path[:-1].tolist())}
    barrier = {(int(a), int(b)) for a, b in pairwise(path)}
    barrier |= {(b, a) for a, b in barrier}
    for a, b in pairwise(path.tolist()):
        # from the face left of edge a-b round a, until the border or the seam is met again
        first = edge_face.get(a * size + b)
        if first is not None:
            _walk(result, faces, edge_face, size, a, first, copy[a], barrier)
    return result, np.concatenate([np.arange(count), path[:-1]])


def _walk(
    result: Int64,
    faces: npt.NDArray[np.int32],
    edge_face: dict[int, int],
    size: int,
    vertex: int,
    first: int,
    new: int,
    barrier: set[tuple[int, int]],
) -> None:
    """Give the faces of one fan around `vertex`, on one side of the seam, the vertex `new`."""
    waiting = [first]
    while waiting:
        face = waiting.pop()
        corners = faces[face].tolist()
        place = corners.index(vertex)
        if result[face, place] == new:
            continue
        result[face, place] = new
        ahead, behind = corners[(place + 1) % 3], corners[(place + 2) % 3]
        for other, key in ((ahead, ahead * size + vertex), (behind, vertex * size + behind)):
            neighbour = edge_face.get(key)
            if neighbour is not None and (vertex, other) not in barrier:
                waiting.append(neighbour)


def _embed(points: Float64, faces: Int64, place: Callable[[Int64], Float64] | None = None) -> Float64:
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import splu

    count = len(points)
    ring = boundary_loops(faces)[0]
    border = np.zeros(count, bool)
    border[ring] = True
    inner = np.flatnonzero(~border)
    number = np.full(count, -1)
    number[inner] = np.arange(len(inner))
    start, end, weight = _mean_value_weights(points, faces)
    keep = ~border[start]
    start, end, weight = start[keep], end[keep], weight[keep]
    uv = np.full((count, 2), 0.5)
    uv[ring] = _border(points[ring]) if place is None else place(ring)
    area3 = np.linalg.norm(np.cross(*_edges(points, faces)), axis=1) / 2
    best, best_spread = uv, np.inf
    for _ in range(_ROUNDS):
        total = np.bincount(start, weight, count)
        value = weight / total[start]
        to_inner = ~border[end]
        rows, columns = number[start[to_inner]], number[end[to_inner]]
        matrix = coo_matrix((-value[to_inner], (rows, columns)), shape=(len(inner),) * 2).tocsc()
        matrix.setdiag(1.0)
        fixed = value[~to_inner, None] * uv[end[~to_inner]]
        known = np.stack([np.bincount(number[start[~to_inner]], fixed[:, i], len(inner)) for i in (0, 1)], 1)
        uv = uv.copy()
        uv[inner] = splu(matrix).solve(known)
        a, b = _edges(uv, faces)
        area2 = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
        stretch = _stretch(points, faces, uv, area2)
        spread = float(np.sqrt((stretch**2 * area3).sum() / area3.sum() * area2.sum() / area3.sum()))
        if spread >= best_spread:
            break
        best, best_spread = uv, spread
        square, around = np.zeros(count), np.zeros(count)
        for i in range(3):
            square += np.bincount(faces[:, i], stretch**2 * area3, count)
            around += np.bincount(faces[:, i], area3, count)
        per_vertex = np.sqrt(square / np.maximum(around, 1e-30))
        weight = weight / np.maximum(per_vertex[end], 1e-9)
    return best


def _edges(points: Float64, faces: Int64) -> tuple[Float64, Float64]:
    a = points[faces[:, 0]]
    return points[faces[:, 1]] - a, points[faces[:, 2]] - a


def _stretch(points: Float64, faces: Int64, uv: Float64, area2: Float64) -> Float64:
    """Root mean square stretch from texture to surface per face (Sander et al. 2001), float64 [F]."""
    q = [points[faces[:, i]] for i in range(3)]
    p = [uv[faces[:, i]] for i in range(3)]
    double = 2 * np.maximum(area2, 1e-14)[:, None]
    along_u = sum(q[i] * (p[(i + 1) % 3][:, 1] - p[(i + 2) % 3][:, 1])[:, None] for i in range(3)) / double
    along_v = sum(q[i] * (p[(i + 2) % 3][:, 0] - p[(i + 1) % 3][:, 0])[:, None] for i in range(3)) / double
    return np.asarray(np.sqrt(((along_u**2).sum(1) + (along_v**2).sum(1)) / 2), np.float64)


def _border(ring: Float64) -> Float64:
    """Places for the border's vertices on a superellipse in 0..1, spaced as on the head; float64 [N, 2]."""
    length = np.linalg.norm(np.roll(ring, -1, 0) - ring, axis=1)
    # the seam's end, the highest point of the border, comes to the top, and so the neck to the bottom
    along = np.concatenate([[0], np.cumsum(length)[:-1]]) / length.sum()
    top = along[int(np.argmax(ring[:, 1]))]
    fine = np.linspace(0, 2 * np.pi, 4097)
    curve = np.stack([np.cos(fine), np.sin(fine)], 1)
    curve = np.sign(curve) * np.abs(curve) ** (2 / _CORNER)
    distance = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    wanted = (along - top + 0.25) % 1.0 * distance[-1]  # the top lies a quarter round
    angle = np.interp(wanted, distance, fine)
    place = np.stack([np.cos(angle), np.sin(angle)], 1)
    return np.asarray(0.5 + 0.5 * np.sign(place) * np.abs(place) ** (2 / _CORNER), np.float64)


def _mean_value_weights(points: Float64, faces: Int64) -> tuple[Int64, Int64, Float64]:
    """Floater's weights per directed edge: from int64 [E], to int64 [E], positive float64 [E]."""
    starts, ends, weights = [], [], []
    for i in range(3):
        v, a, b = faces[:, i], faces[:, (i + 1) % 3], faces[:, (i + 2) % 3]
        to_a, to_b = points[a] - points[v], points[b] - points[v]
        la = np.maximum(np.linalg.norm(to_a, axis=1), 1e-12)
        lb = np.maximum(np.linalg.norm(to_b, axis=1), 1e-12)
        cosine = np.clip((to_a * to_b).sum(1) / (la * lb), -1 + 1e-9, 1 - 1e-9)
        half = np.sqrt((1 - cosine) / (1 + cosine))  # tangent of half the angle
        half = np.clip(half, 1e-3, 1e3)
        starts += [v, v]
        ends += [a, b]
        weights += [half / la, half / lb]
    return np.concatenate(starts), np.concatenate(ends), np.concatenate(weights)
