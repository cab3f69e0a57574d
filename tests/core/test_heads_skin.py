"""Where the skin of labelled heads lies: near the true vertices, and only for layouts that it knows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from geoinv_core.heads import HeadAssets, LabelLayout, build, sample
from geoinv_core.heads.labels import HeadLabels
from geoinv_core.heads.landmarks import ibug
from geoinv_core.heads.skin import Skin, _data, feature_names, features, skin_of
from geoinv_core.mesh.anchors import centre, positions
from geoinv_core.train.skin import learn, spread_out


def test_points_follow_heads_that_were_not_learned(skin: Skin, assets: HeadAssets) -> None:
    labels = [sample(assets, seed) for seed in range(900100, 900116)]
    z, c = (torch.from_numpy(np.stack(p)) for p in zip(*map(skin.layout.encode, labels), strict=True))
    neutral = positions(assets, [HeadLabels(features=centre(assets))])[0]
    rest = skin.rest[:-68]
    distance = torch.cdist(rest, torch.from_numpy(neutral).float())
    vertex = distance.argmin(1)
    assert distance.amin(1).max() < 1e-3
    true = torch.from_numpy(positions(assets, labels))[:, vertex].float()
    off = (skin.points(z, c) - true).norm(dim=2).mean()
    assert off < 0.3 * (rest - true).norm(dim=2).mean()


def test_landmarks_are_those_that_are_drawn(skin: Skin, assets: HeadAssets) -> None:
    labels = [sample(assets, seed) for seed in range(900100, 900108)]
    z, c = (torch.from_numpy(np.stack(p)) for p in zip(*map(skin.layout.encode, labels), strict=True))
    true = torch.stack([ibug(assets, head) for head in build(assets, labels)])
    off = (skin.landmarks(z, c) - true).norm(dim=2).mean()
    assert off < 0.3 * (skin.rest[-68:] - true).norm(dim=2).mean()
    assert off < 0.005


def test_the_neutral_head_is_at_rest_and_gradients_reach_codes(skin: Skin) -> None:
    z = torch.zeros(2, skin.layout.z_dim, requires_grad=True)
    c = torch.zeros(2, len(skin.layout.names), requires_grad=True)
    found = skin.points(z, c)
    assert found.shape == (2, len(skin.rest) - 68, 3)
    (found * torch.arange(3.0)).sum().backward()
    assert z.grad is not None
    assert c.grad is not None
    assert (z.grad != 0).any()
    moving = [n.partition(":")[0] for n, g in zip(skin.layout.names, c.grad[0], strict=True) if g != 0]
    assert {"age", "weight", "jawOpen"} <= set(moving)
    assert "hair" not in moving


def test_what_an_inversion_asked_for_can_be_trained_with(skin: Skin) -> None:
    _data.cache_clear()
    with torch.inference_mode():
        first = skin_of(skin.layout)
    assert first is not None
    z = torch.zeros(1, skin.layout.z_dim, requires_grad=True)
    first.landmarks(z, torch.zeros(1, len(skin.layout.names))).sum().backward()
    assert z.grad is not None


def test_other_labels_have_no_known_skin(skin: Skin) -> None:
    assert skin_of(replace(skin.layout, axes=skin.layout.axes[1:], signed=skin.layout.signed[1:])) is None


def test_features_have_names(skin: Skin) -> None:
    z, c = torch.randn(3, skin.layout.z_dim), torch.randn(3, len(skin.layout.names))
    assert features(skin.layout, z, c).shape == (3, len(feature_names(skin.layout)))


def test_learning_finds_points_all_over_the_head(assets: HeadAssets) -> None:
    found, error = learn(assets, heads=400, count=40)
    assert found["weights"].shape == (len(feature_names(LabelLayout.of(assets))), 3 * (40 + 68))
    rest = found["rest"]
    assert rest[:, 1].max() > 0.15  # crown
    assert rest[:, 2].min() < -0.1  # back of the head
    assert 0 < error < 0.01


def test_points_are_spread_out() -> None:
    line = np.stack([np.zeros(101), np.zeros(101), np.linspace(0, 1, 101)], 1)
    assert sorted(spread_out(line, 3)) == [0, 50, 100]
