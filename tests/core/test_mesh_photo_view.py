"""A photo changed as an edit changes the head."""

from __future__ import annotations

import numpy as np

from geoinv_core.mesh.photo_view import changed


def flat(*colour: float) -> np.ndarray:
    return np.broadcast_to(np.float32(colour), (4, 4, 3)).copy()


def test_an_edit_that_changes_nothing_leaves_every_pixel() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    same = changed(image, np.ones((8, 8, 3), np.float32), np.full((8, 8, 3), 0.5, np.float32))
    assert np.abs(same.astype(int) - image).max() <= 1


def test_hair_turns_grey_and_not_blue() -> None:
    brown, grey = flat(0.5, 0.37, 0.2), flat(0.6, 0.6, 0.6)
    fair = np.uint8(flat(0.75, 0.7, 0.5) * 255)  # the photo's strands are fairer than the model's
    found = changed(fair, (grey + 0.05) / (brown + 0.05), grey).astype(float)
    assert found.max() - found.min() < 3
    assert found.mean() > float(fair.mean())
    same = changed(np.uint8(brown * 255), (grey + 0.05) / (brown + 0.05), grey)
    assert (
        np.abs(same.astype(float) / 255 - grey).max() < 0.01
    )  # a pixel like the head is as the head becomes
