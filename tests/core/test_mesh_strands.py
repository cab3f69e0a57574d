"""Strands on a ball of hair, half of which a photo shows."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from geoinv_core.mesh.bake import texel_map
from geoinv_core.mesh.normal_map import normal_map
from geoinv_core.mesh.raster import Coverage
from geoinv_core.mesh.strands import Hair, contrast, pattern, stranded, strands_slope
from tests.core.test_mesh_normal_map import RADIUS, patch

SIZE = 512


@cache
def ball() -> tuple[Coverage, np.ndarray, np.ndarray]:
    """Texels of a ball's front, their points [N, 3], and the ball's faces."""
    vertices, faces, uv = patch(False)
    texels = texel_map(uv, SIZE)
    return texels, texels.interpolate(vertices, faces), faces


def coloured(deviation: float) -> tuple[np.ndarray, np.ndarray]:
    """Colours [N, 3], with fine noise where the photo looks (x > 0); and where it looks [N]."""
    _, points, _ = ball()
    photo = (points[:, 0] > 0).astype(np.float32)
    noise = np.random.default_rng(3).standard_normal(len(points)) * deviation * photo
    return (np.exp(noise)[:, None] * np.float32([0.3, 0.2, 0.15])).astype(np.float32), photo


def test_strands_are_only_where_hair_is_guessed() -> None:
    texels, points, _ = ball()
    colour, photo = coloured(0.15)
    share = (points[:, 1] > 0).astype(np.float32)
    result = stranded(texels, points, colour, Hair(share), photo)
    guessed = (share > 0) & (photo == 0)
    assert np.array_equal(result[~guessed], colour[~guessed])
    assert np.log(result[guessed].mean(1)).std() > 0.03
    assert result.min() >= 0
    assert result.max() <= 1
    # its colour stays what it was on the whole
    assert np.allclose(result[guessed].mean(0), colour[guessed].mean(0), rtol=0.05)


def test_strands_have_the_contrast_of_those_in_the_photo() -> None:
    texels, points, _ = ball()
    found = []
    for deviation in (0.05, 0.2):
        colour, photo = coloured(deviation)
        share = np.ones(len(points), np.float32)
        seen = contrast(texels, colour, share, photo)
        assert 0.5 * deviation < seen < deviation, "less, as dark noise does not count"
        result = stranded(texels, points, colour, Hair(share), photo)
        found.append(np.log(result[photo == 0].mean(1)).std())
    assert 2.5 < found[1] / found[0] < 6


def test_nothing_is_made_up_where_the_photo_shows_no_hair() -> None:
    texels, points, _ = ball()
    colour, photo = coloured(0.2)
    bald = Hair(np.zeros(len(points), np.float32))
    unseen = Hair((1 - photo).astype(np.float32))
    for hair in (bald, unseen):
        assert contrast(texels, colour, hair.share, photo) == 0
        assert np.array_equal(stranded(texels, points, colour, hair, photo), colour)
    assert not strands_slope(texels, points, bald).any()


def on_ball(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Points of the ball [N, 3]; radians."""
    beside, ahead = (f(longitude) * np.cos(latitude) for f in (np.sin, np.cos))
    return np.asarray(RADIUS * np.stack([beside, np.sin(latitude), ahead], 1), np.float32)


def test_the_pattern_has_no_seam_and_fades_with_the_texels() -> None:
    angle = np.linspace(-np.pi, np.pi, 40001)
    ring = on_ball(angle, np.full_like(angle, 0.1))
    fine, coarse, coarsest = (
        pattern(ring, np.full(len(ring), texel, np.float32)) for texel in (1e-4, 8e-3, 1.0)
    )
    assert abs(fine.mean()) < 0.2
    assert 0.8 < fine.std() < 1.2
    assert np.abs(np.diff(fine)).max() < 0.5, "from one point to the next, .05 mm, also across the seam"
    assert np.abs(np.diff(coarse)).mean() < 0.5 * np.abs(np.diff(fine)).mean(), (
        "strands too fine are left out"
    )
    assert not coarsest.any()


@pytest.mark.parametrize(("curly", "low", "high"), [(False, 3.0, 30.0), (True, 0.5, 2.0)])
def test_strands_are_longer_than_wide_unless_they_curl(curly: bool, low: float, high: float) -> None:
    step = 0.0005 / RADIUS  # radians, of paths beside the head, where strands run down
    random = np.random.default_rng(5)
    place = np.stack([random.uniform(1.2, 1.9, 4000), random.uniform(-0.3, 0.3, 4000)], 1)

    def at(angle: np.ndarray, height: np.ndarray) -> np.ndarray:
        return pattern(on_ball(angle, height), np.full(len(angle), 1e-4, np.float32), curly)

    angle, height = place.T
    here = at(angle, height)
    change = [np.abs(at(angle + a * step, height + h * step) - here).mean() for a, h in ((1, 0), (0, 1))]
    assert low < change[0] / change[1] < high


def test_the_relief_of_strands() -> None:
    vertices, faces, uv = patch(False)
    hair = Hair((vertices[:, 1] > 0).astype(np.float32))

    def smooth(points: np.ndarray) -> np.ndarray:
        return (np.linalg.norm(points, axis=1) - RADIUS).astype(np.float32)

    plain, relief = (normal_map(vertices, faces, uv, smooth, 0.001, 256, hair=h) for h in (None, hair))
    texels = texel_map(uv, 256)
    share = hair.at(texels, faces).share
    before, after = (x.reshape(-1, 3)[texels.pixel].astype(float) / 127.5 - 1 for x in (plain, relief))
    assert np.array_equal(before[share == 0], after[share == 0])
    assert np.allclose(np.linalg.norm(after, axis=1), 1, atol=0.02)
    tilt = np.degrees(np.arccos(np.clip(after[share == 1][:, 2], -1, 1)))
    assert 2 < tilt.mean() < 35
