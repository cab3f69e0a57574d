"""The command line's own work: parsing, JSON, exit codes, folders. The model and heads are stand-ins here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import geoinv_core as gi
from geoinv_core import cli, commands
from geoinv_core.errors import Cancelled, EditError, PhotoError
from geoinv_core.progress import Progress

Run = Callable[..., tuple[int, str, str]]


class FakeHead:
    """Records what was done to it; its pictures are grey."""

    def __init__(self, labels: dict[str, float]) -> None:
        self.labels = labels
        self.camera = [0.5] * 25
        self.timings = {"encode": 0.1}
        self.warnings = ["two faces: the larger one was taken"]

    def edit(self, values: dict[str, float]) -> FakeHead:
        if "nose" in values:
            raise EditError("There is no label named nose; `geoinv info default` lists them.")
        return FakeHead(self.labels | values)

    def render(self, yaw: float, pitch: float, size: int) -> Image.Image:
        return Image.new("RGB", (size, size), (int(yaw) % 256, 100, 100))

    def save(self, folder: Path, topology: str, texture: int, on_progress: Any, shapes: bool) -> Path:
        on_progress(Progress("save", 1.0, "writing"))
        print("a library that chatters")
        os.write(1, b"so does a program it starts\n")
        Path(folder).mkdir(parents=True)
        (Path(folder) / "head.json").write_text(
            json.dumps({"topology": topology, "texture": texture, "shapes": shapes})
        )
        return Path(folder)


class FakeModel:
    def invert(
        self, photo: Path, refine: int, on_progress: Any, space: str, tune: int, seed: int, **_: Any
    ) -> FakeHead:
        assert (space, tune, seed) in (("w+", 0, 0), ("w", 3, 4))
        on_progress(Progress("detect", 0.0, "looking for a face"))
        if "cancel" in photo.name:
            raise Cancelled
        if "ctrl-c" in photo.name:
            raise KeyboardInterrupt
        if "bug" in photo.name:
            raise ZeroDivisionError("division by zero")
        if "tree" in photo.name:
            raise PhotoError(
                f"No face was found in {photo.name}: choose a photo that shows one from the front."
            )
        return FakeHead({"age": 30.0 + refine})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line with the stand-ins: exit code, stdout, stderr."""
    monkeypatch.setitem(vars(gi), "open_model", lambda name, device, precision: FakeModel())
    monkeypatch.setitem(vars(gi), "load_head", lambda folder: FakeHead({"age": 30.0}))

    def call(*line: object) -> tuple[int, str, str]:
        try:
            code = cli.main([str(part) for part in line])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return call


def test_help_needs_no_torch() -> None:
    program = "import sys, geoinv_core.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: "
    program += "print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "doctor" in shown
    assert shown.splitlines()[-1] == "False"


def test_one_photo_goes_to_the_folder_itself(run: Run, tmp_path: Path) -> None:
    code, out, err = run(
        "invert", "me.jpg", "-o", tmp_path / "me", "--set", "smile=.8", "age=70", "--refine", 5,
        "--space", "w", "--tune", 3, "--seed", 4,
    )  # fmt: skip
    assert code == 0
    assert out.strip().splitlines()[-1] == f"me.jpg -> {tmp_path / 'me'}"
    assert (tmp_path / "me" / "head.json").exists()
    assert "detect" in err
    assert "two faces" in err


def test_json_is_one_object_whatever_the_libraries_print(run: Run, tmp_path: Path) -> None:
    code, out, err = run(
        "invert", "me.jpg", "-o", tmp_path / "me", "--json", "--set", "smile=.8", "--texture", 512
    )
    assert code == 0
    (head,) = json.loads(out)["heads"]
    assert head["labels"] == {"age": 30.0, "smile": 0.8}
    assert head["photo"] == "me.jpg"
    assert head["folder"] == str(tmp_path / "me")
    assert len(head["camera"]) == 25
    assert head["warnings"] == ["two faces: the larger one was taken"]
    assert "chatters" in err
    assert "program it starts" in err
    assert json.loads((tmp_path / "me" / "head.json").read_text()) == {
        "topology": "quads",
        "texture": 512,
        "shapes": True,
    }


def test_several_photos_get_a_folder_each(run: Run, tmp_path: Path) -> None:
    code, _, _ = run("invert", "a/Me.jpg", "b/me.png", "c/you.jpg", "c/you.jpg", "-o", tmp_path)
    assert code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["Me", "me-2", "you"]


def test_a_bad_photo_among_several_costs_only_itself(run: Run, tmp_path: Path) -> None:
    code, out, err = run("invert", "me.jpg", "tree.jpg", "you.jpg", "-o", tmp_path, "--json")
    assert code == 1
    result = json.loads(out)
    assert [head["photo"] for head in result["heads"]] == ["me.jpg", "you.jpg"]
    assert result["failed"][0]["photo"] == "tree.jpg"
    assert result["failed"][0]["error"]["code"] == "photo"
    assert result["error"]["message"].startswith("1 of 3")
    assert "No face" in err


