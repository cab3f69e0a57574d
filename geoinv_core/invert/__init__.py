"""From a photo to a generator's code by optimisation: styles, camera, and the generator's own weights."""

from geoinv_core.invert.guard import guarded
from geoinv_core.invert.optimise import Found, Settings, Start, mean_start, optimise
from geoinv_core.invert.perceptual import Perceptual, measure_for
from geoinv_core.invert.tune import tune, tuned_copy

__all__ = [
    "Found",
    "Perceptual",
    "Settings",
    "Start",
    "guarded",
    "mean_start",
    "measure_for",
    "optimise",
    "tune",
    "tuned_copy",
]
