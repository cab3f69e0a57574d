"""Teeth, gums and tongue: sound shells that sit behind the lips and go with the jaw."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from geoinv_core.mesh import mouth, teeth
from geoinv_core.mesh.bake import texel_map
from geoinv_core.mesh.head_mesh import from_quads
from geoinv_core.mesh.template import Template, load

UNIT = 410.0
Float64 = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def template() -> Template:
    return load()


def triangles(faces: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    return np.concatenate([faces[:, :3], faces[:, [0, 2, 3]]])


def test_shells_are_closed_and_face_outwards() -> None:
    made = teeth.shells()
    edges = Counter((int(a), int(b)) for f in made.faces for a, b in zip(f, np.roll(f, -1), strict=True))
    assert set(edges.values()) == {1}
    assert all((b, a) in edges for a, b in edges)
    tri, at = triangles(made.faces), made.vertices
    a, b = np.concatenate([tri[:, :2], tri[:, 1:]]).T
    links = coo_matrix((np.ones(len(a)), (a, b)), shape=(len(at), len(at)))
    count, label = connected_components(links, directed=False)
    assert count == 10 + 10 + 2 + 1
    volume = np.einsum("fi,fi->f", at[tri[:, 0]], np.cross(at[tri[:, 1]], at[tri[:, 2]])) / 6
    assert (np.bincount(label[tri[:, 0]], volume) > 100).all()  # mm3
    _, mirrored = np.unique(np.round(at * [-1, 1, 1], 6), axis=0, return_index=True)
    _, own = np.unique(np.round(at, 6), axis=0, return_index=True)
    np.testing.assert_allclose((at * [-1, 1, 1])[mirrored], at[own], atol=1e-6)


def test_crowns_stand_beside_each_other() -> None:
    made = teeth.shells()
    for lower in (False, True):
        front = made.vertices[(made.part == 0) & (made.lower == lower)]
        widths = sum(width for width, _, _ in (teeth.LOWER if lower else teeth.UPPER))
        assert np.ptp(front[:, 0]) < 2 * widths
        biting = front[:, 1].min() if not lower else front[:, 1].max()
        assert abs(biting) < 2


def test_every_texel_belongs_to_one_shell_and_none_to_the_head(template: Template) -> None:
    made = teeth.shells()
    corners = np.concatenate([made.uv[:, :3], made.uv[:, [0, 2, 3]]])
    (u, v), (s, t) = (corners[:, 1] - corners[:, 0]).T, (corners[:, 2] - corners[:, 0]).T
    area = np.abs(u * t - v * s).sum() / 2
    own = texel_map(corners, 2048)
    assert len(own.pixel) == pytest.approx(area * 2048**2, rel=0.05)  # less where any lay over another
    head = texel_map(np.concatenate([template.uv[:, :3], template.uv[:, [0, 2, 3]]]), 2048)
    assert not np.intersect1d(own.pixel, head.pixel).size


def test_colours_and_maps_change_where_the_shells_are_and_nowhere_else() -> None:
    made = teeth.shells()
    corners = np.concatenate([made.uv[:, :3], made.uv[:, [0, 2, 3]]])
    texels = texel_map(corners, 512)
    albedo = np.full((512, 512, 3), 7, np.uint8)
    painted = mouth.painted(albedo).reshape(-1, 3)
    part = np.concatenate([made.part[made.faces[:, 0]]] * 2)[texels.face]
    for number, name in enumerate(teeth.PARTS):
        assert (painted[texels.pixel[part == number]] == mouth.COLOURS[name]).all()
    assert (painted == 7).all(1).mean() > 0.9
    mask = mouth.flat(np.full((512, 512), 255, np.uint8), normal=False).ravel()
    assert (mask[texels.pixel] == 0).all()
    normal = mouth.flat(np.zeros((512, 512, 3), np.uint8), normal=True).reshape(-1, 3)
    assert (normal[texels.pixel] == (128, 128, 255)).all()


def test_they_sit_behind_closed_lips(template: Template) -> None:
    rest = template.vertices.astype(np.float64)
    laid = mouth.placed(template, rest, rest, UNIT)
    lips = rest[template.landmarks[[62, 66]]].mean(0)
    assert 5 < UNIT * (lips[2] - laid[:, 2].max()) < 8
    assert abs(UNIT * (lips[1] - laid[teeth.shells().part == 0, 1].mean())) < 4
    assert abs(laid[:, 0].mean()) < 1e-3


def dropped(template: Template, rest: Float64) -> Float64:
    """Offsets of a jaw that turns by ten degrees about an axis before the ears."""
    hinge, angle = np.array([0.0, -0.05, 0.0]), np.radians(10)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    low = (rest[:, 1] < template.vertices[template.landmarks[66], 1]) & template.groups["face"]
    return np.where(low[:, None], (rest - hinge) @ turn.T + hinge - rest, 0.0)


def test_lower_ones_go_with_the_jaw_and_upper_ones_stay(template: Template) -> None:
    rest, made = template.vertices.astype(np.float64), teeth.shells()
    jaw = dropped(template, rest)
    keys = {
        "neutral": np.zeros_like(rest), "jawOpen": jaw, "laugh": 0.3 * jaw, "mouthSmileLeft": 0.1 * jaw,
        "tongueOut": np.zeros_like(rest), "weight": 0.1 * (rest - rest.mean(0)),
    }  # fmt: skip
    laid = mouth.placed(template, rest, rest, UNIT)
    found = mouth.follow(template, rest, laid, keys, UNIT)
    assert np.abs(found["neutral"]).max() < 1e-9
    opened = found["jawOpen"]
    assert np.abs(opened[~made.lower]).max() == 0
    lower = laid[made.lower]
    spans = np.linalg.norm(lower - lower[0], axis=1)
    moved = lower + opened[made.lower]
    np.testing.assert_allclose(np.linalg.norm(moved - moved[0], axis=1), spans, atol=1e-9)  # rigid
    chin = mouth._chin(template)
    assert opened[made.lower & (made.part == 0), 1].mean() == pytest.approx(jaw[chin, 1].mean(), rel=0.4)
    np.testing.assert_allclose(found["laugh"], 0.28 * opened)
    assert np.abs(found["mouthSmileLeft"]).max() == 0
    tongue = made.part == 2
    assert UNIT * found["tongueOut"][tongue, 2].max() > 25
    assert np.abs(found["tongueOut"][~tongue]).max() == 0
    grown = laid + found["weight"]
    assert np.ptp(grown[:, 0]) == pytest.approx(1.1 * np.ptp(laid[:, 0]), rel=1e-3)


def test_an_open_jaw_in_the_photo_is_open_at_the_start(template: Template) -> None:
    rest, made = template.vertices.astype(np.float64), teeth.shells()
    posed = rest + dropped(template, rest)
    laid = mouth.placed(template, posed, rest, UNIT)
    calm = mouth.placed(template, rest, rest, UNIT)
    assert np.abs((laid - calm)[~made.lower]).max() == 0
    assert (laid - calm)[made.lower & (made.part == 0), 1].max() * UNIT < -3
    back = mouth.follow(template, rest, laid, {"neutral": rest - posed}, UNIT)["neutral"]
    np.testing.assert_allclose(laid + back, calm, atol=1e-9)


def test_the_joined_mesh_is_sound_and_begins_with_the_head(template: Template) -> None:
    made, count = teeth.shells(), len(template.vertices)
    head = from_quads(
        template.vertices, template.faces, template.uv, np.zeros((256, 256, 3), np.uint8), template.landmarks,
        {"jawOpen": np.zeros((count, 3), np.float16)}, {"mask_photo": np.full((128, 128), 255, np.uint8)},
        template.groups,
    )  # fmt: skip
    laid = made.vertices.astype(np.float32)
    both = mouth.joined(head, laid, {"jawOpen": np.ones((len(laid), 3), np.float16)})
    assert both.problem() is None
    assert np.array_equal(both.faces[: len(head.faces)], head.faces)
    assert (both.shapes["jawOpen"][:count] == 0).all()
    assert (both.shapes["jawOpen"][count:] == 1).all()
    assert both.groups["teeth"].sum() == (made.part == 0).sum()
    assert not (both.groups["face"] & both.groups["tongue"]).any()
    assert (both.faces[len(head.faces) :] >= count).all()
