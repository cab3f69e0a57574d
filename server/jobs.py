"""The dispatcher: one thread that owns the worker and every change of a job's state.

Everything reaches it through one inbox: calls of the API, words of the worker, the worker's end. So there is
one order of events, and no lock between them. One piece of work runs at a time; a preview that waits goes
before the next job, because somebody is dragging a slider.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from server.book import CANCELLED, Book, error_of
from server.child import Child, Ended, Said, explain_end
from server.events import Hub
from server.previews import Picture, Preview, PreviewQueue
from server.schema import ApiError
from server.store import Job, Store
from server.task import Task

log = logging.getLogger("geoinv.jobs")

Message = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How the dispatcher runs its worker. Times in seconds."""

    model: str
    device: str
    engine: str
    cancel_grace: float = 2.0
    """A cancelled job that has not stopped after this loses its worker."""
    stall: float = 900.0
    """A worker that says nothing for so long is taken for hung."""
    idle: float = 0.0
    """A worker without work is ended after this; 0: never."""
    keep_jobs: int = 500
    keep_bytes: int = 50 * 2**30


@dataclass(frozen=True)
class Status:
    """The dispatcher as health sees it."""

    state: str
    worker_pid: int | None
    running: str | None
    device: str
    model: str
    memory: dict[str, int | None]
    problem: dict[str, str] | None


