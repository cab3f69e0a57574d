"""The head template: its topology, symmetry, UVs and landmarks, and the cage it comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geoinv_core.errors import ModelError
from geoinv_core.mesh import template as templates
from geoinv_core.mesh.cage import TAGS, cage
from geoinv_core.mesh.subdivide import edges, refine
from geoinv_core.mesh.template import Template
from geoinv_core.mesh.template_check import coverage
from geoinv_core.mesh.topology import boundary_loops


@pytest.fixture(scope="module")
def template() -> Template:
    return templates.load()


def test_it_is_a_manifold_of_quads_open_at_the_neck(template: Template) -> None:
    faces = template.faces
    assert 8_000 <= len(faces) <= 16_000
    assert all(len(set(face)) == 4 for face in faces.tolist())
    e = edges(faces)
    assert set(e.faces) == {1, 2}
    assert len(template.vertices) - len(e.ends) + len(faces) == 1  # a disk: no handles, one opening
    (ring,) = boundary_loops(template.triangles)
    assert np.ptp(template.vertices[ring, 1]) < 1e-6
    assert template.tagged("neck_ring")[ring].all()


def test_left_and_right_mirror_each_other(template: Template) -> None:
    mirror = template.mirror
    assert np.array_equal(mirror[mirror], np.arange(len(mirror)))
    assert np.abs(template.vertices[mirror] * [-1, 1, 1] - template.vertices).max() <= 1e-6
    own = {tuple(sorted(face)) for face in template.faces.tolist()}
    assert own == {tuple(sorted(face)) for face in mirror[template.faces].tolist()}
    assert np.array_equal(template.tags[mirror], template.tags)


def test_loops_run_round_eyes_and_mouth(template: Template) -> None:
    """Every rim vertex has two neighbours on the rim, and four edges in all."""
    ends = edges(template.faces).ends
    valence = np.bincount(ends.ravel())
    for tag, count in (("rim", 128), ("vermilion", 80), ("lip_line", 80)):
        on = template.tagged(tag)
        along = np.bincount(ends[on[ends].all(1)].ravel(), minlength=len(on))
        assert on.sum() == count
        assert set(along[on]) == {2}
        assert set(valence[on]) == {4}


def test_uvs_cover_the_square_once(template: Template) -> None:
    uv = template.uv.astype(np.float64)
    assert uv.min() >= 0
    assert uv.max() <= 1
    corners = np.concatenate([uv[:, :3], uv[:, [0, 2, 3]]])
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
    assert area.min() > 0
    count = coverage(template, 256)  # of texel centres, none lies in two triangles
    assert count.max() == 1
    assert (count > 0).mean() > 0.65


def test_landmarks_stand_where_their_names_say(template: Template) -> None:
    marks = template.landmarks
    assert marks.shape == (68,)
    assert len(set(marks.tolist())) == 68
    points = template.vertices[marks]
    other = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1)]
    other += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, *range(54, 47, -1), *range(59, 54, -1)]
    other += [64, 63, 62, 61, 60, 67, 66, 65]
    assert np.allclose(points[other] * [-1, 1, 1], points, atol=1e-6)
    assert points[0, 0] < points[8, 0] < points[16, 0]  # from the subject's right
    assert points[27, 1] > points[30, 1] > points[33, 1] > points[62, 1] > points[66, 1] > points[8, 1]
    assert template.tagged("rim")[marks[36:48]].all()
    assert template.tagged("vermilion")[marks[48:60]].all()
    assert template.tagged("lip_line")[marks[60:]].all()


def test_refining_keeps_a_cage_symmetric() -> None:
    laid = cage()
    points = np.nan_to_num(laid.starts)
    curves = np.zeros(len(TAGS), bool)
    fine, faces, tags, mirror = refine(points, laid.faces, laid.tags, laid.mirror, curves)
    assert len(faces) == 4 * len(laid.faces)
    assert np.allclose(fine[mirror] * [-1, 1, 1], fine, atol=1e-12)
    assert np.array_equal(tags[mirror], tags)


def test_it_survives_its_file_and_a_damaged_one_is_explained(template: Template, tmp_path: Path) -> None:
    path = tmp_path / "template.npz"
    templates.save(replace(template, vertices=template.vertices * 2), path)
    again = templates.load(path)
    assert np.array_equal(again.vertices, template.vertices * 2)
    assert np.array_equal(again.tags, template.tags)
    assert again.features == template.features
    broken = tmp_path / "broken.npz"
    broken.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"broken\.npz"):
        templates.load(broken)
