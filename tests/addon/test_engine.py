"""Starting, attaching to and ending the engine's process: no bpy in any of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from blender_addon import preferences
from blender_addon.engine import Engine, Launch, StartCancelled, find_python, python_in
from blender_addon.errors import Trouble
from blender_addon.protocol import ADDRESS_FILE, PROTOCOL, Address, overall
from tests.addon.conftest import ENGINE_ARGS, ROOT


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    return Launch(Path(sys.executable), ROOT, tmp_path / "data", extra=ENGINE_ARGS.split())


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    yield made
    made.forget()


class Other(BaseHTTPRequestHandler):
    """Something else on the port: an engine of another protocol, or a stranger."""

    answer: bytes = b"{}"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def other() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answer", (Other,), {}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def leave_address(data: Path, port: int, protocol: int = PROTOCOL, pid: int = 0) -> None:
    data.mkdir(parents=True, exist_ok=True)
    said = {"url": f"http://127.0.0.1:{port}", "token": "x" * 20, "pid": pid or os.getpid()}
    (data / ADDRESS_FILE).write_text(json.dumps({**said, "protocol": protocol, "version": "9.9"}))


def test_two_blenders_share_one_engine(launch: Launch, engine: Engine) -> None:
    second = Engine()
    first = engine.ensure(launch)
    assert second.ensure(launch) == first
    assert (engine.owned, second.owned) == (True, False)
    assert engine.ensure(launch) == first
    second.forget()
    assert not engine.died()
    # Either may end it, and the other one notices.
    second.ensure(launch)
    second.stop(launch.data)
    assert engine.died()
    assert engine.ensure(launch).port > 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal that pauses a process")
def test_a_slow_engine_is_not_ended(launch: Launch, engine: Engine) -> None:
    first = engine.ensure(launch)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        assert engine.ensure(launch) == first
    finally:
        os.kill(first.pid, signal.SIGCONT)


def test_address_left_by_a_dead_engine(launch: Launch, engine: Engine) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    leave_address(launch.data, 1, pid=gone.pid)
    assert engine.ensure(launch).pid != gone.pid
    assert engine.owned


def test_address_whose_port_a_stranger_has(
    launch: Launch, engine: Engine, other: ThreadingHTTPServer
) -> None:
    other.RequestHandlerClass.answer = b"<html>Hello</html>"  # type: ignore[attr-defined]
    leave_address(launch.data, other.server_port)
    assert engine.ensure(launch).port != other.server_port


def test_engine_of_another_protocol_is_named(
    launch: Launch, engine: Engine, other: ThreadingHTTPServer
) -> None:
    health = json.dumps({"protocol": PROTOCOL + 1, "version": "9.9"}).encode()
    other.RequestHandlerClass.answer = health  # type: ignore[attr-defined]
    leave_address(launch.data, other.server_port, PROTOCOL + 1)
    with pytest.raises(Trouble, match=r"version 9\.9.*update the add-on") as told:
        engine.ensure(launch)
    assert (told.value.code, told.value.fix) == ("protocol", "geoinv.stop_engine")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": "http://evil.example:80", "token": "t"}'])
def test_useless_address_file_does_not_matter(launch: Launch, engine: Engine, text: str) -> None:
    launch.data.mkdir(parents=True)
    (launch.data / ADDRESS_FILE).write_text(text)
    assert engine._attach(launch.data) is None


def test_address_elsewhere_than_here_is_refused() -> None:
    said = {"url": "http://10.0.0.1:80", "token": "t", "pid": 1, "protocol": 1, "version": "1"}
    with pytest.raises(Trouble, match="cannot be used"):
        Address.parse(said)


def test_no_python_at_all(tmp_path: Path, engine: Engine) -> None:
    with pytest.raises(Trouble, match="not set up") as told:
        engine.ensure(Launch(None, tmp_path, tmp_path / "data"))
    assert told.value.fix == "geoinv.choose_python"


def test_python_without_the_engine(tmp_path: Path, engine: Engine) -> None:
    bare = Launch(Path(sys.executable), tmp_path, tmp_path / "data", extra=["--nonsense"])
    with pytest.raises(Trouble, match=r"stopped while it was starting \(.*nonsense") as told:
        engine.ensure(bare)
    assert told.value.code == "start"


def test_engine_that_says_why_is_quoted(launch: Launch, engine: Engine) -> None:
    launch.data.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Trouble, match=f"^Port {port} is in use by another program"):
            engine.ensure(Launch(launch.python, launch.folder, launch.data, port=port, extra=launch.extra))


def test_taken_port_in_the_preferences_is_evaded(registered: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        preferences.fallback.port = taken.getsockname()[1]
        assert preferences.launch().port == 0
    assert preferences.launch().port == preferences.fallback.port


def test_data_folder_that_cannot_be_made(tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(Trouble) as told:
        engine.ensure(Launch(Path(sys.executable), ROOT, tmp_path / "file" / "data"))
    assert (told.value.code, told.value.fix) == ("disk", "geoinv.open_preferences")


def test_cancel_while_it_starts(launch: Launch, engine: Engine) -> None:
    with pytest.raises(StartCancelled):
        engine.ensure(launch, given_up=lambda: True)
    assert not engine.owned


def test_which_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEOINV_PYTHON", raising=False)
    assert find_python("", tmp_path) is None
    beside = python_in(tmp_path)
    beside.parent.mkdir(parents=True)
    beside.touch()
    assert find_python("", tmp_path) == beside
    monkeypatch.setenv("GEOINV_PYTHON", sys.executable)
    assert find_python("", tmp_path) == Path(sys.executable)
    with pytest.raises(Trouble, match="preferences names"):
        find_python(str(tmp_path / "none"), tmp_path)


def test_progress_never_goes_back_over_the_stages() -> None:
    order = ["load", "detect", "encode", "refine", "surface", "texture", "shapes", "save"]
    marks = [overall(stage, part) for stage in order for part in (0.0, 0.5, 1.0)]
    assert marks == sorted(marks)
    assert marks[0] == 0
    assert marks[-1] == pytest.approx(1)
    assert overall("something new", 0.5) == 0
