"""Whether a field holds a head at all, and only one, before a template is laid on it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geoinv_core.errors import GeoInvError
from geoinv_core.mesh.lattice import Query

Bool = npt.NDArray[np.bool_]

_EMPTY, _FULL = 0.02, 0.98
"""Shares of a box around a head that are too little and too much of one."""
_NOISE = 0.25
"""Share of neighbouring points on different sides of the surface from which on it is none: a head has less
than a tenth, noise half."""
_POINTS, _FINER = 24, 40
"""Points a side of the lattices that are asked."""
_SIMILAR = 0.3
"""A second object of at least this share of the largest one's volume is worth a warning."""


class FitError(GeoInvError):
    """The field holds nothing that a head template could lie on."""


def check(query: Query, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> None:
    """Raises FitError where a field is no head in a box with corners [3] around one: not finite, or all
    outside, all inside, or noise."""
    values = _lattice(query, low, high, _POINTS)
    if not np.isfinite(values).all():
        raise failed("holds values that are not finite")
    inside = values < 0
    if inside.mean() < _EMPTY:
        raise failed("is empty")
    if inside.mean() > _FULL:
        raise failed("fills its whole box")
    if np.mean([np.diff(inside, axis=axis).mean() for axis in range(3)]) > _NOISE:
        raise failed("is noise without a surface")


def strangers(query: Query, box: float) -> list[str]:
    """A warning where a field holds a second object nearly as large as the largest in its box of this side,
    world units."""
    from scipy.ndimage import label

    half = np.full(3, box / 2)
    piece, count = label(_lattice(query, -half, half, _FINER) < 0)
    size = np.sort(np.bincount(piece.ravel(), minlength=count + 1)[1:])[::-1]
    if len(size) > 1 and size[1] > _SIMILAR * size[0]:
        return [
            "The model shows two separate objects of similar size; the mesh was laid on what is in the "
            "middle: check that it is the person you meant."
        ]
    return []


def failed(what: str) -> FitError:
    return FitError(
        f"No head could be made: the model's field for this photo {what}; try another photo, "
        "less refinement or smaller edits.",
        "surface",
    )


def _lattice(
    query: Query, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64], count: int
) -> npt.NDArray[np.float32]:
    """Values [count, count, count] between two corners [3]."""
    points = np.stack(np.meshgrid(*np.linspace(low, high, count).T, indexing="ij"), -1)
    return np.asarray(query(points.reshape(-1, 3).astype(np.float32)), np.float32).reshape([count] * 3)
