"""`python -m server`: start the engine's front on 127.0.0.1.

When it accepts connections it prints one line of JSON, {"url", "token", "pid", "protocol", "version"}, and
keeps the same in DIR/engine.json (mode 0600) until it ends. The token comes from GEOINV_TOKEN or is made up.
It ends on SIGTERM, SIGINT, POST /v1/shutdown, or when the processes it was started for have all ended. Exit
code 1 and one sentence when it cannot start. There is one engine to a data folder; with --attach, a second
start joins the running one: it adds its parent to those the engine lives for, prints the same line with
"attached": true, and exits with 0.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import signal
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

import geoinv_core
from server.admission import Limits
from server.app import Context, create_app
from server.auth import MIN_TOKEN, new_token
from server.engine import CORE
from server.events import Hub
from server.jobs import Dispatcher, Options
from server.machine import FileLock, watch, write_private
from server.schema import PROTOCOL
from server.store import Store

log = logging.getLogger("geoinv.server")

TOKEN_VARIABLE = "GEOINV_TOKEN"
PARENT_CHECK = 0.5


class StartError(Exception):
    """Why the server cannot start: one sentence."""


class Parents:
    """Ends the server when every process that it lives for has ended; without any it lives on."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._alive: dict[int, Callable[[], bool]] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def add(self, pid: int) -> None:
        with self._lock:
            first = not self._alive
            self._alive[pid] = watch(pid)
        if first:
            threading.Thread(target=self._watch, daemon=True, name="parents").start()

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(PARENT_CHECK):
            with self._lock:
                self._alive = {pid: alive for pid, alive in self._alive.items() if alive()}
                if self._alive:
                    continue
            log.info("The program that this engine was started for has ended.")
            self._end()
            return


class Server(uvicorn.Server):
    """uvicorn with our own signal handling and a word when it is ready."""

    def __init__(self, config: uvicorn.Config, hub: Hub, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._hub = hub
        self._on_ready = on_ready

    def end(self) -> None:
        """Finish open answers, close event streams, and return from `run`. From any thread."""
        self._hub.close()
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._hub.close()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m server", description="GeoInv's engine, on 127.0.0.1 only."
    )
    add = parser.add_argument
    add("--port", type=int, default=0, help="0: any free port")
    add(
        "--data", type=Path, required=True, metavar="DIR", help="jobs, results and the log; made when missing"
    )
    add("--parent-pid", type=int, metavar="N", help="end when this process ends")
    add("--model", default="default", help="a model's name, or a .safetensors file")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    add(
        "--attach",
        action="store_true",
        help="join the engine that runs on this data folder, if one does",
    )
    add("--lazy", action="store_true", help="load the model with the first job rather than at once")
    add("--idle-minutes", type=float, default=15.0, help="free the model's memory after this; 0: never")
    add("--keep-jobs", type=int, default=500, help="ended jobs to keep; older ones are deleted")
    add("--keep-gb", type=float, default=50.0, help="disk space for ended jobs; older ones are deleted")
    add("--max-upload-mb", type=float, default=256.0, help="the largest request taken")
    add("--cancel-grace", type=float, default=2.0, help="seconds until a job that ignores a cancel is killed")
    add(
        "--engine",
        default=CORE,
        metavar="MODULE:CLASS",
        help="another implementation of the engine, for tests",
    )
    return parser.parse_args(arguments)


def _token() -> str:
    # Taken out of the environment, so that no child process has it.
    token = os.environ.pop(TOKEN_VARIABLE, "") or new_token()
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise StartError(
            f"{TOKEN_VARIABLE} must be at least {MIN_TOKEN} printable ASCII characters without spaces."
        )
    return token


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port), backlog=128)
    except (OSError, OverflowError) as error:
        code = getattr(error, "errno", None)
        if code in (
            errno.EADDRINUSE,
            getattr(errno, "WSAEADDRINUSE", None),
            getattr(errno, "WSAEACCES", None),
        ):
            raise StartError(f"Port {port} is in use by another program; choose another, or 0.") from error
        raise StartError(
            f"Port {port} cannot be opened ({error}); choose another one, or 0 for any."
        ) from error


