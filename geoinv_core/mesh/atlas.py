"""UVs of a triangle mesh without overlaps: one island for a head, xatlas' charts for everything else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geoinv_core.errors import GeoInvError
from geoinv_core.mesh.disk import flatten
from geoinv_core.progress import OnProgress, report

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


def unwrap(
    vertices: Float32,
    faces: Int32,
    texture: int = 1024,
    padding: int = 8,
    on_progress: OnProgress | None = None,
) -> Float32:
    """UVs of every face corner.

    A head without handles, open at the neck, becomes one island with its seam up the back of the head (see
    `disk`); its face has no seam at all. Other meshes get charts, which take about 5 s for 30 000 faces.

    Args:
        vertices: [V, 3]; faces: [F, 3], both in any unit.
        texture: side of the picture in pixels, for which the gaps are laid out.
        padding: pixels between charts.

    Returns: float32 [F, 3, 2] in 0..1, origin at the lower left corner as Blender has it.
    Raises: GeoInvError where the mesh has no area that could be unwrapped.
    """
    report(on_progress, "texture", 0.0, "Unwrapping the surface")
    island = flatten(vertices, faces)
    if island is None:
        uv = _charts(vertices, faces, texture, padding)
    else:
        margin = padding / 2 / texture
        uv = (margin + island * (1 - 2 * margin)).astype(np.float32)
    report(on_progress, "texture", 0.4, "Surface unwrapped")
    return uv


def _charts(vertices: Float32, faces: Int32, texture: int, padding: int) -> Float32:
    import xatlas

    atlas = xatlas.Atlas()
    atlas.add_mesh(np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.uint32))
    charts = xatlas.ChartOptions()
    charts.max_iterations = 1
    packing = xatlas.PackOptions()
    packing.resolution = texture
    packing.padding = padding
    packing.rotate_charts_to_axis = True
    atlas.generate(charts, packing)
    if atlas.width == 0 or atlas.atlas_count == 0:
        raise GeoInvError(
            "The head's surface could not be unwrapped for its texture, because it has no area; "
            "try another photo or less refinement.",
            "surface",
        )
    source, corners, uv = atlas[0]
    if len(corners) != len(faces) or not (np.asarray(source)[corners] == faces).all():
        raise GeoInvError(
            "The head's surface could not be unwrapped for its texture, because some of its faces are "
            "degenerate; try another resolution of the surface.",
            "surface",
        )
    # xatlas scales u and v by width and height apart; one scale for both keeps the charts' proportions
    size = np.array([atlas.width, atlas.height], np.float32)
    corner_uv: Float32 = np.asarray(uv, np.float32)[np.asarray(corners)] * (size / size.max())
    return np.clip(corner_uv, 0.0, 1.0)
