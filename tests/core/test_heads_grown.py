"""Grown hair, beards, glasses: they show, stand off the skin, are labelled, and older layouts do without."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from geoinv_core import heads
from geoinv_core.camera import orbit
from geoinv_core.heads import SEGMENTS, HeadAssets, HeadLabels, LabelLayout
from geoinv_core.heads.geometry import uv_gradients
from geoinv_core.heads.glasses import SHAPES
from geoinv_core.heads.grown import STYLES


@pytest.fixture(scope="module")
def plain(assets: HeadAssets) -> HeadLabels:
    labels = heads.sample(assets, 3)
    return replace(labels, male=1.0, age=35.0, hair="bald", beard=0.0, glasses="none")


def drawn(assets: HeadAssets, labels: HeadLabels) -> heads.Picture:
    return heads.draw(assets, [labels], orbit(0)[None, None], 96, 1)[0][0]


@pytest.mark.parametrize("style", list(STYLES))
def test_grown_hair_stands_off_the_head(assets: HeadAssets, plain: HeadLabels, style: str) -> None:
    bald, grown = drawn(assets, plain), drawn(assets, replace(plain, hair=style))
    hair = grown.segment == SEGMENTS.index("hair")
    assert hair.float().mean() > 0.03
    both = hair & (bald.segment == 1)
    nearer = (bald.depth - grown.depth)[both]
    assert nearer.median() > 0
    assert nearer.min() > -0.01
    assert grown.mask.sum() > bald.mask.sum()


def test_a_beard_grows_with_its_label(assets: HeadAssets, plain: HeadLabels) -> None:
    shares = [
        float((drawn(assets, replace(plain, beard=b)).segment == SEGMENTS.index("hair")).float().mean())
        for b in (0.3, 0.7, 1.0)
    ]
    assert shares[0] == 0
    assert 0.01 < shares[1] <= shares[2]


@pytest.mark.parametrize("shape", list(SHAPES))
def test_glasses_lie_before_the_eyes(assets: HeadAssets, plain: HeadLabels, shape: str) -> None:
    bare, worn = drawn(assets, plain), drawn(assets, replace(plain, glasses=shape))
    frame = worn.segment == SEGMENTS.index("glasses")
    assert 0.002 < frame.float().mean() < 0.05
    on = frame & (bare.segment > 0)
    assert (worn.depth < bare.depth + 1e-4)[on].all()
    rows, columns = frame.nonzero().float().mean(0) / 96
    assert abs(float(rows) - 0.46) < 0.06
    assert abs(float(columns) - 0.5) < 0.03


def test_uv_gradients_are_those_of_a_plane() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 4, 0], [2, 4, 0]])
    uv = torch.stack([vertices[:, 0] * 0.5, vertices[:, 1] * 0.25 + vertices[:, 0]], 1)
    gradients = uv_gradients(vertices, uv, torch.tensor([[0, 1, 2], [1, 3, 2]]))
    assert torch.allclose(gradients, torch.tensor([0.5, 0, 0, 1, 0.25, 0]).expand(4, 6), atol=1e-6)


def test_layouts_of_older_models_still_work(assets: HeadAssets) -> None:
    layout = LabelLayout.of(assets)
    stored = {k: v for k, v in layout.to_json().items() if k != "late"}
    old = LabelLayout.from_json(stored)
    assert layout.names[: len(old.names)] == old.names
    for seed in range(40):
        labels = heads.sample(assets, seed)
        z, c = layout.encode(labels)
        before_z, before = old.encode(labels)
        assert np.array_equal(z, before_z)
        assert np.array_equal(c[: len(before)], before)
        back = layout.decode(c, replace(labels, hair="bald", glasses="none", light=heads.Light()))
        assert back.hair == labels.hair
        assert back.glasses == labels.glasses
        assert back.light.across == pytest.approx(labels.light.across, abs=1e-5)
        kept = old.decode(before, labels)
        assert kept.glasses == labels.glasses
        assert kept.light.ahead == labels.light.ahead
