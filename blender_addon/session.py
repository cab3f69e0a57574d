"""What runs in this Blender: the engine, the job in hand, what went wrong. Main thread only.

The state is plain Python, so no .blend can carry it, File > Open keeps it, and undo does not touch it.
Background threads put messages in a queue; `pump` reads them, called by a persistent timer or, where
Blender has no event loop (background mode, the bpy module), by `run_to_end`.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue

import bpy

from . import preferences, redraw
from .engine import Engine
from .errors import Trouble, disk_trouble
from .jobs import Advanced, Done, Failed, Message, Request, Started, Stopped, Worker
from .protocol import STAGES, overall

BUSY_SECONDS = 0.1
IDLE_SECONDS = 1.0
PATIENCE = 4.0
"""Longest wait for the engine's word that a job is cancelled; then the job is let go without it."""


@dataclass(frozen=True)
class Wish:
    """What becomes of a finished head: the source object's session_uid, and the changes made to it."""

    title: str
    kind: str
    """ "head", "variant" or "shape_key" """
    source_uid: int = 0
    source_head: str = ""
    labels: dict[str, float] = field(default_factory=dict)


@dataclass
class Job:
    """The job in hand."""

    worker: Worker
    wish: Wish
    file: int
    """`Session.file` when it was started: tells whether another .blend has been opened since."""
    began: float
    stage: str = ""
    done: float = 0.0
    sentence: str = ""
    cancelled_at: float = 0.0


@dataclass(frozen=True)
class Offer:
    """A head that was finished while another file was open; the artist decides whether it comes in here."""

    title: str
    head: str
    folder: Path
    warnings: tuple[str, ...] = ()


