"""Finding, starting, attaching to and stopping the engine's process. Blocking: for threads; no bpy.

The engine is the program `server` of a Python environment of its own. It picks a free port on 127.0.0.1,
prints one JSON line with its address and key, leaves the same in DATA/engine.json, and ends when every
Blender that uses it has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from .client import Client, EngineLost
from .errors import Trouble, disk_trouble
from .protocol import Address, check_protocol, read_address

READY_SECONDS = 90.0
"""Longest wait for the ready line; about one second, but more from a cold disk."""

LOG_FILE = "engine.log"


class StartCancelled(Exception):  # noqa: N818 -- not an error: the person asked for it
    """The person gave up while the engine was starting."""


@dataclass(frozen=True)
class Launch:
    """How to start the engine. `python` is None when none was found; attaching still works then."""

    python: Path | None
    folder: Path
    data: Path
    model: str = "default"
    port: int = 0
    extra: Sequence[str] = ()

    def command(self) -> list[str]:
        return [
            *(str(self.python), "-m", "server", "--port", str(self.port), "--data", str(self.data)),
            # --attach: of two Blenders that start at the same moment, the second joins the first one's engine
            *("--parent-pid", str(os.getpid()), "--model", self.model, "--attach", *self.extra),
        ]


def python_in(folder: Path) -> Path:
    """The interpreter of the virtual environment `folder`/.venv on this system, whether it exists or not."""
    return folder / ".venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def find_python(preferred: str, source: Path) -> Path | None:
    """The engine's interpreter: the preference, else GEOINV_PYTHON, else the .venv of the checkout `source`.

    None when nothing was named and there is no such .venv. Trouble when what was named does not exist.
    """
    for named, where in (
        (preferred, "the add-on's preferences"),
        (os.environ.get("GEOINV_PYTHON", ""), "GEOINV_PYTHON"),
    ):
        if named:
            path = Path(named).expanduser()
            if not path.is_file():
                raise Trouble(
                    f"There is no Python at {named}, which {where} names: "
                    "choose the python of the GeoInv engine.",
                    code="no_python",
                    fix="geoinv.choose_python",
                )
            return path
    beside = python_in(source)
    return beside if beside.is_file() else None


class Engine:
    """The one engine that this Blender uses: its address, and its process where this Blender started it.

    `ensure` is called from one job thread at a time; `stop` and `died` from the main thread.
    """

    def __init__(self) -> None:
        self.address: Address | None = None
        self.process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    @property
    def owned(self) -> bool:
        """Whether this Blender started the engine it uses."""
        return self.process is not None

    def died(self) -> bool:
        """Whether the engine that was ready a moment ago has ended. Cheap: no network."""
        if self.address is None:
            return False
        if self.process is not None:
            return self.process.poll() is not None
        return not _alive(self.address.pid)

    def forget(self) -> None:
        """Drop an engine that is gone; the next `ensure` finds or starts another."""
        self.address = None
        if self.process is not None and self.process.poll() is None:
            _end(self.process)
        self.process = None

    def ensure(self, launch: Launch, given_up: Callable[[], bool] = lambda: False) -> Address:
        """The address of a living engine: the present one, else one to attach to, else a new one.

        Raises Trouble (no Python, does not start, protocol) and StartCancelled.
        """
        with self._lock:
            # On a busy computer our own process may answer late, and to end it for that would end its work,
            # and another Blender's.
            if self.address is not None and not self.died() and _answers(self.address, late=self.owned):
                return self.address
            self.forget()
            self.address = self._attach(launch.data)
            if self.address is None:
                self.address = self._start(launch, given_up)
            return self.address

    def stop(self, data: Path) -> None:
        """End the engine, also one that another Blender started. Trouble when it cannot be ended."""
        address = self.address or read_address(data)
        process = self.process
        self.address, self.process = None, None
        if process is not None:
            _end(process)
        elif address is not None and _answers(address, any_protocol=True):
            _end_other(address)

    def _attach(self, data: Path) -> Address | None:
        """The engine that engine.json names, if it lives and takes the key. Trouble: another protocol."""
        address = read_address(data)
        if address is None or not _alive(address.pid):
            return None
        client = Client(address, timeout=5.0)
        try:
            health = client.health()
        except Trouble:
            return None  # its port went to another program, or the key is not for it: start our own
        check_protocol(int(health.get("protocol", 0)), str(health.get("version", "?")))
        with contextlib.suppress(Trouble):
            # Asks it to live as long as this Blender too; an engine that cannot do that is still usable.
            client.attach(os.getpid())
        return address

    def _start(self, launch: Launch, given_up: Callable[[], bool]) -> Address:
        if launch.python is None:
            raise Trouble(
                "The GeoInv engine is not set up: run `python build.py setup` in GeoInv's folder, "
                "then choose that folder here.",
                code="no_python",
                fix="geoinv.choose_python",
            )
        try:
            launch.data.mkdir(parents=True, exist_ok=True)
            log = (launch.data / LOG_FILE).open("w", encoding="utf-8")
        except OSError as error:
            raise disk_trouble(error, f"use the data folder {launch.data}") from error
        with log:
            process = _spawn(launch, log.fileno())
        lines: SimpleQueue[str] = SimpleQueue()
        threading.Thread(target=_drain, args=(process, lines), daemon=True).start()
        try:
            address = _wait_ready(process, lines, launch, given_up)
            check_protocol(address.protocol, address.version)
        except BaseException:
            _end(process)
            raise
        if address.pid == process.pid:
            self.process = process
        else:
            _end(process)  # it has joined an engine that runs already, and only told its address
        return address


def _spawn(launch: Launch, log: int) -> subprocess.Popen[str]:
    hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # no black console window on Windows
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        return subprocess.Popen(
            launch.command(),
            cwd=launch.folder,
            env={**plain, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            errors="replace",
            creationflags=hidden,
        )
    except OSError as error:
        raise Trouble(
            f"{launch.python} could not be started ({error.strerror}): "
            "choose the python of the GeoInv engine.",
            code="no_python",
            fix="geoinv.choose_python",
        ) from error


def _drain(process: subprocess.Popen[str], lines: SimpleQueue[str]) -> None:
    """Hand on what the engine prints, for as long as it lives: a full pipe would stop it."""
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            lines.put(line)
    lines.put("")


def _wait_ready(
    process: subprocess.Popen[str], lines: SimpleQueue[str], launch: Launch, given_up: Callable[[], bool]
) -> Address:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        if given_up():
            raise StartCancelled
        try:
            line = lines.get(timeout=0.1)
        except Empty:
            continue
        if not line:
            raise _start_trouble(process, launch)
        with contextlib.suppress(ValueError):
            said = json.loads(line)
            if isinstance(said, dict) and "url" in said:
                return Address.parse(said)
    raise Trouble(
        f"The engine was not ready after {READY_SECONDS:.0f} seconds and was stopped: "
        "press Try Again, and if it stays so copy the report to see its log.",
        code="start",
        fix="geoinv.retry",
    )


def log_tail(data: Path, lines: int = 40) -> str:
    """The end of the engine's log, or ""."""
    try:
        return "\n".join(
            (data / LOG_FILE).read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        )
    except OSError:
        return ""


