"""Field values on a lattice to a clean triangle surface, open at the neck."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoinv_core.errors import GeoInvError
from geoinv_core.mesh.cut import cut_below, keep_one_opening
from geoinv_core.mesh.topology import compact, components, face_normals, neighbour_mean, volume
from geoinv_core.progress import OnProgress, report

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_MAX_FACES_PER_CELL_FACE = 40
"""Marching cubes over a head gives about 4 R² faces; noise through the whole box gives R³."""
_SIMILAR = 0.3
"""A second piece of at least this share of the largest one's area is worth a warning."""


@dataclass(frozen=True)
class Surface:
    """vertices: world units float32 [V, 3]; faces: int32 [F, 3], counter-clockwise from outside."""

    vertices: Float32
    faces: Int32
    warnings: tuple[str, ...] = ()


def extract(
    values: Float32,
    box: float = 1.0,
    *,
    neck_y: float | None = None,
    target_faces: int | None = 30_000,
    smoothing: int = 4,
    on_progress: OnProgress | None = None,
) -> Surface:
    """The largest connected piece of the zero level set, cut open at the neck.

    Args:
        values: [R, R, R] signed like a distance (negative inside), index [x, y, z], on
            linspace(-box/2, box/2, R).
        neck_y: world height of the neck's cut. None: the bottom of the box where the field goes on below it,
            and no cut at all for a head that ends inside the box.
        target_faces: the surface is decimated to about this many; None keeps all.
        smoothing: rounds of shrink-free smoothing of the lattice's terraces before decimation.

    Returns: a closed surface, or one with exactly one open ring, planar, at the neck.
    Raises: GeoInvError (code "surface") for an empty or exploded field; Cancelled.
    """
    report(on_progress, "surface", 0.7, "Finding the surface")
    vertices, faces = _march(values, box)
    vertices, faces, warnings = _largest(vertices, faces)
    _check_size(vertices, box)
    vertices = smooth(vertices, faces, smoothing)
    report(on_progress, "surface", 0.85, "Simplifying the surface")
    if target_faces is not None and len(faces) > target_faces:
        vertices, faces = _decimate(vertices, faces, target_faces)
    if volume(vertices, faces) < 0:
        faces = np.ascontiguousarray(faces[:, ::-1])
    cell = box / (values.shape[1] - 1)
    if neck_y is None and (values[:, 0] < 0).any():
        neck_y = -box / 2 + 1.5 * cell
    if neck_y is not None:
        vertices, faces = _open_neck(vertices, faces, neck_y, cell)
    vertices, faces = compact(vertices, faces)
    report(on_progress, "surface", 1.0, "Surface found")
    return Surface(vertices, faces, tuple(warnings))


def close_pits(values: Float32, width: int, open_from: float) -> Float32:
    """The field without its narrow pits and tunnels, about which models are not sure.

    Args:
        values: [R, R, R] signed like a distance.
        width: lattice steps; what is narrower is filled.
        open_from: a pit stays open that holds a point at least this far (in units of `values`) from its
            walls, such as an open mouth, however narrow its ends are.
    Returns: float32 [R, R, R].
    """
    from scipy.ndimage import grey_opening, label, maximum, maximum_filter

    inside = values < 0
    if not inside.any():
        return values
    # only around the head, which fills a third of its box
    spans = [np.flatnonzero(inside.any(axis)) for axis in ((1, 2), (0, 2), (0, 1))]
    part = tuple(slice(max(int(s[0]) - width, 0), int(s[-1]) + width + 1) for s in spans)
    field = values[part]
    closed: Float32 = grey_opening(field, width)
    pits, count = label((closed < 0) & (field >= 0))
    wide = np.zeros(count + 1, bool)
    if count:
        wide[1:] = np.asarray(maximum(field, pits, np.arange(1, count + 1))) >= open_from
    # the walls around a pit that stays open are its own, too
    near = maximum_filter(wide[pits].view(np.uint8), width) > 0
    result = values.copy()
    result[part] = np.where(near, field, closed)
    return result


