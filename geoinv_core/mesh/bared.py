"""Teeth that a photo shows where the mesh has lips: they have shells of their own, and lips stay lips."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.visibility import smooth_step

Float32 = npt.NDArray[np.float32]

_RED = 0.75
"""Quantile of redness on the lips' place that is the lips' own: teeth cover less of it than lips do."""
_PALE = (0.3, 0.65)
"""Shares of the lips' redness up to which a colour is none of theirs, and from which on it is."""
_DARK = (0.25, 0.5)
"""The same for brightness: gaps between lips."""
_GREY = 0.06
"""Redness of lips below which a photo does not tell them from teeth."""
_FEWEST = 50


def lips_alone(colour: Float32, weight: Float32, lips: Float32) -> Float32:
    """Factors [N] for the weights of texels: 1 but for those of lips whose colours are not lips'.

    Args: colour: albedo [N, 3], sRGB-encoded 0..1. weight: [N], 0 where nothing is seen. lips: share of each
        texel that belongs to them [N].
    """
    seen = (lips > 0.5) & (weight > 0.5 * weight.max(initial=0.0))
    factor = np.ones(len(colour), np.float32)
    if seen.sum() < _FEWEST:
        return factor
    mean = colour.mean(1)
    red = (colour[:, 0] - colour[:, 1:].mean(1)) / (mean + 0.05)
    usual, bright = np.quantile(red[seen], _RED), np.median(mean[seen])
    if usual < _GREY:
        return factor
    own = smooth_step(red / usual, *_PALE) * smooth_step(mean / bright, *_DARK)
    return np.asarray(1 - smooth_step(lips, 0.0, 0.5) * (1 - own), np.float32)
