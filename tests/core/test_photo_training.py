"""The landmark network's training: its pictures, its loss, its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from geoinv_core.errors import ModelError
from geoinv_core.heads import EVALUATION_SEEDS, HeadAssets
from geoinv_core.photo import landmarks
from geoinv_core.photo.landmarks import GRID, MIRROR, NAMES, LandmarkNet, Prediction
from geoinv_core.train.landmarks import PICTURE, Feed, Pictures, draw_pictures, evaluate, loss_of, train


def test_evaluation_seeds_are_never_drawn(assets: HeadAssets, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="evaluation"):
        draw_pictures(assets, tmp_path, 10, first_seed=EVALUATION_SEEDS - 5)
    assert not list(tmp_path.iterdir())


def test_mirror_swaps_sides_and_nothing_else() -> None:
    for name, i in zip(NAMES, MIRROR, strict=True):
        swapped = name.replace("left", "?").replace("right", "left").replace("?", "right")
        assert NAMES[i] == swapped


def test_expected_position_of_a_single_peak() -> None:
    heat = torch.full((1, 1, GRID, GRID), -50.0)
    heat[0, 0, 5, 20] = 50.0  # row 5, column 20
    torch.testing.assert_close(landmarks.expected(heat)[0, 0], torch.tensor([20.5, 5.5]) / GRID)


def test_loss_prefers_the_truth_and_ignores_points_of_no_face() -> None:
    torch.manual_seed(0)
    points = torch.rand(4, len(NAMES), 2) * 0.8 + 0.1
    face = torch.tensor([1.0, 1.0, 1.0, 0.0])
    pose = torch.zeros(4, 2)
    centre = (points * GRID - 0.5).round().long()
    heat = torch.zeros(4, len(NAMES), GRID, GRID)
    for b in range(4):
        for n in range(len(NAMES)):
            heat[b, n, centre[b, n, 1], centre[b, n, 0]] = 20.0
    spread = torch.full((4, len(NAMES)), 0.02)
    logit = torch.tensor([9.0, 9.0, 9.0, -9.0])

    def total(at: torch.Tensor, heat: torch.Tensor, logit: torch.Tensor) -> float:
        return float(loss_of(Prediction(at, spread, heat, pose, logit), points, pose, face)[0])

    good = total(points, heat, logit)
    assert good < total(points + 0.05, heat, logit)
    assert good < total(points, heat.flip(3), logit)
    assert good < total(points, heat, -logit)
    elsewhere = points.clone()
    elsewhere[3] += 0.3
    assert total(elsewhere, heat, logit) == pytest.approx(good)


def test_a_little_training_on_one_head(assets: HeadAssets, tmp_path: Path) -> None:
    draw_pictures(assets, tmp_path, 1, views=4)
    pictures = Pictures.open(tmp_path)
    assert pictures.rgb.shape == (4, PICTURE, PICTURE, 3)
    # The head is where its points are: eyes, nose and mouth lie on the mask.
    for mask, points in zip(pictures.mask, pictures.points, strict=True):
        x, y = points[:6].round().astype(int).T
        assert (mask[y, x] > 200).all()
    feed = Feed(pictures, 0, scenes=4)
    x, points_, _, face = feed.batch(16)
    assert x.shape == (16, 3, landmarks.SIZE, landmarks.SIZE)
    assert 0 < float(face.sum()) < 16
    assert bool(torch.isfinite(points_).all())
    net = train(pictures, 0.05, batch=8)
    scores = evaluate(net, pictures, 48)
    assert all(np.isfinite(v) for v in scores.values())
    untrained = LandmarkNet()
    torch.manual_seed(0)
    assert not torch.equal(net.stem.weight, untrained.stem.weight)


def test_learning_a_few_squares_by_heart(assets: HeadAssets, tmp_path: Path) -> None:
    draw_pictures(assets, tmp_path, 1)
    torch.manual_seed(0)
    net = LandmarkNet()
    x, points, pose, face = Feed(Pictures.open(tmp_path), 0, scenes=4).batch(2, without=0.0)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    errors = []
    for _ in range(120):
        total, parts = loss_of(net(x), points, pose, face)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        errors.append(parts["error"])
    assert np.mean(errors[-20:]) < 0.6 * errors[0]


def test_committed_network_is_small_and_a_damaged_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert landmarks.FILE.stat().st_size < 1_500_000
    damaged = tmp_path / "landmarks.safetensors"
    damaged.write_bytes(landmarks.FILE.read_bytes()[:1000])
    monkeypatch.setattr(landmarks, "FILE", damaged)
    landmarks.network.cache_clear()
    with pytest.raises(ModelError, match="install GeoInv again"):
        landmarks.network()
    landmarks.network.cache_clear()


def test_uncertainty_grows_when_the_face_is_hidden(assets: HeadAssets, tmp_path: Path) -> None:
    draw_pictures(assets, tmp_path, 1, first_seed=3, views=1)
    pictures = Pictures.open(tmp_path)
    rgb = pictures.rgb[0].copy()
    middle, half = pictures.points[0][:4].mean(0), PICTURE / 3
    clear = landmarks.find(rgb, (float(middle[0]), float(middle[1])), half)
    hidden = rgb.copy()
    x, y = pictures.points[0][2:4].mean(0).astype(int)
    hidden[y - 12 : y + 14, x - 30 : x + 30] = np.random.default_rng(0).integers(0, 256, (26, 60, 3))
    covered = landmarks.find(hidden, (float(middle[0]), float(middle[1])), half)
    assert covered.spread["mouth_left"] > clear.spread["mouth_left"]
    assert clear.score > 0.5