class Session:
    def __init__(self) -> None:
        self.engine = Engine()
        self.engine_state = "off"
        self.job: Job | None = None
        self.trouble: Trouble | None = None
        self.notice = ""
        self.offers: list[Offer] = []
        self.file = 0
        self.last: tuple[Request, Wish] | None = None
        self.place: Callable[[Offer, Wish], str] | None = None
        """Brings a finished head into the file and returns a notice or ""; set by `results`."""
        self._messages: SimpleQueue[Message] = SimpleQueue()
        self.quitting = False
        self._ticket = 0
        self._starting = 0

    # --- what the panel shows ---------------------------------------------------------------------

    @property
    def fraction(self) -> float:
        return self.job.done if self.job is not None else 0.0

    @property
    def stage_title(self) -> str:
        if self.job is None:
            return ""
        if self.job.cancelled_at:
            return "Cancelling"
        if self.job.stage in STAGES:
            return STAGES[self.job.stage][0]
        starting = self.engine_state == "starting"
        return self.job.sentence or ("Starting the engine" if starting else "Waiting for the engine")

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.job.began if self.job is not None else 0.0

    # --- what operators ask -----------------------------------------------------------------------

    def submit(self, request: Request, wish: Wish) -> None:
        """Start a job. Trouble when one is running or no engine can be started."""
        if self.job is not None:
            raise Trouble("A head is being made already: wait for it or cancel it first.", code="busy")
        self.trouble, self.notice = None, ""
        self.last = (request, wish)
        worker = self._worker(request)
        self.job = Job(worker, wish, self.file, time.monotonic())
        worker.start()
        ensure_timer()

    def start_engine(self) -> None:
        """Start or attach without a job."""
        if self._starting or self.job is not None:
            return
        self.trouble, self.notice = None, ""
        worker = self._worker(None)
        self._starting = worker.ticket
        worker.start()
        ensure_timer()

    def stop_engine(self) -> None:
        """Stop it, with whatever it is doing. Trouble when that is not possible."""
        if self.job is not None:
            self._let_go("Cancelled")
        self._starting = 0
        try:
            self.engine.stop(preferences.data_folder())
        finally:
            self.engine_state = "off"

    def cancel(self) -> None:
        """Ask for the end of the job; it is let go after PATIENCE seconds whatever the engine says."""
        if self.job is not None and not self.job.cancelled_at:
            self.job.cancelled_at = time.monotonic()
            self.job.worker.give_up()

    def fail(self, trouble: Trouble) -> None:
        self.trouble, self.notice = trouble, ""

    def file_opened(self) -> None:
        """Another .blend is open: the objects that a running job is about are gone."""
        self.file += 1

    def _worker(self, request: Request | None) -> Worker:
        try:
            launch = preferences.launch()
        except OSError as error:
            raise disk_trouble(error, "use its data folder") from error
        if self.engine_state in ("off", "lost") or self.engine.died():
            self.engine_state = "starting"
        self._ticket += 1
        return Worker(self._ticket, self.engine, launch, request, self._messages)

    def _let_go(self, notice: str) -> None:
        """Forget the job in hand: what its thread still says carries an old ticket and is not heard."""
        if self.job is not None:
            self.job.worker.give_up()
            self.job, self.notice = None, notice
            if self.engine_state in ("busy", "starting"):
                self.engine_state = "ready" if self.engine.address is not None else "off"

    # --- messages ---------------------------------------------------------------------------------

    def pump(self, wait: float = 0.0) -> bool:
        """Handle all waiting messages; waits up to `wait` seconds for the first. Whether anything changed."""
        changed = False
        while True:
            try:
                message = self._messages.get(timeout=wait) if wait else self._messages.get_nowait()
            except Empty:
                break
            self._handle(message)
            changed, wait = True, 0.0
        return self._watch() or changed

    def run_to_end(self) -> None:
        """Pump until no job and no start is in hand: the way without an event loop."""
        while self.job is not None or self._starting:
            self.pump(wait=0.1)

    def _watch(self) -> bool:
        """Things that no message tells: a cancel without an answer, an engine that died while it was idle."""
        job = self.job
        if job is not None and job.cancelled_at and time.monotonic() - job.cancelled_at > PATIENCE:
            self._let_go("Cancelled; the engine has not confirmed it yet")
            return True
        if job is None and self.engine_state == "ready" and self.engine.died():
            self.engine_state = "lost"
            self.fail(
                Trouble(
                    "The engine has stopped by itself: start it again.",
                    code="lost",
                    fix="geoinv.start_engine",
                )
            )
            return True
        return False

    def _handle(self, message: Message) -> None:
        job = self.job
        if job is None or message.ticket != job.worker.ticket:
            self._handle_start(message)
        elif isinstance(message, Started):
            self.engine_state = "busy"
        elif isinstance(message, Advanced):
            job.stage, job.sentence = message.stage, message.sentence
            job.done = max(job.done, overall(message.stage, message.fraction))
        elif isinstance(message, Stopped):
            self._let_go("Cancelled")
        elif isinstance(message, Failed):
            self._failed(message)
        else:
            self._finished(job, message)

    def _handle_start(self, message: Message) -> None:
        """A message of no running job: the answer to `start_engine`, or the last words of a job let go."""
        if message.ticket != self._starting:
            return
        self._starting = 0
        if isinstance(message, Started):
            self.engine_state = "ready"
        elif isinstance(message, Failed):
            self._failed(message)

    def _failed(self, message: Failed) -> None:
        trouble, self.job = message.trouble, None
        self.fail(trouble)
        if self.last is not None:
            request, wish = self.last
            self.last = replace(request, resume=message.job if trouble.code == "lost" else ""), wish
        if trouble.code in ("lost", "token"):
            self.engine_state = "lost"
            self.engine.forget()
        else:
            self.engine_state = "ready" if self.engine.address is not None else "off"

    def _finished(self, job: Job, message: Done) -> None:
        self.job, self.engine_state = None, "ready"
        offer = Offer(job.wish.title, message.head, message.folder, message.warnings)
        if job.file != self.file:
            self.offers.append(offer)
            self.notice = "A head was finished while another file was open"
            return
        assert self.place is not None
        try:
            self.notice = self.place(offer, job.wish)
        except Trouble as trouble:
            self.fail(trouble)


session = Session()


def ensure_timer() -> None:
    """Have `pump` called by Blender; without an event loop timers never fire, and the caller pumps."""
    if not bpy.app.background and not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, first_interval=BUSY_SECONDS, persistent=True)


def _tick() -> float | None:
    """Short and often while something runs, seldom while the engine waits, not at all when it is off."""
    busy = session.job is not None or session.engine_state == "starting"
    if session.pump() or busy:
        redraw.sidebars()
    if session.job is not None or session.engine_state == "starting":
        return BUSY_SECONDS
    return IDLE_SECONDS if session.engine_state == "ready" else None


def _quit() -> None:
    """Blender itself ends: the engine notices, and lives on for other Blenders that are attached to it."""
    session.quitting = True


@bpy.app.handlers.persistent
def _on_load(*_: object) -> None:
    session.file_opened()


def register() -> None:
    bpy.app.handlers.load_post.append(_on_load)
    atexit.register(_quit)


def unregister() -> None:
    """Leave nothing behind: no timer, no handler, no process of ours."""
    if _on_load in bpy.app.handlers.load_post:
        bpy.app.handlers.load_post.remove(_on_load)
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    if session.job is not None:
        session.job.worker.give_up()
        session.job = None
    atexit.unregister(_quit)
    if not session.quitting:
        session.engine.forget()
    session.engine_state = "off"
