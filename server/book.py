"""The job table as the dispatcher uses it: every change is told to listeners and passed on to the batch."""

from __future__ import annotations

import logging
from typing import Any

from server import batches
from server.events import Hub
from server.schema import ApiError
from server.store import ATTEMPTS, Job, Store

log = logging.getLogger("geoinv.jobs")

CANCELLED = "Cancelled."


def error_of(code: str, message: str) -> dict[str, str]:
    return {"code": code, "message": message}


class Book:
    """Changes of jobs. Used by one thread; `keep_jobs` and `keep_bytes` limit what has ended."""

    def __init__(self, store: Store, hub: Hub, keep_jobs: int, keep_bytes: int) -> None:
        self.store = store
        self._hub = hub
        self._keep_jobs = keep_jobs
        self._keep_bytes = keep_bytes

    def recover(self) -> None:
        """After whatever cut jobs off, while none runs."""
        self.store.recover()
        for job in self.store.jobs(limit=-1, states=("queued", "running")):
            if job.kind == "batch":
                self._follow(job.id)

    def get(self, id: str) -> Job:
        """Raises ApiError when it is not there."""
        job = self.store.get(id)
        if job is None:
            raise ApiError(404, "no_job", "There is no such job; it may have been deleted.")
        return job

    def start(self, job: Job) -> Job:
        self.store.start(job.id)
        self._changed(job)
        return self.get(job.id)

    def progress(
        self, job: Job, stage: str, fraction: float, message: str, preview: str | None = None
    ) -> None:
        self.store.progress(job.id, stage, fraction, message, preview)
        self._changed(job)

    def finish(self, job: Job, state: str, **said: Any) -> None:
        """`said` as for Store.finish."""
        error = said.get("error")
        if error:
            log.info("Job %s failed: %s", job.id, error["code"])
            said["message"] = error["message"]
        self.store.finish(job.id, state, **said)
        self._changed(job)
        for gone in self.store.clean(self._keep_jobs, self._keep_bytes):
            log.info("Job %s was deleted to keep within the limits.", gone)

    def requeue(self, job: Job, message: str, *, forgive: bool = False) -> None:
        self.store.requeue(job.id, message, forgive=forgive)
        self._changed(job)

    def interrupted(self, job: Job, reason: str) -> None:
        """The worker was lost: once more, or that was it. `reason` is the beginning of a sentence."""
        if job.attempts < ATTEMPTS:
            self.requeue(job, f"{reason}, so the engine was restarted and tries once more.")
            return
        sentence = (
            f"{reason} twice while this ran, so it was given up; "
            "choose a smaller texture or fewer refinement steps, or look into the engine's log."
        )
        self.finish(job, "failed", error=error_of("engine_stopped", sentence))

    def delete(self, id: str) -> None:
        """A batch goes with its photos. Raises ApiError for a running job."""
        job = self.get(id)
        family = [*self.store.children(id), job]
        if any(one.state == "running" and one.kind != "batch" for one in family):
            raise ApiError(409, "running", "This job is running; cancel it first, then delete it.")
        for one in family:
            self.store.delete(one.id)
            self._hub.notify(one.id)
        if job.parent is not None:
            self._follow(job.parent)

    def _changed(self, job: Job) -> None:
        self._hub.notify(job.id)
        if job.parent is not None:
            self._follow(job.parent)

    def _follow(self, batch: str) -> None:
        batches.follow(self.store, batch)
        self._hub.notify(batch)
