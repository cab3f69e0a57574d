"""Values of a field on a regular lattice, evaluated only where the surface is.

All values here are *signed like a distance*: negative inside, positive outside, the surface at 0. A density
with its threshold becomes `threshold - density`. Lattice point [i, j, k] lies at x, y, z =
linspace(-box/2, box/2, R)[i], [j], [k].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from geoinv_core.progress import OnProgress, report

if TYPE_CHECKING:
    from geoinv_core.render.field import Field

Float32 = npt.NDArray[np.float32]
Query = Callable[[Float32], Float32]
"""World points float32 [N, 3] to signed values float32 [N]."""

DENSITY_THRESHOLD = 10.0
"""Raw density (before softplus) at which EG3D's own shape extraction puts the surface."""

BLANK = 30 / 256
"""Share of the box that EG3D's shape extraction blanks on every side."""

_EDGE = 0.01
"""Share of the box over which the margin's edge falls off, so that the surface there is smooth."""
_CHUNK = 1 << 18


def dense(query: Query, resolution: int, box: float, on_progress: OnProgress | None = None) -> Float32:
    """All R³ points. Returns: float32 [R, R, R]."""
    axis = np.linspace(-box / 2, box / 2, resolution, dtype=np.float32)
    values = np.empty(resolution**3, np.float32)
    for start in range(0, len(values), _CHUNK):
        report(on_progress, "surface", 0.7 * start / len(values), "Sampling the head")
        index = np.unravel_index(np.arange(start, min(start + _CHUNK, len(values))), (resolution,) * 3)
        values[start : start + _CHUNK] = query(np.stack([axis[i] for i in index], -1))
    return values.reshape((resolution,) * 3)


def sparse(
    query: Query, resolution: int, box: float, on_progress: OnProgress | None = None, block: int = 4
) -> Float32:
    """The lattice of `dense`, with exact values only near the surface; elsewhere only the sign is right.

    Every `block`-th point is evaluated first. Blocks whose corners differ in sign, and their neighbours, are
    then evaluated in full; a detail that is thinner than a block and touches none of these is missed.

    Args: resolution: rounded up so that (resolution - 1) is a multiple of `block`.
    Returns: float32 [R, R, R].
    """
    from scipy.ndimage import binary_dilation

    cells = -(-(resolution - 1) // block)
    size = cells * block + 1
    coarse = dense(query, cells + 1, box)
    report(on_progress, "surface", 0.15, "Sampling the head")
    inside = coarse < 0
    corners = [
        inside[i : cells + i, j : cells + j, k : cells + k] for i in (0, 1) for j in (0, 1) for k in (0, 1)
    ]
    mixed = np.logical_or.reduce(corners) & ~np.logical_and.reduce(corners)
    finite = np.isfinite(coarse).all()
    active = binary_dilation(mixed, np.ones((3, 3, 3), bool)) if finite else np.zeros_like(mixed)

    # a point belongs to the active set where any block around it is active
    nearest = np.minimum((np.arange(size) + block // 2) // block, cells)
    values: Float32 = coarse[np.ix_(nearest, nearest, nearest)]
    wanted = np.zeros((size,) * 3, bool)
    own = np.minimum(np.arange(size) // block, cells - 1)
    wanted |= active[np.ix_(own, own, own)]
    index = np.argwhere(wanted)
    axis = np.linspace(-box / 2, box / 2, size, dtype=np.float32)
    for start in range(0, len(index), _CHUNK):
        report(on_progress, "surface", 0.15 + 0.55 * start / len(index), "Sampling the head")
        part = index[start : start + _CHUNK]
        values[part[:, 0], part[:, 1], part[:, 2]] = query(axis[part])
    return values


def field_query(field: Field, level: float | None = None) -> Query:
    """The first head of a field as a signed query.

    A density counts from `level` up as inside, and not in the margin of the box, where such models keep the
    backdrop: PanoHead's own crop of x and z, else as much on every side as EG3D's shape extraction blanks.

    Args: level: raw density of the surface (`GeneratorConfig.surface_level`); a distance has none.
    """
    import torch

    from geoinv_core.render import query

    device = field.planes.device
    is_distance = field.density == "sdf"
    threshold = DENSITY_THRESHOLD if level is None else level

    def evaluate(points: Float32) -> Float32:
        with torch.inference_mode():
            values, _ = query(field, torch.from_numpy(np.ascontiguousarray(points))[None].to(device))
        found: Float32 = values[0].reshape(-1).float().cpu().numpy()
        if is_distance:
            return found
        # densities differ by thousands: cut to a range that smoothing does not shift the surface in
        signed = np.clip(threshold - found, -DENSITY_THRESHOLD, DENSITY_THRESHOLD)
        beyond = np.abs(points).max(1) if field.crop is None else np.abs(points[:, [0, 2]]).max(1)
        beyond = (beyond - (field.box_warp / 2 - margin(field))) / (_EDGE * field.box_warp)
        return np.maximum(signed, np.clip(beyond, -1, 1) * DENSITY_THRESHOLD).astype(np.float32)

    return evaluate


def margin(field: Field) -> float:
    """World units at the sides of the box in which a density's surface does not count; 0 for distances."""
    if field.density == "sdf":
        return 0.0
    return BLANK * field.box_warp if field.crop is None else field.crop
