"""Shapes given by a formula, on a lattice."""

from __future__ import annotations

import numpy as np

from geoinv_core.mesh.lattice import Query


def dense(query: Query, resolution: int, box: float) -> np.ndarray:
    """float32 [R, R, R]; [i, j, k] lies at x, y, z = linspace(-box/2, box/2, R)[i], [j], [k]."""
    axis = np.linspace(-box / 2, box / 2, resolution, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    return query(points).reshape((resolution,) * 3).astype(np.float32)
