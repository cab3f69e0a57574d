"""One job from the wish to the finished bundle on disk, in a background thread that only posts messages.

No bpy here: Blender's data may be touched by its main thread alone, which reads the messages in `session`.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from .client import Client, EngineLost, Json, find_sentence, read_photo
from .engine import Engine, Launch, StartCancelled
from .errors import Trouble, disk_trouble
from .protocol import Address

NEEDED = ("head.json", "mesh.npz", "albedo.png")
"""A bundle without these cannot become an object."""


@dataclass(frozen=True)
class Request:
    """What is asked of the engine. `settings` as the engine's schema has them, photo only for "invert"."""

    kind: str
    settings: Mapping[str, Any]
    photo: Path | None
    heads: Path
    """Folder in which the finished bundle is kept, one sub-folder per job."""
    resume: str = ""
    """A job that was cut off when its engine ended: an engine takes up such a job again by itself."""


@dataclass(frozen=True)
class Started:
    """The engine is there, whoever started it."""

    ticket: int
    address: Address


@dataclass(frozen=True)
class Advanced:
    """The job moved. `stage` is a key of protocol.STAGES or "", `fraction` of that stage in [0, 1]."""

    ticket: int
    stage: str
    fraction: float
    sentence: str


@dataclass(frozen=True)
class Done:
    """The bundle lies complete in `folder`; `head` is the id under which the engine knows it."""

    ticket: int
    head: str
    folder: Path
    warnings: tuple[str, ...] = ()
    """What the engine says about this job, about the photo for instance."""


@dataclass(frozen=True)
class Failed:
    ticket: int
    trouble: Trouble
    job: str = ""
    """The engine's id of it, "" when it did not come as far."""


@dataclass(frozen=True)
class Stopped:
    """Cancelled, as the person wished."""

    ticket: int


Message = Started | Advanced | Done | Failed | Stopped


@dataclass
class Worker:
    """Does one request. `ticket` marks its messages, so that those of an abandoned job can be told apart."""

    ticket: int
    engine: Engine
    launch: Launch
    request: Request | None
    """None: only see to it that the engine runs."""
    messages: SimpleQueue[Message]
    _given_up: threading.Event = field(default_factory=threading.Event)
    _client: Client | None = None
    _job: str = ""

    def start(self) -> None:
        threading.Thread(target=self.run, name=f"geoinv-{self.ticket}", daemon=True).start()

    def give_up(self) -> None:
        """Cancel, from the main thread: returns at once, and tells the engine from a thread of its own."""
        self._given_up.set()
        threading.Thread(target=self._tell, daemon=True).start()

    def _tell(self) -> None:
        client, job = self._client, self._job
        if client is not None and job:
            with contextlib.suppress(Trouble):  # an engine that is gone needs no telling
                client.cancel(job)

    def run(self) -> None:
        """Ends with exactly one of Done, Failed, Stopped; or with Started alone when there is no request."""
        try:
            if self.request is not None and self.request.photo is not None:
                read_photo(self.request.photo)  # a wrong path is told before an engine is started
            address = self.engine.ensure(self.launch, self._given_up.is_set)
            self.messages.put(Started(self.ticket, address))
            if self.request is not None:
                self.messages.put(self._work(Client(address), self.request))
        except StartCancelled:
            self.messages.put(Stopped(self.ticket))
        except Trouble as trouble:
            stopped = self._given_up.is_set()
            self.messages.put(Stopped(self.ticket) if stopped else Failed(self.ticket, trouble, self._job))
        except Exception as error:  # a mistake of ours must end the job too, or the panel waits for ever
            sentence = f"The add-on failed ({type(error).__name__}: {error}): copy the report and send it."
            self.messages.put(Failed(self.ticket, Trouble(sentence, code="bug", fix="geoinv.copy_report")))

    def _work(self, client: Client, request: Request) -> Message:
        self._client = client
        self._job = self._resumed(client, request) or client.submit(
            request.kind, request.settings, request.photo
        )
        if self._given_up.is_set():
            self._tell()
        row = self._follow(client)
        if row["state"] == "cancelled" or self._given_up.is_set():
            return Stopped(self.ticket)
        if row["state"] == "failed":
            sentence = (
                find_sentence(row.get("error"))
                or "The engine could not do the job and gave no reason: try again."
            )
            raise Trouble(sentence, code="job")
        self._advance({"stage": "save", "fraction": 1.0, "message": "Fetching the head"})
        folder = fetch(client, row, request.heads)
        return Done(self.ticket, self._job, folder, tuple(map(str, row.get("warnings", ()))))

    def _resumed(self, client: Client, request: Request) -> str:
        """The job to resume, when the engine still has it in hand or finished; else ""."""
        if request.resume:
            with contextlib.suppress(Trouble):  # not known any more: it is done anew
                if client.job(request.resume).get("state") in ("queued", "running", "done"):
                    return request.resume
        return ""

    def _follow(self, client: Client) -> Json:
        """Post progress until the job has ended; returns its last row."""
        while True:
            for event in client.events(self._job):
                if "fraction" in event:
                    self._advance(event)
                if self._given_up.is_set():
                    break
            row = client.job(self._job)
            if row.get("state") in ("done", "failed", "cancelled"):
                return row
            self._advance(row)
            if self._given_up.is_set():
                # The engine has been told; its answer is not awaited, so Cancel acts at once.
                return {**row, "state": "cancelled"}

    def _advance(self, said: Json) -> None:
        stage, fraction = str(said.get("stage") or ""), float(said.get("fraction") or 0.0)
        self.messages.put(Advanced(self.ticket, stage, fraction, str(said.get("message") or "")))


def fetch(client: Client, row: Json, heads: Path) -> Path:
    """Copy the job's bundle to heads/ID, renamed when complete. Trouble: disk, bundle."""
    job = str(row["id"])
    names = [name for name in map(str, row.get("files", ())) if Path(name).name == name]
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise Trouble(
            f"The engine's result has no {missing[0]}: it was deleted or is damaged; create the head again.",
            code="bundle",
        )
    target, part = heads / job, heads / f".{job}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name in names:
            client.download(job, name, part / name)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    except OSError as error:
        raise disk_trouble(error, "save the finished head") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


__all__ = ["Advanced", "Done", "EngineLost", "Failed", "Message", "Request", "Started", "Stopped", "Worker"]
