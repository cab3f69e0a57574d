"""Linear algebra of the template's fit: displacements that follow data and are smooth elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, diags

from geoinv_core.mesh.subdivide import edges

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Smoother:
    """Operators on the vertices of a quad mesh.

    laplacian: [V, V], value minus its neighbours' mean. stiffness: float64 [V], how much each row counts.
    """

    laplacian: csr_matrix
    stiffness: Float64

    def solve(
        self, weight: Float64, target: Float64, start: Float64, smoothness: float, rounds: int = 60
    ) -> Float64:
        """argmin over D of sum w |D - target|² + smoothness * sum stiffness |laplacian D|².

        By conjugate gradients with a diagonal preconditioner, a fixed number of rounds at most: the result
        depends on nothing but its arguments.

        Args: weight [V]; target, start [V, C].
        """
        lap = self.laplacian
        back = lap.T.tocsr()
        stiff = (smoothness * self.stiffness)[:, None]
        w = weight[:, None]
        diagonal = weight + np.asarray(lap.multiply(lap).T @ stiff[:, 0])
        precondition = 1.0 / np.maximum(diagonal, 1e-12)[:, None]

        def apply(d: Float64) -> Float64:
            result: Float64 = w * d + back @ (stiff * (lap @ d))
            return result

        found = start.copy()
        residual = w * target - apply(found)
        ahead = precondition * residual
        way = ahead.copy()
        energy = (residual * ahead).sum(0)
        goal = 1e-10 * np.maximum(energy, 1e-30)
        for _ in range(rounds):
            if (energy <= goal).all():
                break
            pushed = apply(way)
            along = energy / np.maximum((way * pushed).sum(0), 1e-300)
            found += along * way
            residual -= along * pushed
            ahead = precondition * residual
            before, energy = energy, (residual * ahead).sum(0)
            way = ahead + energy / np.maximum(before, 1e-300) * way
        return found


def laplacian(faces: Int32, count: int) -> csr_matrix:
    """[V, V]: each vertex minus the mean of its neighbours along the edges of quads; rows of vertices without
    edges are empty."""
    ends = edges(faces).ends
    a, b = np.concatenate([ends, ends[:, ::-1]]).T
    adjacent = csr_matrix((np.ones(len(a)), (a, b)), shape=(count, count))
    degree = np.asarray(adjacent.sum(1)).ravel()
    inverse = np.where(degree > 0, 1.0 / np.maximum(degree, 1.0), 0.0)
    result: Any = diags((degree > 0).astype(float)) - diags(inverse) @ adjacent
    return csr_matrix(result)


def extend(lap: csr_matrix, known: npt.NDArray[np.bool_], unknown: npt.NDArray[np.bool_]) -> Any:
    """A function that continues values [K, C] at the `known` vertices into the `unknown` ones, where every
    value becomes the mean of its neighbours': no overshoot.

    Returns values [U, C] in the order of the vertices.
    """
    from scipy.sparse.linalg import splu

    rows = np.flatnonzero(unknown)
    solver = splu(lap[rows][:, rows].tocsc())
    border = lap[rows][:, np.flatnonzero(known)]
    return lambda values: solver.solve(np.ascontiguousarray(-(border @ values)))
