"""The process that has torch: `python -m server.worker`, started by the front and by nobody else.

It connects to the front's port, shows its key, and talks lines of JSON: commands come in, progress and
results go out. One thread reads commands, so that a cancel is seen while the main thread computes: the next
progress report raises Cancelled. When the connection ends, the front has ended, and so does this process.

Commands: open {model}; job {id, kind, folder, photo, source, settings, model}; preview {id, source, request};
cancel {id}.
Replies: opening {model}; model {...}; problem {error}; progress {id, stage, fraction, message, preview}; done
{id, ...}; failed {id, error}; cancelled {id}.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from geoinv_core.errors import Cancelled, GeoInvError
from geoinv_core.progress import Progress
from server import tasks
from server.child import BROKEN, KEY_VARIABLE
from server.engine import Engine, Model, make_engine
from server.machine import own_memory

MIN_GAP = 0.1
MIN_PREVIEW_GAP = 0.5
PREVIEW_SIDE = 192

Message = dict[str, Any]


class Wire:
    """Lines of JSON over a socket; `send` may be called from any thread."""

    def __init__(self, port: int, key: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.settimeout(None)
        self._lock = threading.Lock()
        self._socket.sendall(key.encode() + b"\n")

    def send(self, message: Message) -> None:
        line = json.dumps(message).encode() + b"\n"
        with self._lock:
            self._socket.sendall(line)

    def listen(self, on_message: Callable[[Message], None]) -> None:
        """Until the connection ends."""
        with self._socket.makefile("rb") as lines:
            for line in lines:
                on_message(json.loads(line))


class Worker:
    """The main thread's loop: one command after the other, cancels in between."""

    def __init__(self, wire: Wire, engine: Engine, device: str) -> None:
        self._wire = wire
        self._engine = engine
        self._device = device
        self._model: Model | None = None
        self._model_name = ""
        self._heads = tasks.Heads(engine, device)
        self._commands: queue.Queue[Message] = queue.Queue()
        self._cancelled: set[str] = set()

    def receive(self, message: Message) -> None:
        if message["do"] == "cancel":
            self._cancelled.add(message["id"])
        else:
            self._commands.put(message)

    def run(self) -> NoReturn:
        while True:
            message = self._commands.get()
            self._guard(message)

    def _guard(self, message: Message) -> None:
        """Carry out one command; whatever goes wrong becomes a reply, and this loop goes on."""
        id = message.get("id", "")
        try:
            reply = self._do(message)
        except Cancelled:
            reply = {"type": "cancelled"}
        except Exception as error:
            reply = {"type": "failed" if id else "problem", "error": self._explain(error)}
            if self._engine.broken_by(error):
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(BROKEN)
        self._cancelled.discard(id)
        self._wire.send({"id": id, "memory": self._memory(), **reply})

    def _do(self, message: Message) -> Message:
        if message["do"] == "open":
            self._open(message["model"])
            return {"type": "opened"}
        source = Path(message["source"]) if message["source"] else None
        if message["do"] == "preview":
            assert source is not None
            media, data = tasks.look(self._heads, source, message["request"])
            return {"type": "done", "media": media, "data": base64.b64encode(data).decode()}
        return self._job(message, source)

    def _job(self, message: Message, source: Path | None) -> Message:
        on_progress = self._reporter(message["id"])
        folder = Path(message["folder"])
        settings = message["settings"]
        start = time.perf_counter()
        if source is not None:  # a head brings its model along
            on_progress(Progress("load", 0.0, "Loading the head"))
            self._heads.get(source, {})
            waited = time.perf_counter() - start
            on_progress(Progress("load", 1.0))
            made = tasks.edit(self._heads, source, folder, settings, on_progress)
        else:
            on_progress(Progress("load", 0.0, "Loading the model"))
            model = self._open(message["model"])
            waited = time.perf_counter() - start
            on_progress(Progress("load", 1.0))
            made = tasks.invert(model, folder / message["photo"], folder, settings, on_progress)
        made.timings["load"] = round(waited, 3)
        return {"type": "done", **asdict(made)}

    def _open(self, name: str) -> Model:
        if self._model is None or self._model_name != name:
            self._wire.send({"type": "opening", "model": name})
            self._model = None  # before the next one is loaded: both at once may not fit
            self._heads = tasks.Heads(self._engine, self._device)
            self._model = self._engine.open_model(name, self._device)
            self._model_name = name
            self._wire.send(
                {
                    "type": "model",
                    "model": name,
                    "hash": self._model.hash,
                    "licence": self._model.licence,
                    "labels": {label: list(map(float, span)) for label, span in self._model.labels.items()},
                    "device": self._engine.device(),
                }
            )
        return self._model

    def _reporter(self, id: str) -> Callable[[Progress], None]:
        """Sends progress on, not more often than a person can see; raises Cancelled once asked to stop."""
        last_stage = ""
        last_time = last_preview = -1e9

        def on_progress(progress: Progress) -> None:
            nonlocal last_stage, last_time, last_preview
            if id in self._cancelled:
                raise Cancelled
            now = time.monotonic()
            picture = None
            if progress.preview is not None and now - last_preview >= MIN_PREVIEW_GAP:
                picture = _thumbnail(progress.preview)
                last_preview = now
            new = progress.stage != last_stage or progress.fraction >= 1.0 or picture is not None
            if new or now - last_time >= MIN_GAP:
                last_stage, last_time = progress.stage, now
                self._wire.send(
                    {
                        "type": "progress",
                        "id": id,
                        "stage": progress.stage,
                        "fraction": min(max(float(progress.fraction), 0.0), 1.0),
                        "message": progress.message,
                        "preview": picture,
                    }
                )

        return on_progress

    def _explain(self, error: Exception) -> dict[str, str]:
        if isinstance(error, GeoInvError):
            if error.__cause__ is not None:
                traceback.print_exc()
            return {"code": error.code, "message": str(error)}
        traceback.print_exc()  # to the log
        if self._engine.out_of_memory(error):
            text = "There was not enough memory for this; close other programs, or choose a smaller texture."
            return {"code": "out_of_memory", "message": text}
        text = f"Something unexpected failed ({type(error).__name__}); the engine's log has the details."
        return {"code": "internal", "message": text}

    def _memory(self) -> dict[str, int | None]:
        device = self._engine.device_memory()
        free, total = device if device is not None else (None, None)
        return {"worker": own_memory(), "device_free": free, "device_total": total}


def _thumbnail(picture: Any) -> str:
    """A PIL.Image as base64 JPEG, at most PREVIEW_SIDE a side."""
    small = picture.convert("RGB")
    small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=80)
    return base64.b64encode(out.getvalue()).decode()


def _end_with(wire: Wire, worker: Worker) -> NoReturn:
    """Reader thread: pass commands on; when the front is gone, end, computing or not, helpers included."""
    try:
        wire.listen(worker.receive)
    finally:
        if sys.platform != "win32" and os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(0)


def main() -> NoReturn:
    parser = argparse.ArgumentParser(prog="python -m server.worker", description="Started by the server.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--engine", required=True)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the front, which then ends this process
    wire = Wire(options.port, os.environ.pop(KEY_VARIABLE))
    worker = Worker(wire, make_engine(options.engine), options.device)
    threading.Thread(target=_end_with, args=(wire, worker), daemon=True, name="reader").start()
    worker.run()


if __name__ == "__main__":
    main()