def smooth(vertices: Float32, faces: Int32, rounds: int) -> Float32:
    """Taubin's smoothing: each round moves to the neighbours' mean and back, so that volume is kept.

    Args: vertices [V, 3]; faces [F, 3] of a closed mesh. Returns: [V, 3].
    """
    mean = neighbour_mean(faces, len(vertices))
    moved = vertices
    for factor in (0.5, -0.53) * rounds:
        moved = moved + np.float32(factor) * (mean(moved) - moved)
    return np.asarray(moved, np.float32)


def _march(values: Float32, box: float) -> tuple[Float32, Int32]:
    import mcubes

    resolution = values.shape[0]
    if values.ndim != 3 or len(set(values.shape)) != 1 or resolution < 8:
        raise ValueError(f"values must be [R, R, R] with R of at least 8, got {list(values.shape)}")
    if not np.isfinite(values).all():
        raise _failed("holds values that are not finite")
    inside = values < 0
    if not inside.any():
        raise _failed("is empty")
    if inside.all():
        raise _failed("fills its whole box")
    # one layer of outside all round closes the surface wherever the head runs out of the box
    spread = np.abs(values).max()
    padded = np.pad(values, 1, constant_values=spread)
    corners, faces = mcubes.marching_cubes(padded, 0.0)
    if len(faces) > _MAX_FACES_PER_CELL_FACE * resolution**2:
        raise _failed("is noise without a surface")
    step = box / (resolution - 1)
    vertices = np.clip((corners - 1) * step - box / 2, -box / 2, box / 2)
    return vertices.astype(np.float32), faces.astype(np.int32)


def _failed(what: str) -> GeoInvError:
    return GeoInvError(
        f"No head could be made: the model's field for this photo {what}; try another photo, "
        "less refinement or smaller edits.",
        "surface",
    )


def _largest(vertices: Float32, faces: Int32) -> tuple[Float32, Int32, list[str]]:
    piece = components(faces, len(vertices))
    area = np.bincount(piece, np.linalg.norm(face_normals(vertices, faces), axis=1))
    order = np.argsort(-area)
    warnings = []
    if len(order) > 1 and area[order[1]] > _SIMILAR * area[order[0]]:
        warnings.append(
            "The model shows two separate objects of similar size; only the larger one became the head: "
            "check that it is the person you meant."
        )
    vertices, faces = compact(vertices, faces[piece == order[0]])
    return vertices, faces, warnings


def _check_size(vertices: Float32, box: float) -> None:
    if float((vertices.max(0) - vertices.min(0)).max()) < 0.1 * box:
        raise _failed("holds nothing larger than a crumb")


def _decimate(vertices: Float32, faces: Int32, target: int) -> tuple[Float32, Int32]:
    import fast_simplification

    # the library takes the share to remove
    fewer = fast_simplification.simplify(vertices, faces, target_reduction=1.0 - target / len(faces))
    points = np.asarray(fewer[0], np.float32)
    triangles = np.asarray(fewer[1], np.int32)
    return compact(points, without_degenerate(points, triangles))


def without_degenerate(vertices: Float32, faces: Int32) -> Int32:
    """Faces of [F, 3] that have three different corners and an area."""
    different = (faces != np.roll(faces, 1, 1)).all(1)
    area = np.linalg.norm(face_normals(vertices, faces), axis=1)
    return np.ascontiguousarray(faces[different & (area > 1e-14)])


def _open_neck(vertices: Float32, faces: Int32, neck_y: float, cell: float) -> tuple[Float32, Int32]:
    low, high = float(vertices[:, 1].min()), float(vertices[:, 1].max())
    if neck_y >= high:
        raise GeoInvError(
            "No head could be made: it lies wholly below its neck's cut, so the model's shape is not a head; "
            "try another photo or less refinement.",
            "surface",
        )
    if neck_y <= low:
        return vertices, faces
    vertices, faces = cut_below(vertices, faces, neck_y, snap=0.4 * cell)
    vertices, faces = keep_one_opening(vertices, faces)
    piece = components(faces, len(vertices))
    area = np.bincount(piece, np.linalg.norm(face_normals(vertices, faces), axis=1))
    return compact(vertices, faces[piece == int(area.argmax())])
