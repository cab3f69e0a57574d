"""Reading planes at points, with gradients to both."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, grid_sample


def sample_planes(planes: Tensor, projected: Tensor, second_order: bool = True) -> Tensor:
    """Mean over the planes of their bilinear (tri-grids: trilinear) values, zeros outside.

    Args:
        planes: [B, P, C, H, W] or [B, P, C, D, H, W].
        projected: [B, N, P, 3], coordinates in [-1, 1]: first along W, second along H, third along D;
            texel centre i lies at (2i + 1) / W - 1.
        second_order: whether gradients by the points may be differentiated once more (costs memory).
    Returns: [B, N, C].
    """
    if planes.dim() == 6:
        batch, count = planes.shape[:2]
        grid = projected.transpose(1, 2).flatten(0, 1)[:, None, None].to(planes.dtype)
        values = grid_sample(planes.flatten(0, 1), grid, padding_mode="zeros", align_corners=False)
        return values.reshape(batch, count, planes.shape[2], -1).mean(1).transpose(1, 2)
    return _bag_of_texels(planes, projected, second_order)


def _bag_of_texels(planes: Tensor, projected: Tensor, second_order: bool) -> Tensor:
    """Flat planes as one table of texels: every point is a weighted sum of 4 P of its rows.

    Twice as fast as grid_sample forward and backward on a CPU, since a row's channels lie together and no
    value per plane is ever stored. The table is a view when the planes are in channels_last order.
    """
    batch, count, channels, height, width = planes.shape
    table = planes.permute(0, 3, 4, 1, 2).reshape(-1, channels)
    x = projected[..., 0] * (width / 2) + (width - 1) / 2
    y = projected[..., 1] * (height / 2) + (height - 1) / 2
    left, top = x.detach().floor(), y.detach().floor()
    right_part, lower_part = x - left, y - top
    # far away or undefined points must not overflow the integers; beyond the border the weight is zero anyway
    column = left.clamp(-2, width + 1).nan_to_num(-2).int()
    row = top.clamp(-2, height + 1).nan_to_num(-2).int()
    plane = torch.arange(count, device=planes.device, dtype=torch.int32)
    sample = torch.arange(batch, device=planes.device, dtype=torch.int32)[:, None, None] * (
        height * width * count
    )
    indices, weights = [], []
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        i, j = column + dx, row + dy
        inside = (i >= 0) & (i < width) & (j >= 0) & (j < height)
        weight = (right_part if dx else 1 - right_part) * (lower_part if dy else 1 - lower_part)
        weights.append(torch.where(inside, weight / count, 0))
        texel = j.clamp(0, height - 1) * width + i.clamp(0, width - 1)
        indices.append(sample + texel * count + plane)
    points = projected.shape[1]
    rows = torch.stack(indices, -1).reshape(batch * points, 4 * count)
    parts = torch.stack(weights, -1).reshape(batch * points, 4 * count).to(table.dtype)
    if second_order and projected.requires_grad and torch.is_grad_enabled():
        # an embedding bag has no second derivatives
        return (table[rows.long()] * parts.unsqueeze(-1)).sum(1).reshape(batch, points, channels)
    return embedding_bag(rows, table, mode="sum", per_sample_weights=parts).reshape(batch, points, channels)
