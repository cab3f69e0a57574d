"""Quick looks that wait for the worker: who is next, and who is no longer wanted."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

from server.schema import ApiError

Picture = tuple[str, bytes]
"""A media type and the bytes."""


@dataclass(frozen=True)
class Preview:
    """Somebody waits for `future`, which gets a Picture or an ApiError. `source` is the head's folder."""

    id: str
    source: str
    request: dict[str, Any]
    future: Future[Picture] = field(default_factory=Future)

    def refuse(self, error: ApiError) -> None:
        """Nothing happens when nobody waits any more."""
        # Asking first would not do: the client can give up on another thread at any moment.
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)


class PreviewQueue:
    """First come, first served, except that a newer request of the same stream replaces the waiting one."""

    def __init__(self) -> None:
        self._waiting: list[Preview] = []

    def add(self, preview: Preview) -> None:
        stream = preview.request["stream"]
        for old in [one for one in self._waiting if stream and one.request["stream"] == stream]:
            self._waiting.remove(old)
            old.refuse(ApiError(409, "superseded", "A newer preview of this view was asked for."))
        self._waiting.append(preview)

    def take(self) -> Preview | None:
        """The next that somebody still waits for. It can no longer be given up."""
        while self._waiting:
            preview = self._waiting.pop(0)
            if preview.future.set_running_or_notify_cancel():
                return preview
        return None

    def refuse_all(self, error: ApiError) -> None:
        while self._waiting:
            self._waiting.pop().refuse(error)
