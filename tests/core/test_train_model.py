"""The whole way in steps, on machines that lose everything but the pieces; and the pieces themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from geoinv_core import cli, weights
from geoinv_core.detail import load_detail
from geoinv_core.encoder import load_encoder
from geoinv_core.heads import HeadAssets, sample
from geoinv_core.train import dataset, pieces
from geoinv_core.train.dataset import HeadSet, draw_all, parts_named
from geoinv_core.train.run import Run


def test_pieces_make_the_file_again(tmp_path: Path) -> None:
    file = tmp_path / "big.bin"
    file.write_bytes(bytes(range(256)) * 41)
    made = pieces.split(file, tmp_path / "carry", limit=4096)
    assert [p.stat().st_size for p in made[:-1]] == [4096, 4096, 2304]
    assert pieces.join(tmp_path / "carry", "big.bin", tmp_path / "new" / "big.bin")
    assert (tmp_path / "new" / "big.bin").read_bytes() == file.read_bytes()
    assert not pieces.join(tmp_path / "carry", "other.bin", tmp_path / "other.bin")
    file.write_bytes(b"short")
    assert len(pieces.split(file, tmp_path / "carry")) == 2
    assert len(pieces.pieces_of(tmp_path / "carry", "big.bin")) == 1


def test_lost_or_damaged_pieces_are_noticed(tmp_path: Path) -> None:
    file = tmp_path / "big.bin"
    file.write_bytes(bytes(10_000))
    made = pieces.split(file, tmp_path / "carry", limit=4096)
    made[1].unlink()
    with pytest.raises(pieces.PiecesError, match=r"3 pieces of big\.bin"):
        pieces.join(tmp_path / "carry", "big.bin", tmp_path / "big2.bin")
    assert not (tmp_path / "big2.bin").exists()


def test_a_session_ends_before_the_budget_does(tmp_path: Path) -> None:
    run = Run(tmp_path, minutes=100, session=0.002)
    assert sum(1 for _ in run.steps()) > 0
    assert run.fraction < 0.01
    run.save(value=torch.ones(1))
    assert json.loads((tmp_path / "run.json").read_text())["step"] == run.step


def test_parts_kept_out_are_never_drawn(assets: HeadAssets, tmp_path: Path) -> None:
    out = parts_named(["hair=short02", "brow=eyebrow001", "skin=young_lightskinned_male"])
    list(draw_all(tmp_path, str(assets.folder), 0, 12, 16, 1, ("front",), kept_out=out))
    heads = HeadSet(tmp_path, ("c",))
    wanted = [seed for seed in range(12) if not sample(assets, seed).wears(out)]
    assert 0 < len(wanted) < 12
    assert len(heads) == len(wanted)
    assert heads.description["kept_out"] == out
    with pytest.raises(Exception, match="hats=top names no part"):
        parts_named(["hats=top"])
    with pytest.raises(Exception, match="2 is no kind of view: front, wide"):
        dataset.main([str(tmp_path / "none"), "--views", "front,2"])
    assert not (tmp_path / "none").exists()


def test_the_whole_way_over_several_machines(
    assets: HeadAssets, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step runs in a new, empty folder, as on a machine that knows only the pieces."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    carry, stages = tmp_path / "carry", []
    for machine in range(10):
        work = tmp_path / f"machine{machine}"
        call = ["train", "model", str(work), "--carry", str(carry), "--heads", str(assets.folder)]
        minutes = 0.2 * 1.4**machine  # a busy machine needs longer to come to anything at all
        assert cli.main([*call, "--tiny", "--minutes", str(minutes), "--json"]) == 0
        stages.append(json.loads(capfd.readouterr().out)["next"])
        if stages[-1] is None:
            break
    assert stages[-1] is None
    assert len(stages) > 1
    steps = [json.loads(line)["step"] for line in (work / "generator" / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))  # went on, never began again
    model = weights.info(work / "release" / "default.safetensors")
    assert model["licence"] == "CC0-1.0"
    assert {"steps", "minutes", "device", "date", "data", "scores", "heads"} <= set(model["meta"])
    assert model["meta"]["scores"]["psnr"] > 0
    _, layout, meta = load_encoder(work / "release" / "default.encoder.safetensors")
    assert meta["generator"] == model["sha256"]
    assert layout.expressions == assets.expressions
    detail, meta = load_detail(work / "release" / "default.detail.safetensors")
    assert meta["generator"] == model["sha256"]
    assert meta["steps"] > 0
    assert all(torch.isfinite(v).all() for v in detail.state_dict().values())
    assert (work / "release" / "sheet.png").is_file()
    assert all(p.stat().st_size < 16 * 2**20 for p in carry.rglob("*") if p.is_file())
