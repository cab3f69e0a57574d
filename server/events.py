"""Server-sent events of a job: replayed from the store, then live, until the job has ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator

from server.store import Store

KEEP_ALIVE = 10.0
"""Seconds of silence after which a comment is sent, so that a dead connection is noticed."""


class Hub:
    """Wakes the listeners of a job; `notify` may be called from any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bells: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.closed = False

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def notify(self, job: str) -> None:
        self._call(self._ring, job)

    def close(self) -> None:
        """End all streams, so that the server can stop."""
        self.closed = True
        self._call(self._ring_all)

    def _call(self, *call: object) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it everybody who listened
                self._loop.call_soon_threadsafe(*call)  # type: ignore[arg-type]

    def _ring(self, job: str) -> None:
        for bell in self._bells.get(job, ()):
            bell.set()

    def _ring_all(self) -> None:
        for job in list(self._bells):
            self._ring(job)

    @contextlib.contextmanager
    def listen(self, job: str) -> Iterator[asyncio.Event]:
        bell = asyncio.Event()
        self._bells[job].add(bell)
        try:
            yield bell
        finally:
            self._bells[job].discard(bell)
            if not self._bells[job]:
                del self._bells[job]


def frame(name: str, data: object, seq: int) -> str:
    return f"id: {seq}\nevent: {name}\ndata: {json.dumps(data)}\n\n"


async def stream(store: Store, hub: Hub, job: str, after: int) -> AsyncIterator[str]:
    """Events with a number above `after`, then what comes. The last one is named "end"."""
    yield "retry: 1000\n\n"
    with hub.listen(job) as bell:
        while not hub.closed:
            bell.clear()
            # Asked before the events are read: an end that comes in between is in the events.
            now = store.get(job)
            for event in store.events(job, after):
                after = event.seq
                yield frame(event.name, event.data, event.seq)
                if event.name == "end":
                    return
            if now is None:
                yield frame(
                    "end", {"state": "deleted", "error": None, "message": "The job was deleted."}, after
                )
                return
            if now.ended:  # the client had seen everything
                yield frame("end", {"state": now.state, "error": now.error, "message": now.message}, after)
                return
            try:
                await asyncio.wait_for(bell.wait(), KEEP_ALIVE)
            except TimeoutError:
                yield ": still here\n\n"
