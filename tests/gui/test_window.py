"""The add-on in a Blender with a window: event loop, timers, undo.

Needs a display and GEOINV_BLENDER, the command that starts such a Blender, 4.2 or newer; a wrapper will do.
Without them the test is skipped. The engine runs outside Blender and is attached to.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

bpy = pytest.importorskip("bpy", reason="bpy, whose tool builds the extension, is not installed")
COMMAND = os.environ.get("GEOINV_BLENDER", "")
ROOT = Path(__file__).parents[2]
SECONDS = 300

pytestmark = pytest.mark.skipif(
    not COMMAND, reason="GEOINV_BLENDER does not name a Blender with a window; set it to run these tests"
)


def test_whole_way_with_undo(tmp_path: Path) -> None:
    from PIL import Image

    tool = Path(bpy.utils.system_resource("SCRIPTS")) / "addons_core/bl_pkg/cli/blender_ext.py"
    build = [sys.executable, str(tool), "build", "--source-dir", str(ROOT / "blender_addon")]
    subprocess.run([*build, "--output-dir", str(tmp_path)], check=True, capture_output=True)
    (made,) = tmp_path.glob("*.zip")
    photo = tmp_path / "someone.png"
    Image.new("RGB", (64, 64), (200, 150, 130)).save(photo)
    data, out, config = tmp_path / "data", tmp_path / "seen.json", tmp_path / "config.json"
    config.write_text(json.dumps({"zip": str(made), "data": str(data), "photo": str(photo), "out": str(out)}))
    script = tmp_path / "inside.py"
    script.write_bytes((Path(__file__).parent / "inside.py").read_bytes())

    engine = "tests.addon.head_engine:HeadEngine"
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "server",
            "--data",
            str(data),
            "--engine",
            engine,
            "--parent-pid",
            str(os.getpid()),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            assert json.loads(server.stdout.readline())["protocol"]
            blender = [*shlex.split(COMMAND), "--factory-startup", "--enable-event-simulate"]
            done = subprocess.run(
                [
                    *blender,
                    "--window-geometry",
                    "0",
                    "0",
                    "1400",
                    "900",
                    "--python",
                    str(script),
                    "--",
                    str(config),
                ],
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
        finally:
            server.terminate()
    assert out.is_file(), done.stdout[-3000:] + done.stderr[-3000:]
    seen = json.loads(out.read_text())
    assert seen["error"] == "", done.stdout[-2000:]
    assert seen["tab"] == "GeoInv"
    assert seen["dropped"] == ["geoinv.create_head"]
    assert (seen["started"], seen["returned at once"], seen["problem"]) == (["FINISHED"], True, "")
    assert seen["after variant"] == 2
    assert seen["after redo"] == ["Head someone", "Head someone jawOpen 1"]
    assert "jawOpen 0.5" in seen["keys"]
    assert seen["in the new file"] == []
    assert "another file" in seen["notice"]
    assert "Traceback" not in done.stderr
