"""Expressions, and weight, that change nothing where nothing moves.

Every style reaches every texel, so a code that opens the jaw also touches the hair a little. The generator's
own displacement fields say where an edit moves anything; elsewhere the planes stay those of the code
without it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d

from geoinv_core.generator import TriplaneGenerator

STILL, MOVING = 0.2, 0.4
"""Shares of the largest displacement below which a place is taken to stay, and above which to move: the
mapping knows the displacements of an expression to a few per cent, so everything drifts by a millimetre."""
_REACH = 5  # texels of a field around what moves that go along: lips swell and skin creases beside it


def moved_planes(generator: TriplaneGenerator, before: Tensor, after: Tensor) -> Tensor:
    """The planes of a code where it moves what another shows, and that one's elsewhere.

    Args: before, after: styles [1, L, w_dim], without and with an edit.
    Returns: as generator.planes(after). Without displacement fields it is exactly that.
    """
    changed, flow = generator.planes(after), generator.backbone.flow
    if flow is None:
        return changed
    kept = generator.planes(before)
    moves = (flow.offsets(after[:, 0]) - flow.offsets(before[:, 0])).norm(dim=3)  # [1, P, D, R, R]
    share = moving_share(moves.flatten(0, 1))
    height, width = changed.shape[-2:]
    share = interpolate(share, (height, width), mode="bilinear", align_corners=False)
    shape = (1, changed.shape[1], 1, *([] if changed.dim() == 5 else [share.shape[1]]), height, width)
    return torch.lerp(kept, changed, share.view(shape))


def moving_share(moves: Tensor) -> Tensor:
    """Lengths of displacements [N, D, R, R] to how much each place follows the new code, 0..1, smooth."""
    largest = moves.amax().clamp_min(1e-6)
    share = ((moves / largest - STILL) / (MOVING - STILL)).clamp(0, 1)
    reach = max_pool2d(share, _REACH, 1, _REACH // 2)
    return avg_pool2d(reach, _REACH, 1, _REACH // 2, count_include_pad=False)
