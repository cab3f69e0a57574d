"""Surfaces that pass through themselves, relaxed where they do so until they no longer do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.crossing import Crossings
from geoinv_core.mesh.smooth_fit import extend, laplacian

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]


class Untangler:
    """Evens out surfaces of one topology where they pass through themselves.

    Args: faces: int32 [F, 4]; free: bool [V], which vertices may move.
    """

    def __init__(self, faces: Int32, free: Bool) -> None:
        self._faces, self._free = faces, free
        self._triangles = np.concatenate([faces[:, :3], faces[:, [0, 2, 3]]])
        self._able: Bool = free[self._triangles].any(1)
        self._laplacian = laplacian(faces, len(free))
        self._crossings = Crossings(self._triangles)

    def __call__(
        self, base: Float64, offsets: Float64, rounds: int = 16, suspects: Bool | None = None
    ) -> tuple[Float64, int]:
        """Offsets [V, 3] from a base [V, 3] that does not cross itself, evened out where base + offsets does.

        Vertices of crossing faces and those around, more of them from round to round where that does not
        help, get the mean of their neighbours' offsets: where all is even, the surface is as sound as its
        base.

        Args: rounds: at most. suspects: bool [2 F], triangles (every quad's first, then every second) that
            are looked at to begin with; None: all.
        Returns: the offsets; how many faces that could move still cross.
        """
        faces, triangles, free = self._faces, self._triangles, self._free
        offsets = offsets.copy()
        crossed = self._crossings(base + offsets, suspects) & self._able
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
            offsets[moving] = extend(self._laplacian, ~moving, moving)(offsets[~moving])
            touched: Bool = region[triangles].any(1)
            still = self._crossings(base + offsets, touched)
            crossed = (crossed & ~touched) | (still & self._able)
        return offsets, int((crossed[: len(faces)] | crossed[len(faces) :]).sum())


def untangled(
    base: Float64, offsets: Float64, faces: Int32, free: Bool, rounds: int = 16
) -> tuple[Float64, int]:
    """One surface evened out, see `Untangler`."""
    return Untangler(faces, free)(base, offsets, rounds)
