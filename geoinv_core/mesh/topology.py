"""Connectivity of triangle meshes, vectorised: edges, boundary loops, components, normals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Int = npt.NDArray[np.integer[Any]]
Float = npt.NDArray[np.floating[Any]]


def boundary_loops(faces: Int) -> list[npt.NDArray[np.int64]]:
    """The open rings of a triangle mesh [F, 3], each int64 [N], in the order of the faces' own edges.

    At a vertex where two rings touch, either way on is taken; every boundary edge is used once.
    """
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    if not len(directed):
        return []
    size = int(directed.max()) + 1
    key = directed[:, 0] * size + directed[:, 1]
    open_edges = directed[~np.isin(key, directed[:, 1] * size + directed[:, 0])]
    following: dict[int, list[int]] = {}
    for start, end in open_edges.tolist():
        following.setdefault(start, []).append(end)
    loops = []
    while following:
        start = next(iter(following))
        loop = [start]
        at = _step(following, start)
        while at != start and at in following:
            loop.append(at)
            at = _step(following, at)
        loops.append(np.array(loop, np.int64))
    return loops


def _step(following: dict[int, list[int]], at: int) -> int:
    ends = following[at]
    end = ends.pop()
    if not ends:
        del following[at]
    return end


def handles(faces: Int) -> int:
    """How many handles a connected manifold mesh [F, 3] has: its genus."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1).astype(
        np.int64
    )
    edge_count = len(np.unique(edges[:, 0] * (int(faces.max()) + 1) + edges[:, 1]))
    euler = len(np.unique(faces)) - edge_count + len(faces)
    return (2 - len(boundary_loops(faces)) - euler) // 2


def components(faces: Int, count: int) -> npt.NDArray[np.int32]:
    """int32 [F]: the connected component of each face of [F, 3]; faces that share a vertex are connected."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    start, end = faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel()
    graph = coo_matrix((np.ones(len(start), np.int8), (start, end)), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    per_vertex: npt.NDArray[np.int32] = np.asarray(label, np.int32)
    per_face: npt.NDArray[np.int32] = per_vertex[faces[:, 0]]
    return per_face


def compact(vertices: Float, faces: Int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """The same mesh without vertices that no face uses."""
    used = np.zeros(len(vertices), bool)
    used[faces.ravel()] = True
    number = np.cumsum(used) - 1
    return np.ascontiguousarray(vertices[used], np.float32), number[faces].astype(np.int32)


def unit(vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Vectors [..., 3] of length 1; the zero vector stays what it is."""
    scaled: npt.NDArray[Any] = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-30)
    return scaled


def face_normals(vertices: Float, faces: Int) -> npt.NDArray[np.float64]:
    """Area-weighted face normals (twice the area long), float64 [F, 3]."""
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    normals: npt.NDArray[np.float64] = np.cross(b - a, c - a)
    return normals


def vertex_normals(vertices: Float, faces: Int) -> npt.NDArray[np.float32]:
    """Unit vertex normals, float32 [V, 3]; weighted by face area. A vertex without area gets (0, 0, 1)."""
    weighted = face_normals(vertices, faces)
    total = np.zeros((len(vertices), 3))
    for axis in range(3):
        for corner in range(3):
            total[:, axis] += np.bincount(faces[:, corner], weighted[:, axis], len(vertices))
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 1e-20, total / np.maximum(length, 1e-20), [0.0, 0.0, 1.0]).astype(np.float32)


def neighbour_mean(faces: Int, count: int) -> Callable[[Float], npt.NDArray[np.float32]]:
    """A function that replaces values per vertex [V, C] by the mean over each vertex's neighbours."""
    from scipy.sparse import coo_matrix

    start, end = faces[:, [0, 1, 2, 1, 2, 0]].ravel(), faces[:, [1, 2, 0, 0, 1, 2]].ravel()
    weight = coo_matrix((np.ones(len(start), np.float32), (start, end)), shape=(count, count)).tocsr()
    weight.data[:] = 1.0
    degree = np.maximum(np.asarray(weight.sum(1), np.float32), 1.0)
    return lambda values: np.asarray(weight @ np.asarray(values, np.float32) / degree, np.float32)


def volume(vertices: Float, faces: Int) -> float:
    """Signed volume of a closed mesh; positive where its faces look outwards."""
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6.0)
