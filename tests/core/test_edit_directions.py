"""Files of directions beside a model: read, applied, refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from geoinv_core.edit import Directions, load_directions, save_directions
from geoinv_core.errors import EditError, ModelError

SHAPE = (4, 3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    moves = {"smile": torch.randn(4, 3), "age": torch.randn(3)}
    path = save_directions(
        Directions(moves, {"age": (-1.0, 2.0)}), tmp_path / "m.directions.safetensors", "abc"
    )
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    return path


def test_round_trip_and_values_are_absolute(file: Path) -> None:
    found = load_directions(file, "abc", SHAPE)
    assert found.ranges() == {"age": (-1.0, 2.0, 0.0), "smile": (-3.0, 3.0, 0.0)}
    ws = torch.zeros(1, *SHAPE)
    once = found.apply(ws, {}, {"smile": 2.0})
    torch.testing.assert_close(once[0], 2 * found.moves["smile"])
    torch.testing.assert_close(
        found.apply(once, {"smile": 2.0}, {"smile": 0.5})[0], 0.5 * found.moves["smile"]
    )
    torch.testing.assert_close(found.apply(once, {"smile": 2.0}, {"smile": 0.0}), ws)
    both = found.apply(ws, {}, {"age": 1.0})
    assert torch.equal(both[0, 0], both[0, 3])  # one vector for all layers
    with pytest.raises(EditError, match="from -1 to 2"):
        found.apply(ws, {}, {"age": 3.0})


def test_wrong_files_are_explained(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="another model"):
        load_directions(file, "xyz", SHAPE)
    with pytest.raises(ModelError, match="does not fit"):
        load_directions(file, "abc", (4, 5))
    save_file({"x": torch.zeros(3)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match="no file of directions"):
        load_directions(tmp_path / "x.safetensors", "abc", SHAPE)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ModelError, match="damaged"):
        load_directions(file, "abc", SHAPE)
