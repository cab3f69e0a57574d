"""What the worker does now, and how its end, good or bad, is told to those who wait for it."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field
from typing import Any

from server.book import CANCELLED, Book
from server.previews import Preview
from server.schema import ApiError
from server.store import Job


@dataclass
class Task:
    """A job, a preview, or (neither) opening the model."""

    job: Job | None = None
    preview: Preview | None = None
    kill_at: float | None = None
    """When a cancelled job loses its worker."""
    heard: float = field(default_factory=time.monotonic)
    """When the worker last said something."""

    @property
    def id(self) -> str:
        """What the worker's words about it are marked with."""
        one = self.job or self.preview
        return one.id if one is not None else ""

    def answered(self, message: dict[str, Any], book: Book) -> None:
        """The worker is done with it."""
        kind, error = message["type"], message.get("error")
        if self.preview is not None:
            if error is None:
                self.preview.future.set_result((message["media"], base64.b64decode(message["data"])))
            else:
                told = ApiError(_status(error["code"]), error["code"], error["message"])
                self.preview.future.set_exception(told)
        elif self.job is not None:
            if kind == "done":
                made = {name: message[name] for name in ("warnings", "timings", "labels")}
                book.finish(self.job, "done", **made)
            elif kind == "cancelled" or self.kill_at is not None:
                book.finish(self.job, "cancelled", message=CANCELLED)
            else:
                book.finish(self.job, "failed", error=error)

    def interrupted(self, reason: str, book: Book) -> None:
        """The worker is gone; `reason` begins a sentence."""
        if self.preview is not None:
            self.preview.future.set_exception(ApiError(503, "engine_stopped", f"{reason}; try again."))
        elif self.job is not None:
            book.interrupted(self.job, reason)

    def stopped(self, error: ApiError, book: Book) -> None:
        """The engine ends: a preview is refused, a job goes back to the queue unless it was cancelled."""
        if self.preview is not None:
            self.preview.refuse(error)
        elif self.job is not None and self.kill_at is not None:
            book.finish(self.job, "cancelled", message=CANCELLED)
        elif self.job is not None:
            message = "The engine was stopped while this ran; it starts again with the engine."
            book.requeue(self.job, message, forgive=True)


def _status(code: str) -> int:
    """HTTP status of an error that the worker told: the caller's doing, or ours."""
    return 500 if code in ("internal", "out_of_memory") else 422
