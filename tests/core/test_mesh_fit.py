"""The template's fit and shape keys on fields whose shape is known: no model needed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from geoinv_core.mesh.crossing import crossed_quads
from geoinv_core.mesh.field_check import FitError, strangers
from geoinv_core.mesh.fit import Fitter, fitter
from geoinv_core.mesh.keys import Mover, balanced, edits
from geoinv_core.mesh.lattice import Query
from geoinv_core.mesh.sockets import SQUEEZE
from geoinv_core.mesh.topology import vertex_normals
from geoinv_core.mesh.wrap import gradient

UNIT_MM = 410.0


@pytest.fixture(scope="module")
def fit() -> Fitter:
    return fitter()


def field_of(fit: Fitter, points: np.ndarray) -> Query:
    """Signed distances of the template's visible surface where its vertices are moved to `points`."""
    seen = fit.seen
    tree = cKDTree(points[seen])
    normals = vertex_normals(points.astype(np.float32), fit.template.triangles)[seen]

    def query(asked: np.ndarray) -> np.ndarray:
        _, near = tree.query(asked, 6)
        off = asked[:, None] - points[seen][near]
        weight = 1 / (1e-6 + (off**2).sum(2))
        value = (off * normals[near]).sum(2)
        return ((weight * value).sum(1) / weight.sum(1)).astype(np.float32)

    return query


def larger(points: np.ndarray) -> np.ndarray:
    """A wider, longer head with a dent in one cheek."""
    moved = points * [1.06, 1.03, 0.98] + [0.0, 0.004, 0.003]
    moved[:, 1] = np.where(points[:, 1] < -0.3, points[:, 1], moved[:, 1])
    off = np.square(points - [0.1, -0.1, 0.1]).sum(1)
    moved[:, 0] -= 0.008 * np.exp(-off / 0.03**2)
    return np.asarray(moved)


@pytest.fixture(scope="module")
def other(fit: Fitter) -> tuple[np.ndarray, Query, np.ndarray]:
    """Another head: its vertices, its field, and the template fitted to that."""
    points = larger(fit.template.vertices.astype(np.float64))
    query = field_of(fit, points)
    return points, query, fit.fit(query, points[fit.template.anchors])


def test_the_fit_lies_on_the_surface(fit: Fitter, other: tuple[np.ndarray, Query, np.ndarray]) -> None:
    _, query, found = other
    skin = fit.seen & fit.template.tagged("face") & ~fit.template.tagged("ear")
    distance = np.abs(query(found[skin].astype(np.float32))) * UNIT_MM
    assert distance.mean() <= 0.6
    assert np.quantile(distance, 0.99) <= 3.0
    ring = fit.template.tagged("neck_ring")
    assert np.allclose(found[ring, 1], fit.template.vertices[ring, 1])


def test_the_fit_is_the_same_every_time(fit: Fitter, other: tuple[np.ndarray, Query, np.ndarray]) -> None:
    points, query, found = other
    assert np.array_equal(Fitter(fit.template).fit(query, points[fit.template.anchors]), found)


def test_eyeballs_lie_behind_the_lids_and_lips_apart(
    fit: Fitter, other: tuple[np.ndarray, Query, np.ndarray]
) -> None:
    found = other[2]
    upper, lower = fit.pairs.T
    assert (found[upper, 1] > found[lower, 1]).all()
    for eye in fit.eyes.both:
        centre, radius = eye.centre(found)
        rim = np.unique(eye.source)
        far = np.linalg.norm((found[rim] - centre) * [0.72, 1, 1], axis=1)
        assert far.min() >= radius


def test_fields_without_a_head_are_explained(fit: Fitter) -> None:
    for query, why in (
        (lambda p: np.full(len(p), 1.0, np.float32), "empty"),
        (lambda p: np.full(len(p), -1.0, np.float32), "fills"),
        (lambda p: np.full(len(p), np.nan, np.float32), "not finite"),
        (lambda p: np.sin(p.astype(np.float64) * 1e6).sum(1).astype(np.float32), "noise"),
    ):
        with pytest.raises(FitError, match=why):
            fit.fit(query)


