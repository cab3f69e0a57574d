"""build.py: standard library only, the verbs, the choice of torch, the stamp, the sentences on failure."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BUILD = Path(__file__).resolve().parents[1] / "build.py"


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """build.py as a module, with its folders moved to an empty checkout."""
    spec = importlib.util.spec_from_file_location("build_under_test", BUILD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    venv = tmp_path / ".venv"
    for name, value in {
        "ROOT": tmp_path,
        "VENV": venv,
        "STAMP": venv / "stamp.json",
        "LOG": venv / "log.txt",
    }.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.delenv("GEOINV_TORCH", raising=False)
    (tmp_path / "pyproject.toml").write_bytes((BUILD.parent / "pyproject.toml").read_bytes())
    return module


def fake_install(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replaces pip and the venv by a record of the calls; the returned list grows."""
    calls: list[list[str]] = []

    def make_venv() -> None:
        build.venv_python().parent.mkdir(parents=True, exist_ok=True)
        build.venv_python().touch()

    def pip(arguments: Any) -> None:
        calls.append(list(arguments))

    monkeypatch.setattr(build, "make_venv", make_venv)
    monkeypatch.setattr(build, "pip", pip)
    monkeypatch.setattr(build, "nvidia_driver", lambda: None)
    answer = subprocess.CompletedProcess([], 0, "2.13.0+cpu none\n", "")
    monkeypatch.setattr(build, "captured", lambda command: answer)
    return calls


