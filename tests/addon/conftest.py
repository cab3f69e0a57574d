"""The add-on inside the bpy module, with a real engine process that pretends its heads.

bpy can be initialised once per process and may hang when the interpreter ends after some renders; these tests
render nothing. Every test starts from an empty file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

bpy = pytest.importorskip("bpy", reason="bpy is not installed; `pip install geoinv[blender]` brings it")

import blender_addon  # noqa: E402
from blender_addon import preferences, session  # noqa: E402

ROOT = Path(__file__).parents[2]
ENGINE_ARGS = "--engine tests.addon.head_engine:HeadEngine --lazy"


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data folder, and so one engine, for all tests that do not harm it. With a space and an umlaut."""
    return tmp_path_factory.mktemp("Geo Inv ü")


@pytest.fixture(scope="session", autouse=True)
def registered(data: Path) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in ("GEOINV_DATA", "GEOINV_PYTHON", "GEOINV_ENGINE_ARGS")}
    os.environ |= {
        "GEOINV_DATA": str(data),
        "GEOINV_PYTHON": sys.executable,
        "GEOINV_ENGINE_ARGS": ENGINE_ARGS,
    }
    blender_addon.register()
    yield
    blender_addon.unregister()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@pytest.fixture(autouse=True)
def empty_file(registered: None) -> Iterator[None]:
    """An empty scene, no trouble left from the test before, the preferences' defaults."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    now = session.session
    now.trouble, now.notice, now.last = None, "", None
    now.offers.clear()
    preferences.fallback.__init__()  # type: ignore[misc]
    yield
    left, now.job = now.job, None
    if left is not None:
        left.worker.give_up()  # so that one failure is not the next test's too
    assert left is None, "a test left a job running"


@pytest.fixture
def settings() -> Any:
    """The scene's settings with a marked face, which spares the engine the search for one."""
    chosen = bpy.context.scene.geoinv
    chosen.by_hand, chosen.face_box, chosen.topology = True, (8, 8, 56, 56), "quads"
    return chosen


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture whose name has a space and letters outside ASCII."""
    from PIL import Image

    path = tmp_path / "Frau Müller 写真.png"
    Image.new("RGB", (64, 64), (200, 150, 130)).save(path)
    return path


@pytest.fixture
def head(settings: Any, photo: Path) -> Any:
    """A head made by the operator."""
    assert bpy.ops.geoinv.create_head(filepath=str(photo)) == {"FINISHED"}
    return bpy.context.active_object
