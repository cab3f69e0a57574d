"""Surfaces that pass through themselves, relaxed where they do so until they no longer do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.crossing import crossed_triangles
from geoinv_core.mesh.smooth_fit import extend, laplacian

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]


def untangled(
    base: Float64,
    offsets: Float64,
    faces: Int32,
    free: Bool,
    rounds: int = 16,
    suspects: Bool | None = None,
) -> tuple[Float64, int]:
    """Offsets [V, 3] from a base [V, 3] that does not cross itself, evened out where base + offsets does.

    Vertices of crossing faces and those around, more of them from round to round where that does not help,
    get the mean of their neighbours' offsets: where all is even, the surface is as sound as its base.

    Args: faces: int32 [F, 4]; free: bool [V], which vertices may move. rounds: at most.
        suspects: bool [2 F], triangles (every quad's first, then every second) that are looked at to begin
            with; None: all.
    Returns: the offsets; how many faces that could move still cross.
    """
    triangles = np.concatenate([faces[:, :3], faces[:, [0, 2, 3]]])
    lap = laplacian(faces, len(base))
    offsets, able = offsets.copy(), free[triangles].any(1)
    crossed = crossed_triangles(base + offsets, triangles, suspects) & able
    stubborn = np.zeros(len(base), np.int64)
    for _ in range(rounds):
        if not crossed.any():
            break
        bad = np.zeros(len(base), bool)
        bad[triangles[crossed]] = True
        stubborn += bad
        region = np.zeros(len(base), bool)
        for level in range(int(stubborn[bad].max()), -1, -1):
            region[faces[region[faces].any(1)]] = True
            region |= bad & (stubborn >= level)
        moving = region & free
        offsets[moving] = extend(lap, ~moving, moving)(offsets[~moving])
        touched = region[triangles].any(1)
        still = crossed_triangles(base + offsets, triangles, touched)
        crossed = (crossed & ~touched) | (still & able)
    return offsets, int((crossed[: len(faces)] | crossed[len(faces) :]).sum())