def test_what_cannot_be_done_exits_with_1_and_a_sentence(run: Run, tmp_path: Path) -> None:
    code, out, err = run("invert", "tree.jpg", "-o", tmp_path / "x")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("geoinv: No face was found in tree.jpg")
    code, out, _ = run("edit", "head", "--set", "nose=1", "-o", tmp_path / "x", "--json")
    assert code == 1
    assert json.loads(out) == {
        "error": {
            "code": "edit",
            "message": "There is no label named nose; `geoinv info default` lists them.",
        }
    }
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("photo", ["cancel.jpg", "ctrl-c.jpg"])
def test_cancelling_exits_with_130(run: Run, tmp_path: Path, photo: str) -> None:
    code, out, _ = run("invert", photo, "other.jpg", "-o", tmp_path, "--json")
    assert code == 130
    assert json.loads(out)["error"]["code"] == "cancelled"
    assert list(tmp_path.iterdir()) == []


def test_a_bug_still_answers_in_json(run: Run, tmp_path: Path) -> None:
    code, out, err = run("invert", "bug.jpg", "-o", tmp_path / "x", "--json")
    assert code == 1
    assert json.loads(out)["error"]["code"] == "internal"
    assert "Traceback" in err


@pytest.mark.parametrize(
    "line",
    [
        ["invert", "a.jpg"],
        ["invert", "a.jpg", "-o", "x", "--set", "smile"],
        ["invert", "a.jpg", "-o", "x", "--set", "smile=much"],
        ["invert", "a.jpg", "-o", "x", "--set", "smile=nan"],
        ["invert", "a.jpg", "-o", "x", "--set", "smile=1", "--set", "smile=.5"],
        ["invert", "a.jpg", "-o", "x", "--texture", "7"],
        ["invert", "a.jpg", "-o", "x", "--topology", "hexagons"],
        ["invert", "a.jpg", "-o", "x", "--device", "toaster"],
        ["edit", "head", "-o", "x"],
        ["render", "head", "-o", "x.gif"],
        ["render", "head", "--turntable", "4", "-o", "x.png"],
        ["render", "head", "--yaw", "inf", "-o", "x.png"],
        ["export", "head"],
        ["train", "patience"],
        ["dance"],
        [],
    ],
)
def test_wrong_calls_exit_with_2(run: Run, line: list[str]) -> None:
    code, out, err = run(*line)
    assert (code, out) == (2, "")
    assert "error:" in err
    code, out, _ = run(*line, "--json")
    assert code == 2
    assert json.loads(out)["error"]["code"] == "usage"


def test_settings_read_numbers_of_all_spellings() -> None:
    assert commands.settings(["smile=.8", "age=70", "weight=-1e-1"]) == {
        "smile": 0.8,
        "age": 70.0,
        "weight": -0.1,
    }
    assert commands.settings(None) == {}


def test_render_writes_a_picture_or_a_turntable(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(
        "render", "head", "--yaw", 30, "--size", 64, "-o", tmp_path / "new" / "x.png", "--json"
    )
    assert code == 0
    assert json.loads(out) == {"file": str(tmp_path / "new" / "x.png"), "size": 64, "views": 1}
    with Image.open(tmp_path / "new" / "x.png") as picture:
        assert picture.size == (64, 64)
    code, _, _ = run("render", "head", "--turntable", 3, "--size", 32, "-o", tmp_path / "x.gif")
    assert code == 0
    with Image.open(tmp_path / "x.gif") as film:
        assert getattr(film, "n_frames", 1) == 3


def test_picture_that_cannot_be_written_leaves_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, out, _ = run("render", "head", "-o", tmp_path / "file" / "x.png", "--json")
    assert code == 1
    assert json.loads(out)["error"]["code"] == "output"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_export_and_info_of_a_missing_head(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("export", tmp_path / "none", "-o", tmp_path / "x.glb", "--json")
    assert code == 1
    assert json.loads(out)["error"]["code"] == "model"
    code, out, _ = run("export", tmp_path / "none", "-o", tmp_path / "x.fbx", "--json")
    assert code == 1
    assert json.loads(out)["error"]["code"] == "output"
    code, out, _ = run("info", tmp_path / "none.safetensors", "--json")
    assert code == 1
    assert json.loads(out)["error"]["code"] == "model"


def test_trainers_get_their_own_arguments(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run("train", "generator", "--help")
    assert code == 0
    assert "--minutes" in out
    code, _, err = run("train", "generator", "--patience", "1")
    assert code == 2
    assert "error:" in err
