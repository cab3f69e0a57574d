"""A batch is what its photos are: one job each, and a row for all of them that follows."""

from __future__ import annotations

from server.store import Job, Store


def follow(store: Store, id: str) -> None:
    """Bring a batch's row in line with its jobs."""
    batch = store.get(id)
    if batch is None or batch.ended:
        return
    children = store.children(id)
    ended = [child for child in children if child.ended]
    if len(ended) == len(children):
        _finish(store, batch, ended)
        return
    running = next((child for child in children if child.state == "running"), None)
    if running is not None:
        if batch.state == "queued":
            store.start(id)
        message = f"Photo {len(ended) + 1} of {len(children)}: {running.message or running.stage}"
        store.progress(id, running.stage, len(ended) / len(children), message)


def _finish(store: Store, batch: Job, children: list[Job]) -> None:
    done = [child for child in children if child.state == "done"]
    failed = [child for child in children if child.state == "failed"]
    warnings = [f"{child.title}: {child.message}" for child in failed]
    if done:
        message = f"{len(done)} of {len(children)} photos done."
        store.finish(batch.id, "done", warnings=warnings, message=message)
    elif failed:
        sentence = "None of the photos could be used; each photo's own job says why."
        error = {"code": "batch", "message": sentence}
        store.finish(batch.id, "failed", error=error, warnings=warnings, message=sentence)
    else:
        store.finish(batch.id, "cancelled", message="Cancelled.")
