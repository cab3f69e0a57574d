"""The sRGB transfer curve (IEC 61966-2-1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


def to_linear(encoded: npt.NDArray[Any]) -> Float32:
    """sRGB-encoded 0..1 to linear light."""
    value = np.asarray(encoded, np.float32)
    return np.where(value <= 0.04045, value / 12.92, ((np.maximum(value, 0.0) + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: npt.NDArray[Any]) -> Float32:
    """Linear light to sRGB-encoded, clipped to 0..1."""
    value = np.clip(np.asarray(linear, np.float32), 0.0, 1.0)
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * np.maximum(value, 1e-9) ** (1 / 2.4) - 0.055)
