"""The field's relief that a mesh is too coarse for, as a normal map in tangent space (+Y up, as glTF and
Blender read it): strands of hair, lids, wings of the nose."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.bake import paint, texel_map
from geoinv_core.mesh.lattice import Query
from geoinv_core.mesh.strands import Hair, strands_slope
from geoinv_core.mesh.tangents import across, tangent_frames
from geoinv_core.mesh.topology import unit, vertex_normals
from geoinv_core.mesh.visibility import smooth_step

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]

MAX_SIZE = 1024
"""Side of the picture: its texels are finer than what the planes of a field can tell."""
_CORNERS = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], np.float32)
"""Of a tetrahedron: four values around a point tell the slope there."""
_OFF_SURFACE = (0.004, 0.012)
"""Distance of mesh and field, world units, over which the field's slope loses all credit."""
_TURNED = (-0.1, 0.25)
"""Cosine between both normals, below which the field shows another part of the head."""


def normal_map(
    vertices: Float32,
    faces: Int32,
    uv: Float32,
    distance: Query,
    reach: float,
    size: int,
    blank: npt.NDArray[Any] | None = None,
    hair: Hair | None = None,
) -> UInt8:
    """uint8 [T, T, 3], T at most `MAX_SIZE`; (128, 128, 255) where the mesh is believed.

    Args:
        vertices: world [V, 3]; faces: [F, 3]; uv: [F, 3, 2] in 0..1, origin lower left.
        distance: of the field, world units.
        reach: how far apart the slope is taken, world units: a texel of the field's planes. Within one it
            turns where interpolation does, and skin would look scratched.
        size: of the albedo, pixels.
        blank: bool [V], where the field shows nothing of the mesh, as inside the mouth.
        hair: where there are strands, see `strands`; None: nowhere.
    """
    texels = texel_map(uv, min(size, MAX_SIZE))
    points = texels.interpolate(vertices, faces)
    normals = unit(texels.interpolate(vertex_normals(vertices, faces), faces))
    tangents, hands = tangent_frames(vertices, faces, uv)
    tangent = across(np.einsum("nk,nkc->nc", texels.weights, tangents[texels.face]), normals)
    bitangent = np.cross(normals, tangent) * hands[texels.face, None]

    away = distance(points)
    # asked where the field's own surface is
    slope = unit(_slope(distance, points - normals * away[:, None], reach))
    credit = 1.0 - smooth_step(np.abs(away), *_OFF_SURFACE)
    credit = credit * smooth_step((slope * normals).sum(1), *_TURNED)
    if blank is not None:
        credit = credit * (1.0 - texels.interpolate(np.asarray(blank, np.float32)[:, None], faces)[:, 0])
    bent = unit(normals + credit[:, None] * (slope - normals))
    if hair is not None:
        bent = unit(bent - strands_slope(texels, points, hair.at(texels, faces)))
    local = np.stack([(bent * axis).sum(1) for axis in (tangent, bitangent, normals)], 1)
    return paint(texels, 0.5 + 0.5 * local)


def _slope(distance: Query, points: Float32, reach: float) -> Float32:
    """Gradient [N, 3] of a field there, of any length."""
    return np.stack([distance(points + reach * corner) for corner in _CORNERS], 1) @ _CORNERS
