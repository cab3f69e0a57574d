"""The crop's geometry and its resampling."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from geoinv_core.photo import align

FACE = {"eye_left": (130, 90), "eye_right": (70, 90), "mouth_left": (122, 160), "mouth_right": (78, 160)}


def similarity(angle: float, scale: float, shift: tuple[float, float]) -> NDArray[np.float64]:
    c, s = np.cos(np.radians(angle)) * scale, np.sin(np.radians(angle)) * scale
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def test_frontal_face_by_hand() -> None:
    # eyes (100, 90), mouth (100, 160): d = 70, half = max(2 * 60, 1.8 * 70) = 126, centre (100, 97)
    matrix = align.crop_of_points(FACE, 252)
    np.testing.assert_allclose(matrix, [[1, 0, 126 - 100], [0, 1, 126 - 97]], atol=1e-9)


def test_half_side_follows_the_larger_distance() -> None:
    near = {**FACE, "mouth_left": (122, 130), "mouth_right": (78, 130)}  # d = 40: 1.8 d < 2 * 60
    _, half = align.crop_square(near)
    np.testing.assert_allclose(half, [120, 0], atol=1e-9)


@pytest.mark.parametrize("angle", [-170.0, -60.0, 25.0, 90.0])
def test_crop_moves_turns_and_grows_with_the_face(angle: float) -> None:
    motion = similarity(angle, 1.7, (300.0, -40.0))
    moved = align.transform(motion, align.stack(FACE))
    before = align.transform(align.crop_of_points(FACE, 256), align.stack(FACE))
    after = align.transform(align.crop_of_points(moved, 256), moved)
    np.testing.assert_allclose(after, before, atol=1e-8)


def test_batches_match_single_faces_and_swapped_sides_do_not_turn_the_crop() -> None:
    one = align.stack(FACE)
    many = align.crop_of_points(np.stack([one, one + 5.0, one[[1, 0, 3, 2]]]), 128)
    assert many.shape == (3, 2, 3)
    np.testing.assert_allclose(many[0], align.crop_of_points(FACE, 128))
    np.testing.assert_allclose(many[2], many[0])


def test_useless_points_are_refused() -> None:
    with pytest.raises(ValueError, match="different places"):
        align.crop_of_points(np.zeros((4, 2)), 64)
    with pytest.raises(ValueError, match="different places"):
        align.crop_of_points(np.full((4, 2), np.nan), 64)
    with pytest.raises(ValueError, match="shape"):
        align.crop_of_points(np.zeros((5, 2)), 64)


def test_inverse() -> None:
    matrix = align.crop_of_points(FACE, 200)
    points = np.random.default_rng(0).uniform(0, 200, (7, 2))
    np.testing.assert_allclose(align.transform(align.invert(matrix), align.transform(matrix, points)), points)


@pytest.mark.parametrize("zoom", [0.21, 0.5, 1.0, 3.0])
def test_resampling_puts_pixels_where_the_matrix_says(zoom: float) -> None:
    y, x = np.mgrid[0:400, 0:500] + 0.5
    rgb = np.stack([x / 500, y / 400, (x + y) / 900], -1) * 200
    matrix = np.array([[zoom, 0, -40 * zoom], [0, zoom, -30 * zoom]])
    size = 60
    crop = align.resample(rgb.round().astype(np.uint8), matrix, size).astype(float)
    at = align.transform(align.invert(matrix), np.stack(np.meshgrid(*[np.arange(size) + 0.5] * 2), -1))
    want = np.stack([at[..., 0] / 500, at[..., 1] / 400, at.sum(-1) / 900], -1) * 200
    np.testing.assert_allclose(crop[4:-4, 4:-4], want[4:-4, 4:-4], atol=1.6)


def test_shrinking_does_not_alias() -> None:
    checks = (np.indices((1000, 1000)).sum(0) % 2 * 255).astype(np.uint8)
    rgb = np.repeat(checks[..., None], 3, -1)
    crop = align.resample(rgb, np.array([[0.11, 0, 0], [0, 0.11, 0]]), 100)
    assert crop[5:-5, 5:-5].std() < 3
    assert abs(float(crop.mean()) - 127.5) < 3


def test_beyond_the_border_there_is_no_edge_and_no_copy() -> None:
    rgb = np.full((100, 100, 3), (180, 120, 90), np.uint8)
    rgb[:, :10] = (10, 20, 30)  # something at the border that must not appear twice
    crop = align.resample(rgb, np.array([[1.0, 0, 128], [0, 1.0, 78]]), 256)
    assert crop.shape == (256, 256, 3)
    np.testing.assert_allclose(crop[128, 20].astype(int), (180, 120, 90), atol=12)
    assert np.abs(np.diff(crop[40, :, 0].astype(int))).max() < 60


def test_share_inside() -> None:
    matrix = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    assert align.inside(matrix, 100, (100, 100)) == 1.0
    assert align.inside(matrix, 100, (50, 100)) == pytest.approx(0.5, abs=0.02)
    assert align.inside(matrix, 100, (50, 100), share=0.2) == pytest.approx(0.5, abs=0.02)
    assert align.inside(matrix + np.array([[0, 0, 200], [0, 0, 0]]), 100, (100, 100)) == 0.0
