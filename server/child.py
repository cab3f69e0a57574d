"""The front's end of a worker: start it, talk to it, end it, hear of its end."""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any

log = logging.getLogger("geoinv.worker")

KEY_VARIABLE = "GEOINV_WORKER_KEY"
BROKEN = 70
"""Exit code of a worker after a fault that its process cannot outlive."""

CONNECT_TICK = 0.2


@dataclass(frozen=True)
class Said:
    """A worker sent a message."""

    child: Child
    message: dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """A worker is gone. `code` as in subprocess: negative for a signal."""

    child: Child
    code: int


class Child:
    """A running worker. What it says and its end arrive in `inbox` as Said and Ended.

    Talk goes over a socket rather than the standard pipes: a pending read of a pipe can block the loading of
    libraries on Windows, and whatever a library prints would get in between.
    """

    def __init__(self, device: str, engine: str, inbox: queue.Queue[Any]) -> None:
        self._inbox = inbox
        self._key = secrets.token_hex(16)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(CONNECT_TICK)
        self._sending = threading.Lock()
        self._socket: socket.socket | None = None
        self._waiting: list[bytes] = []
        port = self._listener.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "server.worker",
            "--port",
            str(port),
            "--device",
            device,
            "--engine",
            engine,
        ]
        flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # Windows only
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, KEY_VARIABLE: self._key, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
            creationflags=flags,
            start_new_session=sys.platform != "win32",
        )
        threading.Thread(target=self._read_log, daemon=True, name="worker log").start()
        self._reader = threading.Thread(target=self._read, daemon=True, name="worker messages")
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: dict[str, Any]) -> None:
        """Never blocks for long and never fails: if the worker is gone, Ended says so."""
        line = json.dumps(message).encode() + b"\n"
        with self._sending:
            if self._socket is None:
                self._waiting.append(line)
                return
            # A worker that died meanwhile is reported by the reader.
            with contextlib.suppress(OSError):
                self._socket.sendall(line)

    def kill(self) -> None:
        """End it now, with what it may have started, and wait until it is gone."""
        try:
            if sys.platform == "win32":
                self._process.kill()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            log.debug("The worker was gone already.")
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        try:
            connection = self._accept()
            if connection is not None:
                with connection, connection.makefile("rb") as lines:
                    for line in lines:
                        self._inbox.put(Said(self, json.loads(line)))
        except (OSError, ValueError) as error:
            log.warning("The connection to the worker broke: %s", error)
        finally:
            self._listener.close()
            # Its end of the connection is closed, so it is ending; one that hangs in that is not waited for.
            try:
                code = self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                code = self._process.wait()
            self._inbox.put(Ended(self, code))

    def _accept(self) -> socket.socket | None:
        """The worker's connection: the first that shows the key. None when the worker ends before."""
        while self._process.poll() is None:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            connection.settimeout(5)
            shown = b""
            with contextlib.suppress(OSError):
                while len(shown) < len(self._key) + 1 and (
                    part := connection.recv(len(self._key) + 1 - len(shown))
                ):
                    shown += part
            if not hmac.compare_digest(shown, self._key.encode() + b"\n"):
                connection.close()
                continue
            connection.settimeout(None)
            with self._sending:
                self._socket = connection
                for line in self._waiting:
                    connection.sendall(line)
                self._waiting.clear()
            return connection
        return None

    def _read_log(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                log.info("%s", line.decode("utf-8", "replace").rstrip())


def explain_end(code: int) -> str:
    """The beginning of a sentence about a worker that ended with this exit code."""
    if code == BROKEN:
        return "The graphics processor reported a fault"
    if code == -9:
        return "The engine's worker was killed (often the system does that when memory runs out)"
    return f"The engine's worker ended unexpectedly (code {code})"