def _start_log(folder: Path) -> None:
    """DIR/log.txt, 1 MB and two older ones. No requests, photos, file names or tokens in it."""
    handler = RotatingFileHandler(
        folder / "log.txt", maxBytes=2**20, backupCount=2, encoding="utf-8", delay=False
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(True)


def _running(folder: Path) -> dict[str, Any] | None:
    """What engine.json says, if it says anything."""
    try:
        facts = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def _join(folder: Path, parent: int | None) -> dict[str, Any]:
    """Attach to the engine that holds the lock. Returns its facts; raises StartError."""
    import urllib.request  # only here: the ordinary start is quicker without it

    facts = _running(folder)
    if facts is None:
        raise StartError(
            "Another engine is just starting or stopping on this data folder; try again in a moment."
        )
    if facts.get("protocol") != PROTOCOL:
        raise StartError(
            "An engine of another version runs on this data folder; end it first, then start again."
        )
    request = urllib.request.Request(f"{facts['url']}/v1/health")
    if parent is not None:
        request = urllib.request.Request(
            f"{facts['url']}/v1/attach",
            data=json.dumps({"parent_pid": parent}).encode(),
            headers={"Content-Type": "application/json"},
        )
    request.add_header("Authorization", f"Bearer {facts['token']}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback goes through no proxy
    try:
        opener.open(request, timeout=10).close()
    except OSError as error:
        raise StartError(
            f"An engine (process {facts.get('pid')}) holds this data folder but does not answer; end it, "
            "then try again."
        ) from error
    return {**facts, "attached": True}


def _serve(options: argparse.Namespace, token: str) -> None:
    listener = _listen(options.port)
    port = int(listener.getsockname()[1])
    folder: Path = options.data
    store = Store(folder)
    hub = Hub()
    dispatcher = Dispatcher(
        store,
        hub,
        Options(
            model=options.model,
            device=options.device,
            engine=options.engine,
            cancel_grace=options.cancel_grace,
            idle=options.idle_minutes * 60,
            keep_jobs=options.keep_jobs,
            keep_bytes=int(options.keep_gb * 2**30),
        ),
    )
    facts = {
        "url": f"http://127.0.0.1:{port}",
        "token": token,
        "pid": os.getpid(),
        "protocol": PROTOCOL,
        "version": geoinv_core.__version__,
    }
    note = folder / "engine.json"

    def ready() -> None:
        write_private(note, json.dumps(facts) + "\n")
        print(json.dumps(facts), flush=True)
        log.info("Ready on port %d, process %d.", port, os.getpid())
        dispatcher.start()
        if not options.lazy:
            dispatcher.open_model()
        if options.parent_pid is not None:
            parents.add(options.parent_pid)

    context = Context(
        store=store,
        hub=hub,
        dispatcher=dispatcher,
        limits=Limits(body=int(options.max_upload_mb * 2**20)),
        model=options.model,
        token=token,
        port=port,
        shutdown=lambda: server.end(),
        attach=lambda pid: parents.add(pid),
    )
    config = uvicorn.Config(
        create_app(context), log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=3
    )
    server = Server(config, hub, ready)
    parents = Parents(server.end)
    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: server.end())
    try:
        server.run(sockets=[listener])
    finally:
        parents.stop()
        if dispatcher.is_alive():
            dispatcher.stop()
        store.close()
        listener.close()
        if (_running(folder) or {}).get("pid") == os.getpid():
            note.unlink(missing_ok=True)
        log.info("Ended.")


def main(arguments: list[str] | None = None) -> int:
    options = _arguments(arguments)
    options.data = options.data.expanduser().resolve()
    try:
        token = _token()
        try:
            options.data.mkdir(parents=True, exist_ok=True)
            lock = FileLock(options.data / "engine.lock")
            if not lock.acquire():
                if not options.attach:
                    pid = (_running(options.data) or {}).get("pid", "unknown")
                    raise StartError(
                        f"An engine (process {pid}) already runs on {options.data}; use that one (--attach), "
                        "end it, or choose another data folder."
                    )
                print(json.dumps(_join(options.data, options.parent_pid)), flush=True)
                return 0
            _start_log(options.data)
            _serve(options, token)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StartError(
                f"The data folder {options.data} cannot be used ({reason}); choose a writable one."
            ) from error
        except sqlite3.Error as error:
            raise StartError(
                f"The job table in {options.data} cannot be read ({error}); move jobs.sqlite away and retry."
            ) from error
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
