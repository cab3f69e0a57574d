"""Brows and lids: the band around the eyes, its reading, and its training with the rest frozen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from geoinv_core.encoder import Encoder, EncoderConfig, load_encoder, save_encoder
from geoinv_core.encoder.brows import SIDE, band_of, cut_band
from geoinv_core.heads import HeadAssets, LabelLayout
from geoinv_core.train import brows as training
from geoinv_core.train.dataset import HeadSet, draw_all
from geoinv_core.train.encoder import begin_from


def test_the_band_lies_upright_over_the_eyes_however_the_face_is_turned() -> None:
    """A picture that says where it is: its channels are x and y, in picture widths."""
    axis = (torch.arange(256) + 0.5) / 256
    picture = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).flip(0)[None].repeat(3, 1, 1, 1)
    angle = torch.tensor([0.0, 0.5, -1.0])
    across = torch.stack([angle.cos(), angle.sin()], 1)
    down = torch.stack([-angle.sin(), angle.cos()], 1)
    landmarks = torch.full((3, 68, 2), 0.5)
    landmarks[:, 42:48] += 0.05 * across[:, None]  # the subject's left eye is to the picture's right
    landmarks[:, 36:42] -= 0.05 * across[:, None]
    cut = cut_band(picture, band_of(landmarks))
    assert cut.shape == (3, 2, SIDE, SIDE)
    middle = cut[:, :, SIDE // 2 - 1 : SIDE // 2 + 1, SIDE // 2 - 1 : SIDE // 2 + 1].mean((2, 3))
    torch.testing.assert_close(middle, 0.5 - 0.029 * down, atol=1e-3, rtol=0)
    right = cut[:, :, SIDE // 2, -1] - cut[:, :, SIDE // 2, 0]
    torch.testing.assert_close(right, 0.23 * across * (SIDE - 1) / SIDE, atol=1e-3, rtol=0)


def test_a_mirrored_face_has_its_sides_exchanged(assets: HeadAssets) -> None:
    layout = LabelLayout.of(assets)
    names = [layout.names[i] for i in training.entries(layout)]
    mirror = training.mirror_of(layout)
    assert names[mirror[names.index("eyeBlinkLeft")]] == "eyeBlinkRight"
    assert mirror[names.index("browInnerUp")] == names.index("browInnerUp")
    assert [mirror[i] for i in mirror] == list(range(len(names)))


@pytest.fixture(scope="module")
def heads(assets: HeadAssets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brows")
    list(draw_all(folder, str(assets.folder), 0, 12, 64, 1, ("photo",), even=True))
    return folder


def test_bands_show_the_face_and_differ_from_time_to_time(heads: Path) -> None:
    batch = HeadSet(heads, ("c", "camera", "rgb", "mask", "ibug")).batch(np.random.default_rng(0), 4)
    first = training.make_bands(batch, torch.Generator().manual_seed(0))
    again = training.make_bands(batch, torch.Generator().manual_seed(0))
    other = training.make_bands(batch, torch.Generator().manual_seed(1))
    assert first.shape == (4, 3, SIDE, SIDE)
    assert first.abs().max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_it_learns_while_the_rest_of_the_encoder_stays(
    heads: Path, assets: HeadAssets, tmp_path: Path
) -> None:
    layout = LabelLayout.of(assets)
    torch.manual_seed(0)
    plain = Encoder(EncoderConfig.of(layout, 4, 8, widths=(16, 16, 16, 32, 32), hidden=64, close=32))
    save_encoder(plain, layout, tmp_path / "plain.safetensors", {"steps": 7})
    settings = training.Settings(batch=12, pool=48, every=8, log_every=5)
    path = training.train(heads, tmp_path / "run", tmp_path / "plain.safetensors", 0.3, settings)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    few = max(1, len(rows) // 4)
    assert np.mean([r["units"] for r in rows[-few:]]) < 0.8 * np.mean([r["units"] for r in rows[:few]])
    assert np.mean([r["spread"] for r in rows[-few:]]) < np.mean([r["spread"] for r in rows[:few]])
    better, _, meta = load_encoder(path)
    assert better.config == replace(plain.config, brows=training.entries(layout))
    assert meta["steps"] == 7
    assert meta["brow_steps"] > 0
    kept = better.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in plain.state_dict().items())
    image = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.inference_mode():
        before, after = plain.eval()(image), better(image)
    changed = (before.c != after.c)[0].nonzero()[:, 0].tolist()
    assert changed == list(better.config.brows)
    begin_from(plain, kept)  # a training that goes on leaves it behind
