"""Lips keep their own colours where a photo shows teeth between them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.bared import lips_alone

LIP, TOOTH, GAP, SKIN = (0.75, 0.48, 0.46), (0.93, 0.9, 0.85), (0.12, 0.05, 0.04), (0.8, 0.62, 0.5)
Float32 = npt.NDArray[np.float32]


def mouth(*kinds: tuple[tuple[float, float, float], int], grey: bool = False) -> Float32:
    colour = np.concatenate([np.tile(np.array(c, np.float32), (n, 1)) for c, n in kinds])
    colour = colour + np.random.default_rng(0).normal(0, 0.01, colour.shape).astype(np.float32)
    return colour.mean(1, keepdims=True).repeat(3, 1) if grey else colour


def test_teeth_and_gaps_are_left_out_and_lips_and_skin_stay() -> None:
    colour = mouth((LIP, 600), (TOOTH, 300), (GAP, 60), (SKIN, 400))
    lips = np.concatenate([np.ones(960), np.zeros(400)]).astype(np.float32)
    kept = lips_alone(colour, np.ones(len(colour), np.float32), lips)
    assert kept[:600].min() > 0.9
    assert kept[600:960].max() < 0.1
    assert (kept[960:] == 1).all()


def test_closed_lips_of_any_tone_and_grey_photos_lose_nothing() -> None:
    for tone in (LIP, (0.35, 0.2, 0.18), (0.85, 0.66, 0.62)):
        colour = mouth((tone, 500))
        assert lips_alone(colour, np.ones(500, np.float32), np.ones(500, np.float32)).min() > 0.9
    grey = mouth((LIP, 500), (TOOTH, 300), grey=True)
    assert (lips_alone(grey, np.ones(800, np.float32), np.ones(800, np.float32)) == 1).all()


def test_lips_that_nothing_is_seen_of_say_nothing() -> None:
    colour = mouth((LIP, 500), (TOOTH, 300))
    assert (lips_alone(colour, np.zeros(800, np.float32), np.ones(800, np.float32)) == 1).all()
