"""The light on a head, from colours seen under it and the colours without it.

Diffuse light depends on the normal alone, to within about one percent as second-order spherical harmonics
(Ramamoorthi and Hanrahan 2001). Here the logarithm of light over albedo is such a polynomial, so that light
is positive and a global factor is one term. It is fitted robustly over the whole face: the errors that a
model's albedo has at single places average out, and what the light does not explain stays in the texture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.floating[Any]]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

LIMITS = (0.25, 3.0)
"""Light outside of these is not believed."""
_DARK = 0.02
"""Added to linear colours before they are divided, so that the noise of dark pixels is not amplified."""
_RIDGE = np.array([1e-4, *[0.01] * 3, *[0.05] * 5])
"""Pull towards the prior per term, against a mean weight of 1: directions that nothing shows stay there."""
_ROUNDS = 6


@dataclass(frozen=True)
class Light:
    """coefficients: float64 [9, 3], of the logarithm, per linear colour channel."""

    coefficients: Float64

    def on(self, normals: Float) -> Float32:
        """The logarithm of the light on surfaces with these unit normals [N, 3]; float32 [N, 3]."""
        return np.asarray(_harmonics(normals) @ self.coefficients, np.float32)


UNLIT = Light(np.zeros((9, 3)))
"""Light that leaves albedo as it is."""


def log_ratio(lit: Float, albedo: Float) -> Float64:
    """Logarithm of lit over albedo, both linear 0..1 [N, 3]."""
    return np.asarray(np.log((lit + _DARK) / (albedo + _DARK)), np.float64)


def fit_light(normals: Float, ratio: Float, weight: Float, prior: Light = UNLIT) -> Light:
    """The light that explains lit colours.

    Args:
        normals: unit [N, 3]; ratio: `log_ratio` [N, 3]; weight: [N], how far each is to be believed.
        prior: what holds where the normals say nothing.
    """
    total = float(weight.sum())
    if total <= 0:
        return prior
    terms = _harmonics(normals)
    rest = ratio - terms @ prior.coefficients
    found = np.zeros((9, 3))
    trust = np.asarray(weight, np.float64)
    for _ in range(_ROUNDS):
        weighted = terms * trust[:, None]
        found = np.linalg.solve(weighted.T @ terms + total * np.diag(_RIDGE), weighted.T @ rest)
        error = np.linalg.norm(rest - terms @ found, axis=1)
        spread = np.median(error[weight > 0]) + 1e-6
        trust = weight / (1 + (error / (1.5 * spread)) ** 2)  # Cauchy's weights
    return Light(prior.coefficients + found)


def _harmonics(normals: Float) -> Float64:
    x, y, z = np.asarray(normals, np.float64).T
    return np.stack([np.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1], 1)
