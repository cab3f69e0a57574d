"""Directions fitted to scores: a truth that is known is found again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from geoinv_core.edit import Directions, load_directions, save_directions
from geoinv_core.errors import GeoInvError
from geoinv_core.train.directions import explore, fit
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
