"""What release adjusts is found on heads of its own, and applied."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geoinv_core import weights
from geoinv_core.errors import GeoInvError
from geoinv_core.heads import EVALUATION_SEEDS, HeadAssets
from geoinv_core.model import open_model
from geoinv_core.train import calibrate
from geoinv_core.train.release import CALIBRATION, adjusted, release_generator

SEEDS = range(calibrate.CALIBRATION_SEEDS, calibrate.CALIBRATION_SEEDS + 1)


def test_adjusting_moves_the_surface_and_narrows_the_density() -> None:
    generator = open_model("default", "cpu").generator
    planes = generator.planes(generator.w_avg.expand(1, generator.num_ws, -1))
    points = torch.rand(1, 50, 3, generator=torch.Generator().manual_seed(1)) - 0.5
    crisp = adjusted(generator, sharpen=0.5, shrink=0.01)
    before, after = (g.query(planes, points)[0] for g in (generator, crisp))
    # inwards: what was on the surface lies outside of it now
    torch.testing.assert_close(after, before + 0.01, atol=1e-5, rtol=0)
    width = float(crisp.decoder.log_beta.exp() / generator.decoder.log_beta.exp())
    assert width == pytest.approx(0.5)


def test_a_blurred_generator_is_sharpened_and_a_swollen_one_shrunk(assets: HeadAssets) -> None:
    model = open_model("default", "cpu")
    worse = replace(model, generator=adjusted(model.generator, sharpen=4.0, shrink=-0.003))
    found = calibrate.calibrate_generator(worse, assets, SEEDS, 32)
    assert found["sharpen"] < 1
    assert found["shrink"] > 0
    trained, chosen = found["errors"]["as trained"], found["errors"]["chosen"]
    assert chosen["colour"] < trained["colour"]
    assert chosen["depth_mm"] <= trained["depth_mm"]
    assert found["heads"] == [SEEDS[0], 1]
    assert SEEDS[-1] < EVALUATION_SEEDS


def test_release_applies_and_records_what_was_chosen(tmp_path: Path) -> None:
    model = open_model("default", "cpu")
    assert model.label_space is not None
    run = tmp_path / "run"
    run.mkdir()
    weights.save(model.generator, run / "generator.safetensors", {"steps": 7})
    plain = release_generator(run, model.label_space.layout, tmp_path / "plain.safetensors", {})
    (run / CALIBRATION).write_text(json.dumps({"sharpen": 0.7, "shrink": 0.001}))
    target = release_generator(run, model.label_space.layout, tmp_path / "target.safetensors", {})
    assert "calibration" not in weights.info(plain)["meta"]
    assert weights.info(target)["meta"]["calibration"] == {"sharpen": 0.7, "shrink": 0.001}
    a, b = weights.load(plain), weights.load(target)
    assert b.config.distance_radius == pytest.approx(a.config.distance_radius - 0.001)
    assert float((b.decoder.log_beta - a.decoder.log_beta).exp()) == pytest.approx(0.7, abs=1e-2)


def test_offsets_need_a_face_that_is_found(assets: HeadAssets) -> None:
    with pytest.raises(GeoInvError, match="No face was found in 0 drawn heads"):
        calibrate.calibrate_encoder(open_model("default", "cpu"), assets, [], 32)
