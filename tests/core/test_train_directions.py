"""Directions fitted to scores: a truth that is known is found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import geoinv_core as gi
from geoinv_core import cli
from geoinv_core.edit import Directions, load_directions, save_directions
from geoinv_core.errors import GeoInvError
from geoinv_core.model import BUNDLED
from geoinv_core.train import directions
from geoinv_core.train.directions import NAMES, explore, fit
from tests.core import pickling
from tests.core.tiny import solid


def test_a_known_direction_is_found_with_its_scale() -> None:
    random = torch.Generator().manual_seed(0)
    stretch = torch.rand(16, generator=random) * 3 + 0.3
    w = torch.randn(1200, 16, generator=random) * stretch + 1
    true = torch.zeros(16)
    true[3], true[7] = 0.5, -0.25
    score = w @ true + 0.1 * torch.randn(1200, generator=random)
    found = fit(w, score)
    assert found.accuracy > 0.95
    # One unit along the move raises the score by one.
    assert float(found.move @ true) == pytest.approx(1.0, abs=0.15)
    others = found.move.clone()
    others[[3, 7]] = 0
    assert others.norm() < 0.3 * found.move.norm()


def test_noise_is_told_by_its_accuracy_and_nothing_is_refused() -> None:
    random = torch.Generator().manual_seed(1)
    w = torch.randn(900, 16, generator=random)
    assert fit(w, torch.randn(900, generator=random)).accuracy < 0.75
    with pytest.raises(GeoInvError, match="too few"):
        fit(w[:20], w[:20, 0])
    with pytest.raises(GeoInvError, match="too few"):
        fit(w, torch.ones(900))


def test_unnamed_directions_stretch_most() -> None:
    generator = solid()
    axes = explore(generator, 3)
    torch.testing.assert_close(axes @ axes.T, torch.eye(3), atol=1e-5, rtol=0)
    affine = [m.weight for n, m in generator.backbone.synthesis.named_modules() if n.endswith("affine")]
    assert affine

    def stretched(v: torch.Tensor) -> float:
        return sum(float((w @ v).square().sum()) for w in affine)

    anywhere = torch.randn(8, generator=torch.Generator().manual_seed(0))
    assert stretched(axes[0]) >= stretched(axes[1]) >= stretched(axes[2])
    assert stretched(axes[0]) > stretched(anywhere / anywhere.norm())


def test_accuracy_lies_in_the_file(tmp_path: Path) -> None:
    moves = {"smile": torch.ones(3)}
    path = save_directions(Directions(moves, {}, {"smile": 0.91}), tmp_path / "m.directions.safetensors", "a")
    assert load_directions(path, "a", (4, 3)).accuracy == {"smile": 0.91}


@pytest.mark.skipif(not BUNDLED.is_file(), reason="the bundled model is not in this checkout")
def test_a_converted_generator_learns_to_smile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Convert, fit, list, set: all but the faces, which a network of random weights does not draw."""
    (tmp_path / "m.pkl").write_bytes(
        pickling.dump(pickling.checkpoint(solid(), avg_camera_pivot=[0, 0, 0.2]))
    )
    file = tmp_path / "m.safetensors"
    width = gi.weights.convert(tmp_path / "m.pkl", file).config.w_dim
    call = ["train", "directions", str(file), "--device", "cpu", "--json", "--count"]
    assert cli.main([*call, "4"]) == 1
    assert "draws no faces" in json.loads(capfd.readouterr().out)["error"]["message"]
    assert not (tmp_path / "m.directions.safetensors").exists()

    smiling = torch.zeros(width)
    smiling[1], smiling[2] = 1.0, -1.0
    noise = torch.randn(300, generator=torch.Generator().manual_seed(0))

    def scored(model: gi.Model, encoder: object, labels: object, codes: torch.Tensor) -> object:
        smile = (codes - codes.mean(0)) / codes.std(0) @ smiling
        return codes, dict.fromkeys(NAMES, noise) | {"smile": smile}

    monkeypatch.setattr(directions, "scored", scored)
    assert cli.main([*call, "300"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert "smile" in told["kept"]
    assert "pucker" not in told["kept"]  # noise
    assert told["accuracy"]["smile"] > 0.8

    model = gi.open_model(file, device="cpu")
    assert {"smile", "explore1", "explore6"} <= model.labels.keys()
    head = model.head_of(torch.zeros(1, 6), model.conditioning())
    codes = directions.random_codes(model, 300, 0)
    moved = head.edit({"smile": 0.8}).inversion.w_plus - head.inversion.w_plus
    raised = moved[0] / codes.std(0) @ smiling
    assert raised.numpy() == pytest.approx(0.8, abs=0.25)
    explored = head.edit({"smile": 0.8, "explore1": 0.5})
    assert explored.labels["explore1"] == 0.5
    assert (explored.inversion.w_plus - head.inversion.w_plus - moved).norm() > 0.1
    torch.testing.assert_close(
        explored.edit({"smile": 0.0, "explore1": 0.0}).inversion.w_plus, head.inversion.w_plus
    )
