"""The steps of the texture by themselves: light, membrane, mirror, cut-out, visibility."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from geoinv_core.camera import orbit
from geoinv_core.mesh.cutout import cut_out
from geoinv_core.mesh.delight import UNLIT, Light, fit_light, log_ratio
from geoinv_core.mesh.membrane import Membrane
from geoinv_core.mesh.mirror import mirror
from geoinv_core.mesh.raster import Coverage, depth_map, rasterise
from geoinv_core.mesh.surface import Surface, extract
from geoinv_core.mesh.topology import vertex_normals
from geoinv_core.mesh.visibility import Sight
from tests.core import lattice


@pytest.fixture(scope="module")
def ball() -> Surface:
    return extract(lattice.dense(lambda p: np.linalg.norm(p, axis=1) - 0.3, 48, 1.0), target_faces=3000)


def directions(count: int, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(count, 3))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_light_is_found_in_spite_of_wrong_albedo() -> None:
    rng = np.random.default_rng(1)
    true = Light(rng.normal(0, 0.15, (9, 3)))
    normals = directions(4000)
    ratio = true.on(normals) + rng.normal(0, 0.05, (4000, 3))
    ratio[:600] -= 1.5  # a beard that the model's albedo lacks
    found = fit_light(normals, ratio, np.ones(4000))
    assert np.abs(found.on(normals) - true.on(normals)).mean() < 0.04


def test_light_from_one_side_leans_on_the_prior_elsewhere() -> None:
    rng = np.random.default_rng(2)
    prior = Light(rng.normal(0, 0.1, (9, 3)))
    normals = directions(4000)
    seen = normals[normals[:, 2] > 0.3]
    found = fit_light(seen, prior.on(seen) + 0.2, np.ones(len(seen)), prior)
    assert np.abs(found.on(normals) - prior.on(normals) - 0.2).max() < 0.05
    assert fit_light(seen, prior.on(seen), np.zeros(len(seen)), prior) is prior
    np.testing.assert_array_equal(UNLIT.on(normals), 0)


def test_log_ratio_stays_calm_in_the_dark() -> None:
    assert np.abs(log_ratio(np.full((1, 3), 0.004), np.full((1, 3), 0.001))).max() < 0.2
    np.testing.assert_allclose(log_ratio(np.full((1, 3), 0.8), np.full((1, 3), 0.4)), np.log(2), atol=0.05)


def test_membrane_meets_what_is_known_and_is_smooth_between(ball: Surface) -> None:
    height = ball.vertices[:, 1]
    known = (np.abs(height) > 0.15).astype(np.float32)
    values = np.where(height > 0, 1.0, -1.0)[:, None]
    membrane = Membrane(ball.vertices, ball.faces, np.zeros_like(ball.vertices))
    found = membrane.span(values, known, 0.005, 10.0)[:, 0]
    assert np.abs(found - values[:, 0])[known > 0].max() < 0.1
    between = known == 0
    assert np.corrcoef(found[between], height[between])[0, 1] > 0.99
    assert found.max() < 1.001
    assert found.min() > -1.001
    # nothing known below: it falls off with the distance
    above = (height > 0.15).astype(np.float32)
    near, far = (membrane.span(np.ones_like(values), above, 0.005, reach)[:, 0] for reach in (0.1, 10.0))
    bottom = height < -0.28
    assert near[bottom].max() < 0.1
    assert far[bottom].min() > 0.9


def test_membrane_stops_at_an_edge_of_the_guide(ball: Surface) -> None:
    skin = ball.vertices[:, 1:2] < 0
    guide = np.where(skin, [0.8, 0.6, 0.5], [0.2, 0.1, 0.1])
    known = (ball.vertices[:, 1] < -0.1).astype(np.float32)
    values = np.ones((len(known), 1))
    reach = 0.3
    open_way = Membrane(ball.vertices, ball.faces, guide * 0).span(values, known, 0.005, reach)
    insulated = Membrane(ball.vertices, ball.faces, guide).span(values, known, 0.005, reach)
    hair = ball.vertices[:, 1] > 0.05
    assert insulated[hair].mean() < 0.4 * open_way[hair].mean()
    assert insulated[ball.vertices[:, 1] < -0.02].min() > 0.8


def test_gathering_is_the_transpose_of_interpolation() -> None:
    square = np.array([[[0, 0], [8, 0], [8, 8]], [[0, 0], [8, 8], [0, 8]]], float)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    cover: Coverage = rasterise(square, 8)
    rng = np.random.default_rng(3)
    at_vertices, at_pixels = rng.normal(size=(4, 2)), rng.normal(size=(64, 2))
    left = (cover.interpolate(at_vertices, faces) * at_pixels).sum()
    right = (cover.gather(at_pixels, faces, 4) * at_vertices).sum()
    assert left == pytest.approx(right, rel=1e-4)
    part = cover.only(cover.face == 1)
    assert 0 < len(part.pixel) < 64
    np.testing.assert_array_equal(
        part.interpolate(at_vertices, faces), cover.interpolate(at_vertices, faces)[cover.face == 1]
    )


@pytest.mark.parametrize("offset", [0.0, 0.012])
def test_partners_lie_on_the_other_half(offset: float) -> None:
    """Also where the head stands a little beside the plane x = 0."""

    def field(p: np.ndarray) -> np.ndarray:
        q = p - np.float32([offset, 0, 0])
        skull = np.linalg.norm(q / np.float32([0.8, 1.1, 1.0]), axis=1) - 0.3
        ear = np.linalg.norm(np.abs(q) - np.float32([0.26, 0.0, 0.05]), axis=1) - 0.05
        return np.minimum(skull, ear).astype(np.float32)

    surface = extract(lattice.dense(field, 64, 1.0), target_faces=6000)
    normals = vertex_normals(surface.vertices, surface.faces)
    found = mirror(surface.vertices, normals)
    ideal = surface.vertices * np.float32([-1, 1, 1]) + np.float32([2 * offset, 0, 0])
    assert np.quantile(np.linalg.norm(found.points - ideal, axis=1), 0.95) < 0.006
    assert np.quantile(found.gap, 0.95) < 0.02
    assert np.abs(field(found.points)).max() < 0.01


def test_a_hump_on_one_side_has_no_partner() -> None:
    def field(p: np.ndarray) -> np.ndarray:
        hump = np.linalg.norm(p - np.float32([0.3, 0.1, 0]), axis=1) - 0.1
        return np.minimum(np.linalg.norm(p, axis=1) - 0.3, hump).astype(np.float32)

    surface = extract(lattice.dense(field, 64, 1.0), target_faces=6000)
    found = mirror(surface.vertices, vertex_normals(surface.vertices, surface.faces))
    assert found.gap[surface.vertices[:, 0] > 0.37].min() > 0.03
    assert np.median(found.gap[surface.vertices[:, 1] < -0.1]) < 0.01


def test_background_inside_the_models_outline_is_cut_away() -> None:
    y, x = np.mgrid[:256, :256] / 256
    rng = np.random.default_rng(4)
    head = np.hypot((x - 0.5) / 0.8, y - 0.5) < 0.3
    photo = np.where(head[..., None], [200, 150, 120], [70, 90, 60]) + rng.normal(0, 6, (256, 256, 3))
    photo = cv2.GaussianBlur(photo.clip(0, 255).astype(np.uint8), (0, 0), 1)
    opacity = (np.hypot((x - 0.5) / 0.95, y - 0.47) < 0.36).astype(np.float32)
    shown = cv2.resize(cut_out(photo, opacity), (256, 256)) > 0.5
    assert (shown & ~head).sum() < 0.15 * ((opacity > 0.5) & ~head).sum(), "all but the rim"
    assert (shown & head).sum() > 0.95 * head.sum()
    # nothing is known of the background where the head fills the picture
    full = np.ones((64, 64), np.float32)
    np.testing.assert_array_equal(cut_out(photo, full), 1)
    np.testing.assert_array_equal(cut_out(photo, full * 0), 0)


def test_a_camera_sees_the_front_and_not_the_rim(ball: Surface) -> None:
    camera = orbit(30, 0).numpy()
    sight = Sight(camera, depth_map(ball.vertices, ball.faces, camera, 128))
    normals = vertex_normals(ball.vertices, ball.faces)
    cosine = sight.cosine(ball.vertices, normals)
    weight, position = sight.weigh(ball.vertices, cosine)
    assert weight[cosine > 0.8].min() > 0.95
    assert weight[cosine < 0.2].max() < 0.01
    middle = np.argmin(np.linalg.norm(position - 0.5, axis=1) + (cosine < 0))
    assert normals[middle] @ [0.5, 0, 0.866] > 0.99
    nothing = Sight(camera, np.full((32, 32), np.inf, np.float32))
    assert nothing.weigh(ball.vertices, cosine)[0].max() == 0
