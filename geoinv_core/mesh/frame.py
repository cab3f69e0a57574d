"""World units to Blender's metres and back.

World: x to the subject's left, y up, the face looks along +z, one unit is `unit_mm` millimetres.
Blender: metres, Z up, face towards -Y, origin at the centre of the neck's cut ring:
(x, y, z)_blender = (x, -z, y)_world-from-origin * unit_mm / 1000.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geoinv_core.errors import ModelError
from geoinv_core.mesh.topology import boundary_loops

Points = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Frame:
    """Where Blender's origin lies in the world, and how long a world unit is.

    origin: world position of Blender's origin, three numbers.
    unit_mm: millimetres in one world unit, positive.
    """

    origin: tuple[float, float, float]
    unit_mm: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.origin).all() and np.isfinite(self.unit_mm) and self.unit_mm > 0):
            raise ModelError(
                f"The head has no usable size (unit {self.unit_mm} mm, origin {self.origin}): "
                "its model file is damaged or of another kind; choose another model."
            )

    def to_blender(self, points: Points) -> npt.NDArray[np.float32]:
        """World points [..., 3] to metres in Blender's axes, float32 [..., 3]."""
        return _turn(np.asarray(points, np.float64) - self.origin, self.unit_mm / 1000.0)

    def to_world(self, points: Points) -> npt.NDArray[np.float32]:
        """Metres in Blender's axes [..., 3] to world points, float32 [..., 3]."""
        p = np.asarray(points, np.float64) * (1000.0 / self.unit_mm)
        world = np.stack([p[..., 0], p[..., 2], -p[..., 1]], -1) + np.asarray(self.origin)
        return np.asarray(world, np.float32)

    def vectors_to_blender(self, vectors: Points) -> npt.NDArray[np.float32]:
        """World offsets [..., 3] to metres in Blender's axes (no origin), float32 [..., 3]."""
        return _turn(np.asarray(vectors, np.float64), self.unit_mm / 1000.0)


def neck_frame(vertices: Points, faces: npt.NDArray[np.int32], unit_mm: float) -> Frame:
    """The frame whose origin is the centre of the mesh's longest open ring (the neck's cut).

    A mesh without an open ring (a model that ends in a closed neck) gets the middle of its lowest tenth.

    Args:
        vertices: world units [V, 3]; faces: [F, 3].
    """
    loops = boundary_loops(faces)
    if loops:
        ring = max((vertices[loop].astype(np.float64) for loop in loops), key=_length)
        # weighted by edge length, so that an uneven spacing of the ring does not move the centre
        edges = np.roll(ring, -1, 0) - ring
        weight = np.linalg.norm(edges, axis=1, keepdims=True)
        centre = ((ring + edges / 2) * weight).sum(0) / weight.sum()
    else:
        low, high = vertices[:, 1].min(), vertices[:, 1].max()
        bottom = vertices[vertices[:, 1] <= low + 0.1 * (high - low)]
        centre = np.array([*((bottom.max(0) + bottom.min(0)) / 2)], np.float64)
        centre[1] = low
    return Frame((float(centre[0]), float(centre[1]), float(centre[2])), float(unit_mm))


def _turn(points: npt.NDArray[np.float64], scale: float) -> npt.NDArray[np.float32]:
    return np.asarray(np.stack([points[..., 0], -points[..., 2], points[..., 1]], -1) * scale, np.float32)


def _length(ring: npt.NDArray[np.float64]) -> float:
    return float(np.linalg.norm(np.roll(ring, -1, 0) - ring, axis=1).sum())