def test_imports_the_standard_library_only() -> None:
    for node in ast.walk(ast.parse(BUILD.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.partition(".")[0] in sys.stdlib_module_names, name


def test_help_lists_every_verb() -> None:
    shown = subprocess.run(
        [sys.executable, str(BUILD), "--help"], capture_output=True, text=True, check=True
    ).stdout
    for verb in ("setup", "demo", "test", "lint", "native", "package", "bench", "train", "clean"):
        assert f"\n  {verb} " in shown


@pytest.mark.parametrize("line", [[], ["tset"], ["--torch"]])
def test_wrong_call_exits_with_2(line: list[str]) -> None:
    job = subprocess.run([sys.executable, str(BUILD), *line], capture_output=True, text=True, check=False)
    assert job.returncode == 2


def test_arguments_are_split_and_kept_in_order(build: ModuleType) -> None:
    assert build.parse(["test", "-k", "mesh", "tests/core", "-x"]) == (
        "test",
        None,
        ["-k", "mesh", "tests/core", "-x"],
    )
    assert build.parse(["train", "--torch", "cpu", "generator", "--steps", "5"]) == (
        "train",
        "cpu",
        ["generator", "--steps", "5"],
    )
    assert build.parse(["train", "generator", "--help"])[2] == ["generator", "--help"]


def test_environment_variable_chooses_torch(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOINV_TORCH", "cuda")
    assert build.parse(["setup"])[1] == "cuda"
    assert build.parse(["setup", "--torch=cpu"])[1] == "cpu"


def test_no_driver_means_the_cpu_build(build: ModuleType) -> None:
    plan = build.choose_torch("auto", None, "linux")
    assert plan.kind == "cpu"
    assert [attempt[0] for attempt in plan.attempts] == [
        "torch==2.13.0+cpu",
        "torch==2.13.0+cpu",
        "torch==2.13.0",
    ]
    assert plan.attempts[1][2].endswith("/whl/cpu")
    assert "no NVIDIA driver" in plan.reason


@pytest.mark.parametrize(
    ("driver", "platform", "first"),
    [
        (13000, "linux", ("torch===2.13.0",)),
        (12080, "linux", ("torch==2.13.0", "--index-url", "https://download.pytorch.org/whl/cu128")),
        (12060, "linux", ("torch==2.13.0", "--index-url", "https://download.pytorch.org/whl/cu126")),
        (13010, "win32", ("torch==2.13.0", "--index-url", "https://download.pytorch.org/whl/cu130")),
        (11080, "win32", ("torch===2.13.0",)),
    ],
)
def test_a_driver_means_a_cuda_build_that_it_can_run(
    build: ModuleType, driver: int, platform: str, first: tuple[str, ...]
) -> None:
    plan = build.choose_torch("auto", driver, platform)
    assert plan.kind == "cuda"
    assert plan.attempts[0][: len(first)] == first


def test_what_was_asked_for_wins(build: ModuleType) -> None:
    assert build.choose_torch("cpu", 13000, "linux").kind == "cpu"
    assert build.choose_torch("cuda", None, "linux").kind == "cuda"
    assert build.choose_torch("2.9.1", None, "linux").attempts == (("torch==2.9.1",),)
    assert build.choose_torch("./torch.whl", 13000, "linux").attempts == (("./torch.whl",),)
    assert build.choose_torch("auto", None, "darwin").attempts == (("torch==2.13.0",),)


def test_second_setup_does_nothing(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_install(build, monkeypatch)
    build.ensure(["demo"], None)
    assert calls[0] == ["torch==2.13.0+cpu"]
    assert ".[demo]" in " ".join(calls[1]) or ".[blender,demo]" in " ".join(calls[1])
    calls.clear()
    build.ensure(["demo"], None)
    build.ensure(["blender"], None)  # demo brings it along
    assert calls == []


def test_setup_again_when_something_changed(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_install(build, monkeypatch)
    build.ensure(["demo"], None)
    calls.clear()
    build.ensure(["dev"], None)  # more extras: the earlier ones stay
    assert calls[1][calls[1].index("--editable") + 1] == ".[blender,demo,dev,heads]"
    calls.clear()
    build.ensure(["demo"], "2.9.1")  # another torch
    assert calls[0] == ["torch==2.9.1"]
    calls.clear()
    build.ensure(["demo"], None)  # and it stays chosen
    assert calls == []
    about = build.ROOT / "pyproject.toml"
    about.write_text(about.read_text().replace('"safetensors>=0.4.5', '"safetensors>=0.5'))
    build.ensure(["demo"], None)
    assert calls[0] == ["torch==2.9.1"]
    calls.clear()
    about.write_text(about.read_text().replace("line-length = 110", "line-length = 111"))  # no matter
    build.ensure(["demo"], None)
    assert calls == []


def test_setup_verb_looks_for_the_driver_again(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_install(build, monkeypatch)
    build.ensure([], None)
    calls.clear()
    monkeypatch.setattr(build, "nvidia_driver", lambda: 13000)
    build.ensure([], None)
    assert calls == []
    build.ensure([], None, decide_again=True)
    assert calls[0] == ["torch===2.13.0"]


def test_failed_setup_leaves_no_stamp(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_install(build, monkeypatch)
    build.ensure([], None)
    assert build.STAMP.exists()
    monkeypatch.setattr(build, "pip", lambda arguments: "ERROR: No matching distribution found for xatlas\n")
    with pytest.raises(build.Failure, match="xatlas"):
        build.ensure(["demo"], None)
    assert not build.STAMP.exists()


def test_damaged_stamp_counts_as_none(build: ModuleType) -> None:
    build.venv_python().parent.mkdir(parents=True)
    build.venv_python().touch()
    build.STAMP.write_text("{half")
    assert build.read_stamp() == {}
    build.STAMP.write_text("[1]")
    assert build.read_stamp() == {}


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("WARNING: Retrying ... NewConnectionError(': Failed to establish')", "connect to the internet"),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "disk is full",
        ),
        ("noise\nERROR: ResolutionImpossible: see x\n", "ResolutionImpossible"),
    ],
)
def test_pips_failures_become_one_sentence(build: ModuleType, output: str, sentence: str) -> None:
    told = build.why_pip_failed(output)
    assert sentence in told
    assert "\n" not in told


def test_full_disk_is_noticed_before_the_download(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_install(build, monkeypatch)
    monkeypatch.setattr(build, "DISK_GB", {"cpu": 1e9})
    with pytest.raises(build.Failure, match="GB free"):
        build.ensure([], None)
    assert calls == []


def test_another_python_is_found_or_asked_for(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "PYTHON", (3, 99))
    with pytest.raises(build.Failure, match=r"needs Python 3\.99"):
        build.in_right_python(["demo"])
    monkeypatch.setattr(build, "PYTHON", sys.version_info[:2])
    assert build.in_right_python(["demo"]) is None
    assert build.other_python(lambda name: sys.executable if name.startswith("python") else None) == [
        sys.executable
    ]


def test_unknown_extra_is_named(build: ModuleType) -> None:
    with pytest.raises(build.Failure, match="'blnder'"):
        build.closure(["blnder"], {"blender": ["bpy"]})


def test_extension_zip_is_the_same_twice_and_carries_the_licence(build: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "addon"
    (source / "__pycache__").mkdir(parents=True)
    (source / "__pycache__" / "x.pyc").write_bytes(b"x")
    (source / "__init__.py").write_text("def register(): ...\n")
    (tmp_path / "LICENSE").write_text("GPL\n")
    packed = []
    for name in ("a.zip", "b.zip"):
        build.write_zip(source, tmp_path / name)
        packed.append((tmp_path / name).read_bytes())
    assert packed[0] == packed[1]
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert sorted(archive.namelist()) == ["LICENSE", "__init__.py"]


def test_clean_keeps_the_results(build: ModuleType) -> None:
    for folder in (".venv", "build", "out/demo", "geoinv.egg-info", "geoinv_core/__pycache__"):
        (build.ROOT / folder).mkdir(parents=True)
    library = build.ROOT / "geoinv_core" / "render" / "native" / "x.so"
    library.parent.mkdir(parents=True)
    library.touch()
    assert build.clean(everything=False) == 0
    assert sorted(p.name for p in build.ROOT.iterdir()) == ["geoinv_core", "out", "pyproject.toml"]
    assert not library.exists()
    build.clean(everything=True)
    assert not (build.ROOT / "out").exists()


def test_native_renderer_is_built_once_per_state(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_install(build, monkeypatch)
    build.ensure([], None)
    native = build.ROOT / "geoinv_core" / "render" / "native"
    native.mkdir(parents=True)
    (native.parent / "build.py").touch()
    source = native / "cpu.cpp"
    source.write_text("int a;")
    codes, calls = [1, 0, 0], []

    def run(command: list[str]) -> int:
        calls.append(command[-1])
        return codes.pop(0)

    monkeypatch.setattr(build, "run", run)
    build.ensure_native()  # fails: a note, and the next call tries again
    build.ensure_native()
    build.ensure_native()  # done: nothing
    assert len(calls) == 2
    assert "geoinv_core.render.build" in calls[0]
    source.write_text("int b;")
    build.ensure_native()
    assert len(calls) == 3
    build.ensure([], None)  # the set-up's own stamp is still good
    assert build.read_stamp()["torch"] == "2.13.0+cpu"


def test_stamp_is_readable(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_install(build, monkeypatch)
    build.ensure(["heads"], "cpu")
    stamp = json.loads(build.STAMP.read_text())
    assert stamp["extras"] == ["heads"]
    assert stamp["torch"] == "2.13.0+cpu"
    assert stamp["torch_option"] == "cpu"
