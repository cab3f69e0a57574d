"""Reading planes at points in PyTorch, with gradients to both."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as fn


def channels_last(planes: Tensor) -> Tensor:
    """The same planes [B, P, C, (D,) H, W] with whole texels in memory, copied only if they lie otherwise."""
    if planes.stride(2) == 1:
        return planes
    return planes.movedim(2, -1).contiguous().movedim(-1, 2)


def plane_features(planes: Tensor, maps: Tensor, points: Tensor, smooth: bool = False) -> Tensor:
    """Mean over the planes of their bilinear (tri-grids: trilinear) values, zeros outside.

    Args:
        planes: one batch entry, [P, C, H, W] or [P, C, D, H, W]; maps: [P, 3, 3]; points: [N, 3] world.
        smooth: differentiable any number of times in the points, which the faster ways are not.
    Returns: [N, C].
    """
    uvw = points.unsqueeze(0) @ maps
    if planes.device.type == "cpu" or smooth:
        return _bag_of_texels(planes, uvw, smooth)
    grid = uvw[:, :, None, :2] if planes.dim() == 4 else uvw[:, :, None, None, :]
    found = fn.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return found.flatten(2).mean(0).t()


def _bag_of_texels(planes: Tensor, uvw: Tensor, smooth: bool) -> Tensor:
    """Planes as one table of texels: every point is a weighted sum of 4 P (tri-grids: 8 P) of its rows.

    Twice as fast as grid_sample forward and backward on a CPU, since a row's channels lie together and no
    value per plane is ever stored. The table is a view when the planes are channels_last.
    """
    sizes = planes.shape[:1:-1]  # W, H, (D)
    last = planes.movedim(1, -1)  # P, (D), H, W, C
    order = sorted(range(last.dim() - 1), key=last.stride, reverse=True)
    table = last.permute(*order, -1).reshape(-1, last.shape[-1])
    steps, step = {}, 1
    for d in reversed(order):
        steps[d] = step
        step *= last.shape[d]
    position = [((uvw[..., k] + 1) * size - 1) * 0.5 for k, size in enumerate(sizes)]
    lower = [p.detach().floor() for p in position]
    P, N = uvw.shape[:2]
    plane = torch.arange(P, device=planes.device, dtype=torch.int32).unsqueeze(1) * steps[0]
    rows, weights = [], []
    taps = []
    for k, size in enumerate(sizes):
        fraction = position[k] - lower[k]
        # far away or undefined points must not overflow the integers; beyond the border the weight is zero
        first = lower[k].clamp(-2, size + 1).nan_to_num(-2).int()
        pair = []
        for bit, part in ((0, 1 - fraction), (1, fraction)):
            tap = first + bit
            inside = (tap >= 0) & (tap < size)
            pair.append((tap.clamp(0, size - 1) * steps[len(sizes) - k], torch.where(inside, part, 0)))
        taps.append(pair)
    for corner in range(1 << len(sizes)):
        row, weight = plane, None
        for k, pair in enumerate(taps):
            step_to, part = pair[corner >> k & 1]
            row = row + step_to
            weight = part if weight is None else weight * part
        assert weight is not None
        rows.append(row)
        weights.append(weight)
    index = torch.stack(rows, -1).transpose(0, 1).reshape(N, -1)
    parts = (torch.stack(weights, -1).transpose(0, 1).reshape(N, -1) / P).to(table.dtype)
    if smooth:
        return (table[index.long()] * parts.unsqueeze(-1)).sum(1)
    return fn.embedding_bag(index, table, mode="sum", per_sample_weights=parts)
