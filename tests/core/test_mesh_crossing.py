"""Surfaces that pass through themselves: found, evened out, and refused in a template."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from geoinv_core.mesh.crossing import Crossings, crossed_quads, crossed_triangles
from geoinv_core.mesh.opening import without_lumps
from geoinv_core.mesh.template import Template, load
from geoinv_core.mesh.template_check import problems
from geoinv_core.mesh.untangle import Untangler, untangled
from geoinv_core.render.library import library


def sheet(side: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """A flat square of quads."""
    x, y = np.meshgrid(np.arange(side + 1.0), np.arange(side + 1.0))
    at = np.arange((side + 1) ** 2).reshape(side + 1, side + 1)
    faces = np.stack([at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]], -1).reshape(-1, 4)
    return np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], 1), faces.astype(np.int32)


def folded(points: np.ndarray) -> np.ndarray:
    """Offsets that pull a spot of the sheet sideways through what lies beside it."""
    near = np.exp(-np.square(points[:, :2] - 6).sum(1) / 2)
    return np.stack([4 * near, 0 * near, 0.4 * np.sin(3 * points[:, 0]) * near], 1)


def test_triangles_that_cross_are_found_and_neighbours_are_not() -> None:
    points = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0.5, 0.5, -1], [0.5, 0.5, 1], [3, 3, 0.0]])
    assert crossed_triangles(points, np.array([[0, 1, 2], [3, 4, 5]])).all()
    points[3:] += [2, 2, 0]
    assert not crossed_triangles(points, np.array([[0, 1, 2], [3, 4, 5]])).any()
    flat, faces = sheet()
    assert not crossed_quads(flat, faces).any()


@pytest.mark.parametrize("noise", [0.0, 1e-3, 3e-3])
@pytest.mark.parametrize("share", [1.0, 0.3, 0.01])
def test_the_native_search_finds_what_its_twin_finds(noise: float, share: float) -> None:
    library(torch.float64)  # or there is nothing to compare
    template = load()
    find = Crossings(template.triangles)
    r = np.random.default_rng(0)
    for _ in range(2):  # the second time in the order of the first
        points = template.vertices + r.normal(size=template.vertices.shape) * noise
        among = r.random(len(template.triangles)) < share
        found = find(points, among)
        assert found.any() == (noise > 0)
        assert np.array_equal(found, find.twin(points, among))


def test_a_surface_without_numbers_is_refused() -> None:
    points, faces = sheet()
    points[7, 2] = np.nan
    with pytest.raises(ValueError, match="NaN or inf"):
        crossed_quads(points, faces)


def test_part_of_a_search_finds_its_part() -> None:
    points, faces = sheet()
    points = points + folded(points)
    triangles = np.concatenate([faces[:, :3], faces[:, [0, 2, 3]]])
    every = crossed_triangles(points, triangles)
    assert every.any()
    assert np.array_equal(crossed_triangles(points, triangles, every), every)
    assert not crossed_triangles(points, triangles, np.zeros(len(triangles), bool)).any()
    r = np.random.default_rng(0)
    for share in (0.02, 0.3):
        among = r.random(len(triangles)) < share
        assert among.any()
        found = crossed_triangles(points, triangles, among)
        assert np.array_equal(found[among], every[among])
        assert not (found & ~every).any()


def test_what_crosses_is_evened_out_and_the_rest_stays() -> None:
    points, faces = sheet()
    offsets = folded(points)
    free = np.ones(len(points), bool)
    found, left = untangled(points, offsets, faces, free)
    assert left == 0
    assert not crossed_quads(points + found, faces).any()
    far = np.abs(points[:, :2] - 6).max(1) > 5.5
    assert np.array_equal(found[far], offsets[far])
    assert untangled(points, offsets, faces, ~free)[1] == 0  # nothing that could move
    assert np.array_equal(untangled(points, offsets, faces, ~free)[0], offsets)


def test_mirror_images_are_evened_out_by_the_same_steps() -> None:
    points, faces = sheet()
    points = points - [6, 6, 0]
    mirror = np.arange(len(points)).reshape(13, 13)[:, ::-1].ravel().astype(np.int32)
    x, y, _ = points.T
    near = np.exp(-(np.square(x - 3) + np.square(y)) / 2)
    offsets = np.stack([1.2 * near, 0 * near, 0.4 * np.sin(3 * x) * near], 1)
    flip = np.array([-1.0, 1, 1])
    base = np.where(x < 0, 0.3, 1.0)[:, None] ** [1, 0, 0] * points  # one half has less room
    assert not crossed_quads(base + offsets, faces).any()
    assert crossed_quads(base + offsets[mirror] * flip, faces).any()
    untangle = Untangler(faces, np.ones(len(points), bool))
    assert np.array_equal(untangle(base, offsets)[0], offsets)
    found, left = untangle(base, offsets, mirror=mirror)
    assert left == 0
    assert not crossed_quads(base + found, faces).any()
    assert not crossed_quads(base + found[mirror] * flip, faces).any()
    both = offsets + offsets[mirror] * flip
    found, left = untangle(base, both, mirror=mirror)
    assert left == 0
    assert not np.array_equal(found, both)
    assert np.allclose(found[mirror] * flip, found)


@pytest.fixture(scope="module")
def template() -> Template:
    return load()


def test_the_shipped_template_is_sound(template: Template) -> None:
    assert problems(template) == []


def test_damaged_templates_are_refused(template: Template) -> None:
    bent = template.vertices.copy()
    bent[template.landmarks[30]] -= [0, 0, 0.6]  # the nose's tip through the back of the head
    assert any("pass through" in problem for problem in problems(replace(template, vertices=bent)))
    lopsided = template.vertices + np.array([0.01, 0, 0], np.float32)
    assert any("halves differ" in problem for problem in problems(replace(template, vertices=lopsided)))
    uv = template.uv.copy()
    uv[100] = uv[100, ::-1]
    assert any("folded" in problem for problem in problems(replace(template, uv=uv)))
    uv = template.uv.copy()
    uv[:3000] = 0.5 + 0.5 * (uv[:3000] - 0.5)
    assert any("several faces" in problem for problem in problems(replace(template, uv=uv)))


def test_lumps_behind_the_head_are_taken_off_and_the_nose_is_not() -> None:
    def ball(points: np.ndarray, centre: tuple[float, float, float], radius: float) -> np.ndarray:
        return np.linalg.norm(points - np.array(centre), axis=1) - radius

    def query(points: np.ndarray) -> np.ndarray:
        parts = [
            ball(points, (0, 0, 0), 0.2),
            ball(points, (0, -0.05, -0.21), 0.03),
            ball(points, (0, 0, 0.2), 0.03),
        ]
        return np.minimum.reduce(parts).astype(np.float32)

    clean = without_lumps(query, 1.0)
    asked = np.array([[0, -0.05, -0.235], [0, 0, 0.22], [0, 0, -0.18], [0, 0, -0.25]], np.float32)
    before, after = query(asked), clean(asked)
    assert before[0] < 0 < after[0]
    assert after[1] == before[1]
    assert after[2] < 0 < after[3]
