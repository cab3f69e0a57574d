"""The add-on as Blender gets it: registers, goes without a trace, builds, passes Blender's validator."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import bpy
import pytest

import blender_addon
from tests.addon.conftest import ROOT

SOURCE = ROOT / "blender_addon"
STANDARD = {*sys.stdlib_module_names, "bpy", "numpy"}


def validator() -> Path:
    """Blender's extension tool, a plain script inside the bpy package."""
    return Path(bpy.utils.system_resource("SCRIPTS")) / "addons_core/bl_pkg/cli/blender_ext.py"


def test_builds_and_validates(tmp_path: Path) -> None:
    def tool(*arguments: str) -> str:
        done = subprocess.run([sys.executable, str(validator()), *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    tool("validate", str(SOURCE))
    tool("build", "--source-dir", str(SOURCE), "--output-dir", str(tmp_path))
    (made,) = tmp_path.glob("*.zip")
    tool("validate", str(made))
    with zipfile.ZipFile(made) as archive:
        names = set(archive.namelist())
    sources = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py")}
    assert names == {"blender_manifest.toml", *sources}


def test_needs_nothing_but_blender() -> None:
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert {name.name.split(".")[0] for name in node.names} <= STANDARD, path
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert (node.module or "").split(".")[0] in STANDARD, path


def test_threads_side_knows_no_bpy() -> None:
    for name in ("errors", "protocol", "client", "engine", "jobs", "bundle", "labels"):
        tree = ast.parse((SOURCE / f"{name}.py").read_text(encoding="utf-8"))
        imported = {
            alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        }
        assert "bpy" not in imported, name


def test_manifest_has_the_packages_version() -> None:
    manifest = tomllib.loads((SOURCE / "blender_manifest.toml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert manifest["version"] == project["project"]["version"]


def test_protocol_is_the_servers() -> None:
    from blender_addon.protocol import PROTOCOL
    from server import schema

    assert schema.PROTOCOL == PROTOCOL


def test_unregister_leaves_no_trace() -> None:
    def traces() -> list[str]:
        types = [name for name in dir(bpy.types) if name.startswith("GEOINV_")]
        handlers = [h.__name__ for h in bpy.app.handlers.load_post if "blender_addon" in h.__module__]
        owners = [
            kind
            for kind in ("Scene", "Object", "WindowManager")
            if hasattr(getattr(bpy.types, kind), "geoinv")
        ]
        return types + handlers + owners

    before = traces()
    assert before
    blender_addon.unregister()
    try:
        assert traces() == []
        assert not hasattr(bpy.ops.geoinv, "nothing") or "create_head" not in dir(bpy.ops.geoinv)
    finally:
        blender_addon.register()
    assert traces() == before


@pytest.mark.parametrize("panel", ["main", "options", "head", "facts", "engine", "picture"])
def test_panels_stand_in_the_geoinv_tab(panel: str) -> None:
    kind = getattr(bpy.types, f"GEOINV_PT_{panel}")
    assert kind.bl_category == "GeoInv"
    assert kind.bl_region_type == "UI"
