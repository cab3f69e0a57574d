"""A field without the lumps on the back of its head, which a model's ghost of hair leaves on a bald one."""

from __future__ import annotations

import numpy as np

from geoinv_core.mesh.lattice import Float32, Query

_RESOLUTION = 128
_RADIUS = 0.045
"""World units: what no ball of this radius fits into is a lump (18 mm; a neck is three times as wide)."""
_BEHIND = (-0.10, -0.14)
"""Depths z over which the opening sets in, behind ears and jaw, which are thin by right."""
_NECK = -0.31
"""World height of the neck's ring: below, the neck is taken to go on as it is there."""


def without_lumps(query: Query, box: float) -> Query:
    """The field, with its solid opened by a ball on the back of the head.

    A morphological opening: what is left are the places of all balls that fit into the solid.

    Args: query: signed values like a distance, world units. box: side of the box that holds the head.
    """
    from scipy.ndimage import distance_transform_edt, map_coordinates

    values = _lattice(query, box)
    step = box / (_RESOLUTION - 1)
    low = max(0, int(np.ceil((_NECK + box / 2) / step)))
    inside = values < 0
    inside[:, :low] = inside[:, low : low + 1]
    padded = np.pad(inside, ((0, 0), (round(_RADIUS / step) + 1, 0), (0, 0)), mode="edge")
    core = distance_transform_edt(padded) * step > _RADIUS
    opened = distance_transform_edt(~core)[:, -_RESOLUTION:] * step - _RADIUS

    def asked(points: Float32) -> Float32:
        value = query(points)
        behind = (_BEHIND[0] - points[:, 2]) / (_BEHIND[0] - _BEHIND[1])
        near = np.flatnonzero(behind > 0)
        place = (points[near].T + box / 2) / step
        ball = map_coordinates(opened, place, order=1, mode="nearest")
        share = np.minimum(behind[near], 1.0)
        # a lump is where the opened solid is well outside; elsewhere the field itself is finer
        value[near] += share * np.maximum(ball - 2 * step - value[near], 0.0)
        return value

    return asked


def _lattice(query: Query, box: float) -> Float32:
    """The field on an aligned lattice over the box, [x, y, z], one slice after the other."""
    axis = np.linspace(-box / 2, box / 2, _RESOLUTION, dtype=np.float32)
    y, z = np.meshgrid(axis, axis, indexing="ij")
    slices = [query(np.stack([np.full_like(y, x), y, z], -1).reshape(-1, 3)).reshape(y.shape) for x in axis]
    return np.stack(slices)
