"""The cascade: landmarks move to what they look like, and it is trained with the rest frozen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from geoinv_core.encoder import Encoder, EncoderConfig, load_encoder, save_encoder
from geoinv_core.encoder.cascade import Cascade
from geoinv_core.heads import HeadAssets, LabelLayout
from geoinv_core.train import cascade as training
from geoinv_core.train.dataset import draw_all
from geoinv_core.train.encoder import begin_from


def test_it_begins_as_the_identity_and_then_sees_what_is_around_a_landmark() -> None:
    torch.manual_seed(0)
    network = Cascade().eval()
    image, places = torch.rand(2, 3, 192, 192), torch.rand(2, 68, 2) * 0.6 + 0.2
    same, spread = network.settled(image, places)
    torch.testing.assert_close(same, places)
    assert spread.shape == (2, 68, 2)
    assert (spread > 0).all()
    torch.nn.init.normal_(network.move.weight, std=0.1)
    torch.nn.init.zeros_(network.together[0].weight)  # what others see moves a landmark, too
    before, _ = network(image, places)
    image[0, :, :40, :40] = 0
    after, _ = network(image, places)
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_places_to_begin_from_are_the_encoders_or_nearer() -> None:
    rng = torch.Generator().manual_seed(0)
    true = torch.full((4000, 68, 2), 0.5)
    true += 0.1 * torch.randn(true.shape[1:], generator=rng)
    found = true + 0.02
    off = (training.started(found, true, rng) - true).mean((1, 2))
    assert float(off.max()) < 0.035
    assert 0.3 < float((off > 0.018).float().mean()) < 0.8
    assert float((off < 0.01).float().mean()) > 0.15


@pytest.fixture(scope="module")
def heads(assets: HeadAssets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    list(draw_all(folder, str(assets.folder), 0, 12, 64, 1, ("front",)))
    return folder


def test_it_learns_while_the_rest_of_the_encoder_stays(
    heads: Path, assets: HeadAssets, tmp_path: Path
) -> None:
    layout = LabelLayout.of(assets)
    torch.manual_seed(0)
    plain = Encoder(EncoderConfig.of(layout, 4, 8, widths=(16, 16, 16, 32, 32), hidden=64, close=32))
    save_encoder(plain, layout, tmp_path / "plain.safetensors", {"steps": 7})
    settings = training.Settings(batch=6, rate=2e-3, pool=24, every=8, log_every=5)
    path = training.train(heads, tmp_path / "run", tmp_path / "plain.safetensors", 0.4, settings)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    few = max(1, len(rows) // 4)
    assert np.mean([r["after"] for r in rows[-few:]]) < 0.8 * np.mean([r["before"] for r in rows[-few:]])
    assert np.mean([r["spread"] for r in rows[-few:]]) < np.mean([r["spread"] for r in rows[:few]])
    better, _, meta = load_encoder(path)
    assert better.config == replace(plain.config, cascade=True)
    assert meta["steps"] == 7
    assert meta["cascade_steps"] > 0
    kept = better.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in plain.state_dict().items())
    image = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.inference_mode():
        first, found = better.first_landmarks(image), better(image)
    assert first is not None
    assert found.landmarks is not None
    assert not torch.equal(first, found.landmarks)
    begin_from(plain, kept)  # a training that goes on leaves it behind
