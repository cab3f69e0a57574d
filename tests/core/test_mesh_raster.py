"""The rasteriser, padding and the transfer curve, on numbers known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from geoinv_core.mesh.bake import paint
from geoinv_core.mesh.colour import to_linear, to_srgb
from geoinv_core.mesh.raster import rasterise


def test_rasteriser_fills_exactly_and_keeps_the_nearest() -> None:
    square = np.array([[[0, 0], [8, 0], [8, 8]], [[0, 0], [8, 8], [0, 8]]], float)
    covered = rasterise(square, 8)
    assert len(covered.pixel) == 64
    np.testing.assert_allclose(covered.weights.sum(1), 1, atol=1e-6)
    corner = np.array([[0, 0], [8, 0], [8, 8], [0, 8.0]])
    where = covered.interpolate(corner, np.array([[0, 1, 2], [0, 2, 3]], np.int32))
    np.testing.assert_allclose(where[:, 0], covered.pixel % 8 + 0.5, atol=1e-5)
    np.testing.assert_allclose(where[:, 1], covered.pixel // 8 + 0.5, atol=1e-5)
    outside = square + np.array([-4, 4])
    assert len(rasterise(outside, 8).pixel) == 16
    two = np.concatenate([square[:1], square[:1]])
    for near, depth in ((0, [[1.0] * 3, [2.0] * 3]), (1, [[2.0] * 3, [1.0] * 3])):
        assert set(rasterise(two, 8, np.array(depth)).face.tolist()) == {near}


def test_padding_takes_the_nearest_texel() -> None:
    cover = rasterise(np.array([[[2, 2], [3, 2], [2, 3]], [[12, 12], [13, 12], [12, 13]]], float), 16)
    assert len(cover.pixel) == 2
    picture = paint(cover, np.array([[1, 0, 0], [0, 0, 1]], np.float32))
    assert picture[0, 0].tolist() == [255, 0, 0]
    assert picture[15, 15].tolist() == [0, 0, 255]


def test_transfer_curve() -> None:
    value = np.linspace(0, 1, 101, dtype=np.float32)
    np.testing.assert_allclose(to_srgb(to_linear(value)), value, atol=2e-6)
    assert to_linear(np.float32(0.5)) == pytest.approx(0.21404, abs=1e-5)
