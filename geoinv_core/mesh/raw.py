"""The field's own surface in triangles, as marching cubes gives it, cleaned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter

from geoinv_core.mesh.lattice import field_lattice
from geoinv_core.mesh.surface import Surface, close_pits, extract
from geoinv_core.mesh.topology import handles
from geoinv_core.progress import OnProgress

if TYPE_CHECKING:
    from geoinv_core.render.field import Field

RESOLUTION = 256
"""Lattice points along each axis of the box: 1.6 mm on a head of 400 mm a unit."""
FACES = 24_000
_PIT, _OPEN = 0.024, 0.0075
"""World units: pits and tunnels narrower than the first (10 mm) are closed, for the model is not sure of
them, unless a ball of the second's radius (3 mm) fits in, as in an open mouth."""
_BLUR = 0.005
"""World units by which the distance is smoothed."""


def raw_surface(
    field: Field, level: float, neck_y: float | None, on_progress: OnProgress | None = None
) -> Surface:
    """A field's surface, cut at the world height `neck_y`, with about FACES faces or fewer.

    level: raw density of the surface (`GeneratorConfig.surface_level`), which a distance does not need.

    Where open pits turn out to be tunnels, which no single island of UVs can hold, all narrow ones close.

    Raises: GeoInvError (code "surface") for a field without a head; Cancelled.
    """
    values = field_lattice(field, RESOLUTION, level, on_progress)
    step = field.box_warp / (len(values) - 1)
    width = 2 * round(_PIT / step / 2) + 1
    for open_from in (_OPEN, np.inf) if field.density == "sdf" else (np.inf,):
        clean = gaussian_filter(close_pits(values, width, open_from), _BLUR / step)
        surface = extract(clean, field.box_warp, neck_y=neck_y, target_faces=FACES, on_progress=on_progress)
        if handles(surface.faces) <= 0:
            break
    return surface