def test_a_second_head_is_told() -> None:
    def heads(*balls: tuple[float, float]) -> Query:
        return lambda p: np.min(
            [np.linalg.norm(p - np.float32([x, 0.1, 0]), axis=1) - np.float32(r) for x, r in balls], axis=0
        )

    assert "two separate objects" in strangers(heads((-0.25, 0.2), (0.25, 0.18)), 1.0)[0]
    assert strangers(heads((0.0, 0.2), (0.35, 0.06)), 1.0) == []
    assert strangers(heads((0.0, 0.2)), 1.0) == []


def jaw(points: np.ndarray) -> np.ndarray:
    """Offsets of an opening jaw: what lies below the lips' line goes down, cheeks less sharply than lips."""
    x, y, z = points.T
    width = 1e-4 + 0.06 * (np.abs(x) / 0.06).clip(0, 1) ** 2
    below = ((-0.148 - y) / width + 0.5).clip(0, 1)
    fade = np.exp(-np.square((y + 0.19) / 0.05)) * ((z - 0.02) / 0.1).clip(0, 1)
    return np.stack([0 * below, -0.05 * below * fade, -0.01 * below * fade], 1)


def test_an_opening_jaw_opens_the_mouth(fit: Fitter) -> None:
    rest = fit.complete(fit.template.vertices.astype(np.float64))
    before = field_of(fit, rest)
    moved = rest + jaw(rest)
    after = field_of(fit, moved)
    anchors = (moved - rest)[fit.template.anchors]
    mover = Mover(fit, rest, before)
    start = fit.spread(rest, anchors[None], skull_stays=True)[0]
    offsets = mover.offsets(after, start)
    lips = fit.pairs[np.isin(fit.pairs[:, 0], np.flatnonzero(fit.template.tagged("lip_line")))]
    middle = lips[np.abs(rest[lips[:, 0], 0]) < 0.02]
    opened, true = (p[middle[:, 0], 1] - p[middle[:, 1], 1] for p in (rest + offsets, moved))
    assert true.max() * UNIT_MM > 10
    assert (opened > 0.7 * true).all()
    forehead = fit.seen & (rest[:, 1] > 0.05)
    assert np.abs(offsets[forehead]).max() * UNIT_MM < 0.5
    value, _ = gradient(after, (rest + offsets)[fit.seen & fit.template.tagged("face")])
    assert np.abs(value).mean() * UNIT_MM < 0.6


def test_lips_meet_over_a_jaw_that_is_open(fit: Fitter) -> None:
    rest = fit.complete(fit.template.vertices.astype(np.float64))
    lips = fit.pairs[np.isin(fit.pairs[:, 0], np.flatnonzero(fit.template.tagged("lip_line")))]
    opened = fit.spread(rest, jaw(rest)[fit.template.anchors][None], skull_stays=True)[0]
    mover = Mover(fit, rest, field_of(fit, rest))
    shut = mover.lips_meet(opened)

    def parted(offsets: np.ndarray) -> np.ndarray:
        moved = offsets[lips[:, 0]] - offsets[lips[:, 1]]
        return np.linalg.norm(moved, axis=1) * UNIT_MM

    assert parted(opened).max() > 10
    assert parted(opened + shut).max() < 0.3
    assert parted(0.5 * (opened + shut)).max() < 0.15
    flip = np.array([-1.0, 1.0, 1.0])
    assert np.allclose(shut[fit.template.mirror] * flip, shut, atol=1e-6)
    still = (rest[:, 1] > 0.05) | fit.template.tagged("neck", "ear", "eyeball")
    assert np.abs(shut[still]).max() == 0.0
    assert np.abs(mover.lips_meet(np.zeros_like(rest))).max() == 0.0
    assert crossed_quads(rest + opened + shut, fit.template.faces).mean() < 0.005  # where lips touch


def test_a_label_that_does_nothing_gives_nothing(fit: Fitter) -> None:
    rest = fit.complete(fit.template.vertices.astype(np.float64))
    query = field_of(fit, rest)
    mover = Mover(fit, rest, query)
    assert np.abs(mover.offsets(query, np.zeros_like(rest))).max() == 0.0