class Dispatcher(threading.Thread):
    """Start with `start`, end with `stop`; everything else may be called from any thread in between."""

    def __init__(self, store: Store, hub: Hub, options: Options) -> None:
        super().__init__(name="dispatcher", daemon=True)
        self._book = Book(store, hub, options.keep_jobs, options.keep_bytes)
        self._store = store
        self._options = options
        self._inbox: queue.Queue[Any] = queue.Queue()
        self._child: Child | None = None
        self._task: Task | None = None
        self._previews = PreviewQueue()
        self._idle_since = time.monotonic()
        self._stopping = False
        self._stumbled = False
        self._lost = False
        self._opened = ""
        self._problem: dict[str, str] | None = None
        self._memory: dict[str, int | None] = {}
        self._device = options.device
        self.models: dict[str, Message] = {}
        """What is known of every model that was ever loaded, by name."""

    # Called from other threads -----------------------------------------------------------------------------

    def wake(self) -> None:
        """There are new jobs."""
        self._inbox.put(lambda: None)

    def open_model(self) -> None:
        """Load the model before anybody asks."""
        self._inbox.put(self._warm)

    def preview(self, preview: Preview) -> Future[Picture]:
        self._inbox.put(lambda: self._previews.add(preview))
        return preview.future

    def cancel(self, id: str) -> Future[None]:
        return self._ask(lambda: self._cancel(id))

    def delete(self, id: str) -> Future[None]:
        return self._ask(lambda: self._book.delete(id))

    def unload(self) -> Future[None]:
        """End the worker and free its memory. Refused while it works."""
        return self._ask(self._unload)

    def stop(self) -> None:
        """End the worker; a running job goes back to the queue, for the next start."""
        self._inbox.put(self._stop)
        self.join()

    def status(self) -> Status:
        task, child = self._task, self._child
        job = task.job if task is not None else None
        if task is not None and task.id:
            state = "busy"
        elif task is not None:
            state = "starting"
        elif self._lost:
            state = "lost"
        else:
            state = "ready" if child is not None and self._opened else "unloaded"
        return Status(
            state=state,
            worker_pid=child.pid if child is not None else None,
            running=job.id if job is not None else None,
            device=self._device,
            model=self._opened or self._options.model,
            memory=self._memory,
            problem=self._problem,
        )

    def _ask(self, action: Callable[[], None]) -> Future[None]:
        future: Future[None] = Future()

        def run() -> None:
            try:
                action()
            except Exception as error:  # is raised again where the answer is awaited
                future.set_exception(error)
            else:
                future.set_result(None)

        self._inbox.put(run)
        return future

    # The thread --------------------------------------------------------------------------------------------

    def run(self) -> None:
        self._store.sweep()
        self._book.recover()
        self.wake()  # for jobs that an earlier engine left queued: with --lazy nothing else would
        while not self._stopping:
            try:
                message = self._inbox.get(timeout=self._patience())
            except queue.Empty:
                message = None
            try:
                self._handle(message)
                self._check_times()
                while self._free() and self._next():
                    pass
            except Exception:  # a full disk under the job table, say: this thread must outlive it
                log.exception("The dispatcher stumbled.")
                self._stumbled = True
                time.sleep(0.5)

    def _handle(self, message: object) -> None:
        if isinstance(message, Said):
            if message.child is self._child:
                self._hear(message.message)
        elif isinstance(message, Ended):
            if message.child is self._child:
                self._child_ended(message.code)
        elif callable(message):
            message()

    def _patience(self) -> float | None:
        """Seconds until something is due, None when nothing is."""
        due: list[float] = []
        if self._stumbled:
            due.append(time.monotonic() + 1.0)
        if self._task is not None:
            due.append(self._task.heard + self._options.stall)
            if self._task.kill_at is not None:
                due.append(self._task.kill_at)
        elif self._child is not None and self._options.idle:
            due.append(self._idle_since + self._options.idle)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _check_times(self) -> None:
        now = time.monotonic()
        task = self._task
        if task is None:
            if (
                self._child is not None
                and self._options.idle
                and now >= self._idle_since + self._options.idle
            ):
                log.info("Nothing to do for %.0f s: the model is unloaded.", self._options.idle)
                self._kill()
        elif task.kill_at is not None and now >= task.kill_at:
            log.info("The cancelled job did not stop by itself; the worker is ended.")
            self._kill()
            self._cancelled()
        elif now >= task.heard + self._options.stall:
            log.warning("The worker said nothing for %.0f s; it is ended.", self._options.stall)
            self._kill()
            self._interrupted("It stopped answering")

    def _free(self) -> bool:
        """Whether the worker can be given something. Opening the model on spec keeps nobody waiting: what is
        sent meanwhile is done next."""
        return not self._stopping and (self._task is None or not self._task.id)

    def _next(self) -> bool:
        """Hand out one thing to do. False when there is none."""
        if self._stumbled:
            self._book.recover()
            self._stumbled = False
        preview = self._previews.take()
        if preview is not None:
            self._task = Task(preview=preview)
            self._tell(
                {"do": "preview", "id": preview.id, "source": preview.source, "request": preview.request}
            )
            return True
        job = self._store.next_queued()
        if job is not None:
            self._run_job(job)
        return job is not None

    def _run_job(self, job: Job) -> None:
        source = None
        if job.kind == "edit":
            head, _, variant = str(job.settings["head"]).partition("/")
            folder = self._store.result(head) / variant
            if not folder.is_dir():
                self._book.finish(job, "failed", error=error_of("no_head", _HEAD_GONE))
                return
            source = str(folder)
        self._task = Task(job=self._book.start(job))
        self._tell(
            {
                "do": "job",
                "id": job.id,
                "folder": str(self._store.folder(job.id)),
                "photo": job.input,
                "source": source,
                "settings": job.settings,
                "model": job.settings.get("model") or self._options.model,
            }
        )

    def _tell(self, message: Message) -> None:
        """Send to the worker, which is started when there is none."""
        if self._child is None:
            try:
                self._child = Child(self._options.device, self._options.engine, self._inbox)
            except OSError as error:
                log.error("The worker could not be started: %s", error)
                self._interrupted("It could not be started")
                return
            self._lost = False
        self._child.send(message)

    # What the worker says ----------------------------------------------------------------------------------

    def _hear(self, message: Message) -> None:
        kind = message["type"]
        task = self._task
        if task is not None:
            task.heard = time.monotonic()
        if kind == "opening":
            self._opened = ""
        elif kind == "model":
            self._opened, self._problem, self._device = message["model"], None, message["device"]
            self.models[message["model"]] = message
        elif kind == "progress" and task is not None and task.job is not None and task.kill_at is None:
            said = (message[name] for name in ("stage", "fraction", "message", "preview"))
            self._book.progress(task.job, *said)
        if "memory" in message:  # every answer has it
            self._memory = message["memory"]
            if message["type"] == "problem":
                self._problem = message["error"]
            if task is not None and task.id == message["id"]:
                self._let_go()
                task.answered(message, self._book)

    def _child_ended(self, code: int) -> None:
        log.warning("The worker ended by itself with code %d.", code)
        self._forget_child()
        if self._task is not None and self._task.kill_at is not None:
            self._cancelled()
        else:
            self._interrupted(explain_end(code))

    def _interrupted(self, reason: str) -> None:
        """The worker is gone in the middle of something, through no wish of anybody."""
        self._lost = True
        task = self._let_go()
        if task is not None and task.id:
            task.interrupted(reason, self._book)
        elif task is not None:
            text = f"{reason} while the model was loaded; the log has the details."
            self._problem = error_of("engine_stopped", text)

    # What clients ask --------------------------------------------------------------------------------------

    def _warm(self) -> None:
        if self._task is None and not self._opened:
            self._task = Task()
            self._tell({"do": "open", "model": self._options.model, "source": None})

    def _cancel(self, id: str) -> None:
        job = self._book.get(id)
        if job.kind == "batch":
            for child in self._store.children(id):
                self._cancel(child.id)
        elif job.state == "queued":
            self._book.finish(job, "cancelled", message=CANCELLED)
        elif job.state == "running" and self._task is not None and self._task.kill_at is None:
            self._task.kill_at = time.monotonic() + self._options.cancel_grace
            self._book.progress(job, job.stage, job.fraction, "Cancelling")
            self._tell({"do": "cancel", "id": id})

    def _unload(self) -> None:
        if self._task is not None and self._task.id:
            raise ApiError(409, "running", "The engine is working; cancel the job first, then unload it.")
        self._task = None
        self._kill()

    def _stop(self) -> None:
        self._stopping = True
        task = self._let_go()
        self._kill()
        error = ApiError(503, "stopping", "The engine is stopping; start it again.")
        self._previews.refuse_all(error)
        if task is not None:
            task.stopped(error, self._book)

    # Small parts -------------------------------------------------------------------------------------------

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()
        self._forget_child()

    def _forget_child(self) -> None:
        self._child, self._opened, self._memory = None, "", {}

    def _cancelled(self) -> None:
        task = self._let_go()
        if task is not None and task.job is not None:
            message = "Cancelled. The engine did not stop by itself and was restarted."
            self._book.finish(task.job, "cancelled", message=message)

    def _let_go(self) -> Task | None:
        """The worker is free, or gone; what it was doing."""
        task, self._task = self._task, None
        self._idle_since = time.monotonic()
        return task


_HEAD_GONE = "The head to edit is no longer there; make it again from its photo."
