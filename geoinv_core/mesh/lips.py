"""Lips that meet over an open jaw: what the key mouthClose stands for in face tracking.

ARKit's mouthClose is "closure of the lips independent of jaw position": a tracker sends it together with
jawOpen for somebody who drops the jaw behind closed lips. So at 1 it takes back what jawOpen at 1 parts, the
lower lip more of it than the upper one, and the skin between them and chin and nose is stretched.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.smooth_fit import extend, laplacian
from geoinv_core.mesh.template import Template

Float64 = npt.NDArray[np.float64]

_LOWER = 0.65
"""Share of the way that the lower lip goes."""
_REACH = 0.075
"""World units (3 cm) from the line between the lips within which skin goes along."""


def closing(template: Template, pairs: npt.NDArray[np.int64], jaw: Float64) -> Float64:
    """Offsets [V, 3] that bring lips together again which the offsets `jaw` [V, 3] part.

    Args: pairs: [N, 2] vertices of the upper lip's edge or an upper lid's, and those across from them.
    """
    upper, lower = pairs[template.tagged("lip_line")[pairs[:, 0]]].T
    parted = jaw[upper] - jaw[lower]
    offsets = np.zeros_like(jaw)
    offsets[lower], offsets[upper] = _LOWER * parted, (_LOWER - 1) * parted
    line = template.tagged("lip_line")
    place = template.vertices.astype(np.float64)
    near = np.full(len(place), np.inf)
    for at in place[line]:
        near = np.minimum(near, ((place - at) ** 2).sum(1))
    moving = (near < _REACH**2) & ~line
    offsets[moving] = extend(laplacian(template.faces, len(place)), ~moving, moving)(offsets[~moving])
    return offsets
