"""The command line on the bundled model: one photo through invert, edit, render, export, info."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from geoinv_core import cli, model

PHOTO = Path(__file__).resolve().parents[1] / "data" / "head-900003.png"
pytestmark = pytest.mark.skipif(
    not model.BUNDLED.is_file(), reason="the bundled model is not in this checkout"
)


def answer(capfd: pytest.CaptureFixture[str], *line: object) -> dict[str, Any]:
    """The JSON object that the command prints; fails unless the exit code is 0 and stdout holds just that."""
    code = cli.main([*map(str, line), "--json"])
    out, err = capfd.readouterr()
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_photo_through_all_commands(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    me, old = tmp_path / "me", tmp_path / "old"
    (head,) = answer(capfd, "invert", PHOTO, "-o", me, "--texture", 256)["heads"]
    assert Path(head["folder"]) == me
    assert len(head["camera"]) == 25
    assert "age" in head["labels"]
    assert answer(capfd, "info", me)["labels"].keys() == head["labels"].keys()

    edited = answer(capfd, "edit", me, "--set", "age=70", "-o", old, "--texture", 256)["head"]
    assert edited["labels"]["age"] == pytest.approx(70)

    answer(capfd, "render", old, "--yaw", 30, "--size", 64, "-o", tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (64, 64)
        extremes = picture.convert("L").getextrema()
        assert extremes[0] != extremes[1]  # a head, not one flat colour

    files = answer(capfd, "export", old, "-o", tmp_path / "old.glb")["files"]
    assert [Path(file).name for file in files] == ["old.glb"]
    assert (tmp_path / "old.glb").read_bytes()[:4] == b"glTF"


def test_an_unknown_label_is_refused_before_anything_is_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = cli.main(["invert", str(PHOTO), "-o", str(tmp_path / "x"), "--set", "wings=1", "--json"])
    assert code == 1
    assert json.loads(capfd.readouterr().out)["error"]["code"] == "edit"
    assert list(tmp_path.iterdir()) == []
