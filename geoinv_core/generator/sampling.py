"""Reading planes at points, with gradients to both."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def sample_planes(planes: Tensor, projected: Tensor) -> Tensor:
    """Mean over the planes of their bilinear (tri-grids: trilinear) values, zeros outside.

    Args:
        planes: [B, P, C, H, W] or [B, P, C, D, H, W].
        projected: [B, P, N, 3], coordinates in [-1, 1]: first along W, second along H, third along D;
            texel centre i lies at (2i + 1) / W - 1.
    Returns: [B, N, C].
    """
    batch, count = planes.shape[:2]
    points = projected.flatten(0, 1)
    if planes.dim() == 6:
        grid = points[:, None, None]
    else:
        grid = points[:, None, :, :2]
    values = F.grid_sample(
        planes.flatten(0, 1), grid.to(planes.dtype), mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return values.reshape(batch, count, planes.shape[2], -1).mean(1).transpose(1, 2)


