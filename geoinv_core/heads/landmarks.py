"""The 68 landmarks of the iBUG scheme on a drawn head."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from geoinv_core.heads.assets import HeadAssets
from geoinv_core.heads.geometry import HeadGeometry

IBUG = (
    *(
        5402,
        5235,
        869,
        5241,
        737,
        5297,
        5295,
        5293,
        5296,
        11899,
        11901,
        11902,
        7457,
        11850,
        7574,
        11844,
        12001,
    ),
    *(254, 179, 170, 174, 181),
    *(6957, 6950, 6946, 6955, 7023),
    *(132, 131, 201, 5054),
    *(286, 314, 317, 7077, 7055),
    *(17, 0, 54, 4868, 6772, 6776),
    *(11486, 6838, 6784, 6801, 13372, 13368),
    *(369, 447, 356, 455, 7117, 7207, 7129, 7130, 11940, 5337, 5336, 370),
    *(427, 515, 520, 7262, 7187, 7265, 523, 518),
)
"""Vertices of MakeHuman's base.obj: jaw 0-16 from the subject's right ear, brows 17-26, nose 27-35, eyes
36-47, outer lips 48-59, inner lips 60-67. The jaw's are fixed points of the skin, not of the outline that a
view shows."""


def ibug(assets: HeadAssets, geometry: HeadGeometry) -> Tensor:
    """float32 [68, 3], world units, on the drawn skin (expression and beard included)."""
    kept = np.searchsorted(assets.arrays["base_id"], IBUG)
    base_of = assets.skin_corners[0]
    at = torch.zeros(len(assets.rest), dtype=torch.int64, device=assets.device)
    at[base_of] = torch.arange(len(base_of), device=assets.device)
    return geometry.parts[0].vertices[at[assets.tensor(kept, torch.int64)]]