def test_closing_lids_meet_before_the_eyeball(fit: Fitter) -> None:
    rest = fit.complete(fit.template.vertices.astype(np.float64))
    rims = fit.pairs[np.isin(fit.pairs[:, 0], np.flatnonzero(fit.template.tagged("rim")))]
    moved = np.zeros_like(rest)
    moved[rims[:, 0], 1] = -1.3 * (rest[rims[:, 0], 1] - rest[rims[:, 1], 1])  # further than closed
    closed = fit.complete(rest + fit.spread(rest, moved[fit.template.anchors][None])[0], eyes_of=rest)
    gap = closed[rims[:, 0], 1] - closed[rims[:, 1], 1]
    assert np.abs(gap).max() * UNIT_MM <= 1.5
    for eye in fit.eyes.both:
        assert np.array_equal(closed[eye.ball], rest[eye.ball])


def test_lids_of_unlike_eyes_meet_though_keys_are_balanced(fit: Fitter) -> None:
    rest = fit.complete(fit.template.vertices.astype(np.float64))
    rims = fit.pairs[np.isin(fit.pairs[:, 0], np.flatnonzero(fit.template.tagged("rim")))]
    left = rest[rims[:, 0], 0] > 0
    lifted = np.zeros_like(rest)
    lifted[rims[left, 0], 1] = 0.4 * (rest[rims[left, 0], 1] - rest[rims[left, 1], 1])
    rest = rest + fit.spread(rest, lifted[fit.template.anchors][None])[0]
    mover = Mover(fit, rest, field_of(fit, rest))
    shut = {"blink": fit.shut(rest, (1, -1)) - rest}
    key = balanced(shut, fit.template.mirror)["blink"]

    def gap(offsets: np.ndarray) -> float:
        closed = rest + offsets
        return float(np.abs(closed[rims[:, 0], 1] - closed[rims[:, 1], 1]).max()) * UNIT_MM

    assert gap(key) > 1.0
    assert gap(mover.closed(key, (1, -1))) < 0.5


def test_keys_mirror_each_other(fit: Fitter) -> None:
    r = np.random.default_rng(0)
    shape = fit.template.vertices.shape
    keys = {
        name: r.normal(size=shape) for name in ("mouthSmileLeft", "mouthSmileRight", "jawOpen", "neutral")
    }
    found = balanced(keys, fit.template.mirror)
    flip = np.array([-1.0, 1.0, 1.0])
    mirror = fit.template.mirror
    assert np.allclose(found["mouthSmileLeft"][mirror] * flip, found["mouthSmileRight"])
    assert np.allclose(found["jawOpen"][mirror] * flip, found["jawOpen"])
    assert np.array_equal(found["neutral"], keys["neutral"])


def test_keys_are_the_arkit_units_the_mixes_and_three_of_the_body() -> None:
    from geoinv_core.edit import Labels
    from geoinv_core.heads.layout import LabelLayout

    layout = LabelLayout(["jawOpen", "browInnerUp"], [], [], [], {})
    names = list(edits(Labels(layout), 0.9))
    assert names[:2] == ["jawOpen", "browInnerUp"]
    assert {"smile", "blink", "age", "weight", "gender"} <= set(names)
    assert edits(Labels(layout), 0.9)["gender"] == {"male": 0.0}


def test_pockets_follow_eyeballs_that_turn_or_draw_back(fit: Fitter) -> None:
    rest = fit.complete(fit.template.vertices.astype(np.float64))
    assert not crossed_quads(rest, fit.template.faces).any()
    left = fit.eyes.both[0]
    up = fit.eyes.turned(rest, 0, 1, 15.0)
    pupil = left.ball[np.argmax(rest[left.ball, 2])]
    assert up[pupil, 1] > rest[pupil, 1] + 0.005
    centre, radius = left.centre(rest)
    height = np.linalg.norm((up[left.pocket] - centre) * SQUEEZE, axis=1)
    assert (height > radius - 1e-9).all(), "the pocket lies on the eyeball, not in it"
    left_behind = up.copy()
    left_behind[left.pocket] = rest[left.pocket]
    crossed, without = (crossed_quads(p, fit.template.faces).sum() for p in (up, left_behind))
    assert crossed < without
    sunk = fit.eyes.sunk(rest, 0)
    back = (sunk - rest)[left.ball] * UNIT_MM
    assert (back[:, 2] < -1).all()
    assert np.array_equal(back[:, :2], np.zeros_like(back[:, :2]))
    assert not crossed_quads(sunk, fit.template.faces).any()
    moved = np.flatnonzero((up != rest).any(1) | (sunk != rest).any(1))
    assert np.isin(moved, np.concatenate([left.ball, left.pocket])).all()