def _start_trouble(process: subprocess.Popen[str], launch: Launch) -> Trouble:
    """Why a process that ended before it was ready did so; the engine's own sentence where it gave one."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    said = [line.strip() for line in log_tail(launch.data).splitlines() if line.strip()]
    last = said[-1] if said else f"exit code {process.returncode}"
    if process.returncode == 1 and len(said) == 1 and last.endswith("."):
        return Trouble(last, code="start", fix="geoinv.open_preferences")
    return Trouble(
        f"The engine stopped while it was starting ({last.rstrip('.')}): "
        "choose another Python for it, or copy the report to see its log.",
        code="start",
        fix="geoinv.choose_python",
    )


def _answers(address: Address, any_protocol: bool = False, late: bool = False) -> bool:
    """Whether an engine takes our key there. late: silence means that it is busy."""
    try:
        health = Client(address, timeout=5.0).health()
        if not any_protocol:
            check_protocol(int(health.get("protocol", 0)), str(health.get("version", "?")))
    except Trouble as trouble:
        return late and trouble.code not in ("token", "protocol")
    return True


def _alive(pid: int) -> bool:
    """Whether a process of that number exists."""
    if pid <= 0:
        return False
    if sys.platform == "win32":
        return _alive_windows(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _alive_windows(pid: int) -> bool:
    # os.kill(pid, 0) would END the process on Windows, so ask the system instead.
    import ctypes

    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]
    handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
    if not handle:
        return False
    code = ctypes.c_ulong()
    kernel.GetExitCodeProcess(handle, ctypes.byref(code))
    kernel.CloseHandle(handle)
    return code.value == 259  # STILL_ACTIVE


def _end(process: subprocess.Popen[str]) -> None:
    """Ask the process to end, and make it end after three seconds."""
    process.terminate()
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(3)


def _end_other(address: Address) -> None:
    """End an engine that is no child of ours; it took the key, so its process is no stranger."""
    with contextlib.suppress(Trouble):  # an engine of another version may have no such route
        Client(address, timeout=5.0).shutdown()
    for _ in range(30):
        if not _alive(address.pid):
            return
        time.sleep(0.1)
    try:
        os.kill(address.pid, signal.SIGTERM)
    except OSError as error:
        raise Trouble(
            f"The engine (process {address.pid}) could not be stopped ({error.strerror}): "
            "close the Blender that started it.",
            code="stop",
        ) from error


__all__ = ["Engine", "EngineLost", "Launch", "StartCancelled", "find_python", "log_tail", "python_in"]
