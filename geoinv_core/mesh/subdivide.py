"""Catmull-Clark refinement of a quad mesh that may have open rings and curves to be kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Edges:
    """Undirected edges of a quad mesh.

    ends: int64 [E, 2]. of_face: int64 [F, 4], the edge from each corner to the next. faces: int64 [E], how
    many faces an edge has.
    """

    ends: Int64
    of_face: Int64
    faces: Int64


def edges(faces: Int32) -> Edges:
    """The edges of quads [F, 4]."""
    directed = np.stack([faces, np.roll(faces, -1, 1)], -1).reshape(-1, 2).astype(np.int64)
    ends, number, uses = np.unique(np.sort(directed, 1), axis=0, return_inverse=True, return_counts=True)
    return Edges(ends, number.reshape(-1, 4), uses)


def refine(
    points: Float64, faces: Int32, tags: npt.NDArray[np.bool_], mirror: Int32, curves: npt.NDArray[np.bool_]
) -> tuple[Float64, Int32, npt.NDArray[np.bool_], Int32]:
    """One step (Catmull and Clark 1978); old vertices keep their numbers, edges' follow, then faces'.

    Args:
        points: [V, 3]. faces: [F, 4]. tags: [V, T], handed on where all parents have them.
        mirror: int32 [V]. curves: bool [T], tags whose lines are interpolated by the four-point scheme
        (Dyn, Levin and Gregory 1987) instead, vertices fixed.
    Returns: the same of the refined mesh, [V + E + F] vertices and [4 F] faces.
    """
    count, e = len(points), edges(faces)
    start, end = e.ends.T
    centre = points[faces].mean(1)
    middle = points[e.ends].mean(1)
    inner = e.faces == 2
    beside = np.zeros_like(middle)
    np.add.at(beside, e.of_face.ravel(), np.repeat(centre, 4, 0))
    edge_points = np.where(inner[:, None], 0.5 * middle + 0.25 * beside, middle)

    valence = np.bincount(e.ends.ravel(), minlength=count)[:, None]
    around_faces, around_edges = np.zeros_like(points), np.zeros_like(points)
    used = np.bincount(faces.ravel(), minlength=count)[:, None]
    np.add.at(around_faces, faces.ravel(), np.repeat(centre, 4, 0))
    np.add.at(around_edges, e.ends.ravel(), np.repeat(middle, 2, 0))
    smooth = (around_faces / used + 2 * around_edges / valence + (valence - 3) * points) / valence
    border = np.zeros(count, bool)
    border[e.ends[~inner]] = True
    moved = np.where(border[:, None], points, smooth)

    for tag in np.flatnonzero(curves):
        on = tags[:, tag]
        line = on[start] & on[end]
        moved[on] = points[on]
        edge_points[line] = _four_points(points, e.ends[line])
    edge_number, face_number = count + e.of_face, count + len(e.ends) + np.arange(len(faces))
    before = np.roll(edge_number, 1, 1)
    corner = np.stack([faces, edge_number, np.broadcast_to(face_number[:, None], faces.shape), before], -1)
    new_tags = np.concatenate([tags, tags[start] & tags[end], tags[faces].all(1)])
    return (
        np.concatenate([moved, edge_points, centre]),
        corner.reshape(-1, 4).astype(np.int32),
        new_tags,
        _mirrored(faces, e, mirror),
    )


def _four_points(points: Float64, line: Int64) -> Float64:
    """New points for the edges of simple open or closed lines, int64 [N, 2]."""
    neighbours: dict[int, list[int]] = {}
    for a, b in line.tolist():
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)

    def beyond(at: int, other: int) -> Float64:
        further = [n for n in neighbours[at] if n != other]
        found: Float64 = points[further[0]] if len(further) == 1 else 2 * points[at] - points[other]
        return found

    found = [(9 * (points[a] + points[b]) - beyond(a, b) - beyond(b, a)) / 16 for a, b in line.tolist()]
    return np.asarray(found, np.float64).reshape(-1, 3)


def _mirrored(faces: Int32, e: Edges, mirror: Int32) -> Int32:
    count = len(mirror)
    key = e.ends[:, 0] * count + e.ends[:, 1]
    other = np.sort(mirror[e.ends].astype(np.int64), 1)
    edge = np.searchsorted(key, other[:, 0] * count + other[:, 1])
    order = {tuple(sorted(face)): i for i, face in enumerate(faces.tolist())}
    face = [order[tuple(sorted(corner))] for corner in mirror[faces].tolist()]
    result = np.concatenate([mirror, count + edge, count + len(e.ends) + np.array(face, np.int64)])
    return np.asarray(result, np.int32)
