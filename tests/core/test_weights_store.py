"""Model files: a round trip, and a clear sentence for everything that is not one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from geoinv_core import weights
from geoinv_core.errors import ModelError
from geoinv_core.generator import GeneratorConfig, TriplaneGenerator, channel_table
from geoinv_core.weights import memory


def tiny(**changes: object) -> TriplaneGenerator:
    settings: dict[str, object] = {
        "z_dim": 6,
        "c_dim": 5,
        "w_dim": 8,
        "channels": channel_table(16, 64, 8),
        "plane_channels": 4,
        "features": 6,
        "density": "sdf",
        "decoder_hidden": 8,
        "distance_radius": 0.3,
        "noise": False,
    }
    torch.manual_seed(0)
    return TriplaneGenerator(GeneratorConfig(**(settings | changes))).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("half", [False, True])
def test_round_trip(tmp_path: Path, half: bool) -> None:
    generator = tiny()
    path = weights.save(generator, tmp_path / "deep" / "m.safetensors", {"licence": "CC0-1.0"}, half=half)
    again = weights.load(path)
    assert again.config == generator.config
    z, c, points = torch.randn(2, 6), torch.randn(2, 5), torch.rand(2, 9, 3) - 0.5
    with torch.no_grad():
        expected = generator.query(generator.planes(generator.map(z, c)), points)
        found = again.query(again.planes(again.map(z, c)), points)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b, atol=5e-3 if half else 0.0, rtol=5e-3 if half else 0.0)
    assert [p.name for p in path.parent.iterdir()] == ["m.safetensors"]
    told = weights.info(path)
    assert told["licence"] == "CC0-1.0"
    assert told["parameters"] == sum(v.numel() for v in generator.state_dict().values())


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model at"):
        weights.load(tmp_path / "none.safetensors")


def test_half_downloaded(tmp_path: Path) -> None:
    path = weights.save(tiny(), tmp_path / "m.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a complete safetensors"):
        weights.load(path)


def test_foreign_safetensors(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, str(tmp_path / "a.safetensors"))
    with pytest.raises(ModelError, match="no description"):
        weights.load(tmp_path / "a.safetensors")


def test_altered_tensor(tmp_path: Path) -> None:
    from geoinv_core.weights.store import write

    generator = tiny()
    state = generator.state_dict()
    state["decoder.net.0.bias"] = torch.zeros(3)
    write(state, generator.config, tmp_path / "m.safetensors", {})
    with pytest.raises(ModelError, match=r"decoder\.net\.0\.bias"):
        weights.load(tmp_path / "m.safetensors")


def test_damaged_description(tmp_path: Path) -> None:
    save_file(
        {"a": torch.zeros(2)}, str(tmp_path / "a.safetensors"), {"geoinv": "1", "config": '{"zdim": 3}'}
    )
    with pytest.raises(ModelError, match="description inside"):
        weights.info(tmp_path / "a.safetensors")


def test_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match="geoinv convert"):
        weights.load(tmp_path / "m.pkl")


def test_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = weights.save(tiny(), tmp_path / "m.safetensors")
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(ModelError, match="GB of memory"):
        weights.load(path)
