"""A field signed like a distance, at points and on a lattice.

All values here are negative inside, positive outside, and 0 on the surface. A density with its threshold
becomes `threshold - density`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
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


def field_query(field: Field, level: float = DENSITY_THRESHOLD) -> Query:
    """The first head of a field as a signed query.

    A density counts from `level` up as inside, and not in the margin of the box, where such models keep the
    backdrop: PanoHead's own crop of x and z, else as much on every side as EG3D's shape extraction blanks.

    Args: level: raw density of the surface (`GeneratorConfig.surface_level`); a distance has none.
    """
    import torch

    from geoinv_core.render import query

    device = field.planes.device

    def evaluate(points: Float32) -> Float32:
        with torch.inference_mode():
            raw, _ = query(field, torch.from_numpy(np.ascontiguousarray(points))[None].to(device))
        return _signed(field, level, raw[0].reshape(-1).float().cpu().numpy(), points.T)

    return evaluate


def field_lattice(
    field: Field, resolution: int, level: float = DENSITY_THRESHOLD, on_progress: OnProgress | None = None
) -> Float32:
    """What `field_query` says on a lattice over the box.

    Exact near the field's own surface; elsewhere, also where the margin cuts, only signs are.

    Returns: float32 [R, R, R]; [i, j, k] lies at x, y, z = linspace(-box/2, box/2, R)[i], [j], [k].
    Raises: Cancelled.
    """
    from geoinv_core.render import sample_grid

    def on_share(share: float) -> None:
        report(on_progress, "surface", 0.7 * share, "Sampling the head")

    threshold = 0.0 if field.density == "sdf" else level
    raw = sample_grid(field, resolution, sparse=True, level=threshold, on_share=on_share)[0]
    axis = np.linspace(-field.box_warp / 2, field.box_warp / 2, resolution, dtype=np.float32)
    places = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    return _signed(field, level, raw.float().cpu().numpy(), places)


def _signed(field: Field, level: float, raw: Float32, places: Iterable[Float32]) -> Float32:
    """Raw values with the sign of a distance, and without a density's margin; places: their x, y and z."""
    if field.density == "sdf":
        return raw
    # densities differ by thousands: cut to a range that smoothing does not shift the surface in
    signed = np.clip(level - raw, -DENSITY_THRESHOLD, DENSITY_THRESHOLD)
    x, y, z = (np.abs(place) for place in places)
    sides, width = ((x, y, z), BLANK * field.box_warp) if field.crop is None else ((x, z), field.crop)
    beyond = (reduce(np.maximum, sides) - (field.box_warp / 2 - width)) / (_EDGE * field.box_warp)
    return np.maximum(signed, np.clip(beyond, -1, 1) * DENSITY_THRESHOLD).astype(np.float32)
