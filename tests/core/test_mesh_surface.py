"""Surfaces of analytic fields: right place, watertight but for the neck, honest about bad fields."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from geoinv_core.errors import Cancelled, GeoInvError
from geoinv_core.mesh.lattice import field_lattice, field_query
from geoinv_core.mesh.surface import close_pits, extract
from geoinv_core.mesh.topology import boundary_loops, components, face_normals, handles, volume
from geoinv_core.progress import Progress
from geoinv_core.render.example import ball_field, random_field
from tests.core import lattice

Query = Callable[[np.ndarray], np.ndarray]


def sphere(radius: float = 0.3, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Query:
    return lambda p: (np.linalg.norm(p - np.float32(centre), axis=-1) - radius).astype(np.float32)


def union(*parts: Query) -> Query:
    return lambda p: np.minimum.reduce([part(p) for part in parts])


def torus(p: np.ndarray) -> np.ndarray:
    ring = np.hypot(np.hypot(p[:, 0], p[:, 2]) - 0.3, p[:, 1])
    return np.asarray(ring - 0.08, np.float32)


def neck(p: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(np.hypot(p[:, 0], p[:, 2] + 0.03) - 0.13, p[:, 1]), np.float32)


head = union(sphere(0.3, (0, 0.1, 0)), neck)


def edge_use(faces: np.ndarray) -> np.ndarray:
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    return np.unique(edges, axis=0, return_counts=True)[1]


def test_sphere_is_closed_outward_and_exact() -> None:
    surface = extract(lattice.dense(sphere(), 96, 1.0), target_faces=6000)
    assert edge_use(surface.faces).tolist() == [2] * (len(surface.faces) * 3 // 2)
    assert 5000 <= len(surface.faces) <= 6100
    assert volume(surface.vertices, surface.faces) == pytest.approx(4 / 3 * np.pi * 0.3**3, rel=5e-3)
    assert np.abs(sphere()(surface.vertices)).max() < 1.5e-3
    assert surface.vertices.dtype == np.float32
    assert surface.faces.dtype == np.int32
    assert surface.warnings == ()


@pytest.mark.parametrize("box", [1.0, 2.0])
def test_neck_is_one_planar_ring(box: float) -> None:
    def scaled(p: np.ndarray) -> np.ndarray:
        return head(p / np.float32(box)) * np.float32(box)

    surface = extract(lattice.dense(scaled, 97, box), box, neck_y=-0.35 * box, target_faces=8000)
    loops = boundary_loops(surface.faces)
    assert len(loops) == 1
    ring = surface.vertices[loops[0]] / box
    np.testing.assert_allclose(ring[:, 1], -0.35, atol=1e-6)
    np.testing.assert_allclose(np.hypot(ring[:, 0], ring[:, 2] + 0.03), 0.13, atol=4e-3)
    assert surface.vertices[:, 1].min() >= -0.35 * box - 1e-6
    assert set(edge_use(surface.faces).tolist()) == {1, 2}
    assert (np.linalg.norm(face_normals(surface.vertices, surface.faces), axis=1) > 0).all()
    # outward: seen from the head's middle every face of the crown looks away
    crown = surface.vertices[surface.faces].mean(1)
    up = crown[:, 1] > 0.2 * box
    outward = np.einsum(
        "ij,ij->i", crown[up] - [0, 0.1 * box, 0], face_normals(surface.vertices, surface.faces)[up]
    )
    assert (outward > 0).all()


def test_a_head_cut_by_the_box_opens_at_its_bottom() -> None:
    surface = extract(lattice.dense(head, 64, 1.0), target_faces=None, smoothing=0)
    loops = boundary_loops(surface.faces)
    assert len(loops) == 1
    assert surface.vertices[loops[0], 1] == pytest.approx(-0.5 + 1.5 / 63, abs=1e-6)


def test_only_the_neck_stays_open_where_hair_reaches_the_plane() -> None:
    def lock(p: np.ndarray) -> np.ndarray:
        column = np.hypot(p[:, 0] - 0.24, p[:, 2]) - 0.04
        return np.asarray(np.maximum(column, p[:, 1] - 0.1), np.float32)

    surface = extract(lattice.dense(union(head, lock), 96, 1.0), neck_y=-0.3, target_faces=10_000)
    loops = boundary_loops(surface.faces)
    assert len(loops) == 1
    assert abs(surface.vertices[loops[0]].mean(0)[0]) < 0.02
    tip = (surface.vertices[:, 0] > 0.2) & (surface.vertices[:, 1] < -0.299)
    assert tip.any(), "the lock itself is kept, closed"


def test_torus_keeps_its_hole() -> None:
    surface = extract(lattice.dense(torus, 80, 1.0), target_faces=5000)
    assert handles(surface.faces) == 1
    assert handles(extract(lattice.dense(head, 64, 1.0)).faces) == 0


def test_narrow_pits_close_and_an_open_mouth_stays_open() -> None:
    def slot(half: float) -> Query:
        """A mouth: wide, deep, and twice `half` high; the ball around it is 0.3."""
        return lambda p: np.maximum.reduce(
            [np.abs(p[:, 0]) - 0.08, np.abs(p[:, 1] + 0.1) - half, 0.2 - p[:, 2]]
        ).astype(np.float32)

    for half, is_open in ((0.003, False), (0.01, True)):
        mouth = lattice.dense(slot(half), 129, 1.0)
        values = np.maximum(lattice.dense(sphere(0.3), 129, 1.0), -mouth)
        cleaned = close_pits(values, 5, 0.0075)
        inside_mouth = (64, round((-0.1 + 0.5) * 128), round((0.24 + 0.5) * 128))
        assert values[inside_mouth] > 0
        assert (cleaned[inside_mouth] > 0) == is_open
        assert (close_pits(values, 5, np.inf)[inside_mouth] > 0) == (half > 2.5 / 128)
        elsewhere = mouth > 0.03
        np.testing.assert_array_equal((cleaned < 0)[elsewhere], (values < 0)[elsewhere])
    empty = np.ones((16, 16, 16), np.float32)
    np.testing.assert_array_equal(close_pits(empty, 5, 0.0075), empty)


def test_two_heads_give_the_larger_and_a_warning() -> None:
    two = union(sphere(0.2, (-0.25, 0, 0)), sphere(0.17, (0.25, 0, 0)))
    surface = extract(lattice.dense(two, 64, 1.0))
    assert components(surface.faces, len(surface.vertices)).max() == 0
    assert surface.vertices[:, 0].max() < 0
    assert len(surface.warnings) == 1
    assert "two separate" in surface.warnings[0]
    crumb = union(sphere(0.3), sphere(0.03, (0.45, 0.45, 0.45)))
    assert extract(lattice.dense(crumb, 64, 1.0)).warnings == ()


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (np.ones((32, 32, 32), np.float32), "is empty"),
        (-np.ones((32, 32, 32), np.float32), "fills its whole box"),
        (np.full((32, 32, 32), np.nan, np.float32), "not finite"),
        (np.random.default_rng(0).normal(size=(96, 96, 96)).astype(np.float32), "is noise"),
        (lattice.dense(sphere(0.02), 64, 1.0), "crumb"),
    ],
)
def test_bad_fields(values: np.ndarray, match: str) -> None:
    with pytest.raises(GeoInvError, match=match) as caught:
        extract(values)
    assert caught.value.code == "surface"


def test_neck_above_the_head() -> None:
    with pytest.raises(GeoInvError, match="below its neck"):
        extract(lattice.dense(sphere(), 48, 1.0), neck_y=0.4)


@pytest.mark.parametrize("crop", [None, 0.05])
@pytest.mark.parametrize("rules", [{"density": "sdf", "distance_radius": 0.3}, {"density": "softplus"}])
def test_lattice_says_what_the_points_say(rules: dict[str, Any], crop: float | None) -> None:
    field = random_field(4, 8, 0, (2, 3, 3), crop=crop, box_warp=1.4, distance_scale=0.1, **rules)
    level = -3.0
    full = lattice.dense(field_query(field, level), 45, field.box_warp)
    found = field_lattice(field, 45, level)
    np.testing.assert_array_equal(found < 0, full < 0)
    inside = full < 0
    assert 0.02 < inside.mean() < 0.98
    near = binary_dilation(inside) & binary_dilation(~inside)
    within = (slice(8, -8),) * 3  # off the margin
    np.testing.assert_allclose(found[within][near[within]], full[within][near[within]], atol=1e-4)
    if field.density == "softplus":  # its margin is empty, PanoHead's at four sides only
        assert (found[0] > 0).all()
        assert (found[:, 0] > 0).all() == (crop is None)


def test_cancel_and_progress() -> None:
    seen: list[Progress] = []
    field = ball_field(32, 8, 8, 3, depth=2)
    values = field_lattice(field, 65, on_progress=seen.append)
    extract(values, on_progress=seen.append)
    fractions = [p.fraction for p in seen]
    assert fractions == sorted(fractions)
    assert {p.stage for p in seen} == {"surface"}

    def stop(_: Progress) -> None:
        raise Cancelled

    for work in (partial(field_lattice, field, 65), partial(extract, values)):
        with pytest.raises(Cancelled):
            work(on_progress=stop)
