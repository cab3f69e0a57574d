"""Surfaces that pass through themselves, relaxed where they do so until they no longer do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.crossing import Crossings
from geoinv_core.mesh.smooth_fit import extend, laplacian

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]


Suspects = Callable[[Float64], Bool]
"""Offsets [V, 3] to triangles bool [2 F] (every quad's first, then every second) that may cross others."""
_FLIP = np.array([-1.0, 1.0, 1.0])


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
        self,
        base: Float64,
        offsets: Float64,
        rounds: int = 16,
        suspects: Suspects | None = None,
        mirror: Int32 | None = None,
    ) -> tuple[Float64, int]:
        """Offsets [V, 3] from a base [V, 3] that does not cross itself, evened out where base + offsets does.

        Vertices of crossing faces and those around, more of them from round to round where that does not
        help, get the mean of their neighbours' offsets: where all is even, the surface is as sound as its
        base.

        Args: rounds: at most. suspects: tells what is looked at to begin with; None: all. mirror: int32 [V],
            each vertex's counterpart; where given, the offsets' mirror image is made sound, too, by the same
            steps: offsets that mirror themselves still do.
        Returns: the offsets; how many faces that could move still cross (or do in the mirror image).
        """
        offsets = offsets.copy()
        free, faces, triangles = self._free, self._faces, self._triangles
        views = [(np.arange(len(base)), np.ones(3))] + ([] if mirror is None else [(mirror, _FLIP)])
        crossed = []
        for order, flip in views:
            seen = offsets[order] * flip
            crossed.append(self._able & self._crossings(base + seen, suspects(seen) if suspects else None))
        stubborn = np.zeros(len(base), np.int64)
        for _ in range(rounds):
            bad = np.zeros(len(base), bool)
            for found, (order, _) in zip(crossed, views, strict=True):
                bad[order[triangles[found]]] = True
            if not bad.any():
                break
            stubborn += bad
            region = np.zeros(len(base), bool)
            for level in range(int(stubborn[bad].max()), -1, -1):
                region[faces[region[faces].any(1)]] = True
                region |= bad & (stubborn >= level)
            moving = region & free
            offsets[moving] = extend(self._laplacian, ~moving, moving)(offsets[~moving])
            for found, (order, flip) in zip(crossed, views, strict=True):
                touched: Bool = region[order[triangles]].any(1)
                again = self._crossings(base + offsets[order] * flip, touched)
                found[touched] = False
                found |= again & self._able
        count = len(faces)
        return offsets, max(int((found[:count] | found[count:]).sum()) for found in crossed)


def untangled(
    base: Float64, offsets: Float64, faces: Int32, free: Bool, rounds: int = 16
) -> tuple[Float64, int]:
    """One surface evened out, see `Untangler`."""
    return Untangler(faces, free)(base, offsets, rounds)
