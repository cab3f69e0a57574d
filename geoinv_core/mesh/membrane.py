"""Smooth functions on a mesh that meet known values: the membrane of Poisson image editing, on the surface.

Poisson blending (Pérez, Gangnet and Blake 2003) adds to the pasted-into picture the smoothest function that
takes the known difference at the paste's border. Here that function lives on the mesh's vertices, not on the
texture's pixels: it is as smooth as their spacing resolves, one sparse solve gives it exactly whatever the
texture's size, and no seam of the UVs can show in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.topology import face_normals

Float = npt.NDArray[np.floating[Any]]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]

_EDGE = 0.06
_STEP = 0.01
"""Colour change over so many world units at which a border between materials (the hairline) insulates."""
_LEAK = 0.02
"""How much of a full border still gets through."""


class Membrane:
    """The graph of one mesh, prepared for `span`."""

    def __init__(self, vertices: Float32, faces: Int32, guide: Float32) -> None:
        """vertices: [V, 3]; faces: [F, 3]; guide: [V, C] colours 0..1, whose edges the membrane respects."""
        from scipy.sparse import coo_matrix, diags

        count = len(vertices)
        double_area = np.linalg.norm(face_normals(vertices, faces), axis=1)
        area = np.bincount(faces.ravel(), np.repeat(double_area / 6, 3), count)
        self.area: Float64 = np.maximum(area, 1e-3 * area.mean())
        points, colours = vertices.astype(np.float64), guide.astype(np.float64)
        starts, ends, stiffness = [], [], []
        for i in range(3):
            a, b, c = (faces[:, (i + k) % 3] for k in range(3))
            u, v = points[a] - points[c], points[b] - points[c]
            cotangent = (u * v).sum(1) / np.maximum(double_area, 1e-14)
            length = np.linalg.norm(points[a] - points[b], axis=1)
            change = np.linalg.norm(colours[a] - colours[b], axis=1) / np.maximum(length, 1e-9) * _STEP
            through = np.maximum(np.exp(-((change / _EDGE) ** 2)), _LEAK)
            # negative cotangents, of obtuse corners, would let values leave the range of the known ones
            value = 0.5 * np.clip(cotangent, 0.05, 5.0) * through
            starts += [a, b]
            ends += [b, a]
            stiffness += [value, value]
        row, column, value = (np.concatenate(part) for part in (starts, ends, stiffness))
        weight = coo_matrix((value, (row, column)), shape=(count, count)).tocsc()
        self._laplacian = diags(np.asarray(weight.sum(1)).ravel()) - weight

    def span(self, values: Float, known: Float, detail: float, reach: float) -> Float32:
        """The function c [V, C] that minimises the integral of |grad c|² + known |c - values|² / detail² +
        |c|² / reach².

        Args:
            values: [V, C]; known: [V], 0 (not) .. 1 (fully); detail: world units below which `values` are
                smoothed; reach: world units over which c falls off to zero where nothing is known.
        """
        from scipy.sparse import diags
        from scipy.sparse.linalg import splu

        pull = self.area * known / detail**2
        matrix = self._laplacian + diags(pull + self.area / reach**2)
        solver = splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
        return np.asarray(solver.solve(pull[:, None] * values.astype(np.float64)), np.float32)
