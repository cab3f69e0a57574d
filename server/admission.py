"""From a checked request to jobs: whether there is room, whether what it names is there, and the rows.

Whatever is refused here is an ApiError, and nothing was made.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from server.schema import ApiError, Settings
from server.store import Job, Store
from server.uploads import Upload


@dataclass(frozen=True)
class Limits:
    """Bytes of a request, jobs that wait, and bytes that must be free on the disk."""

    body: int = 256 * 2**20
    queue: int = 256
    free_disk: int = 256 * 2**20


def check_room(store: Store, limits: Limits, more: int) -> None:
    """The queue and the disk must have room for so many jobs more."""
    if store.queued() + more > limits.queue:
        text = f"There are already {limits.queue} jobs waiting; wait for some to finish or cancel them."
        raise ApiError(429, "queue_full", text)
    if shutil.disk_usage(store.root).free < limits.free_disk:
        raise ApiError(507, "disk_full", "The disk with the engine's data folder is full; free some space.")


def check_references(store: Store, settings: Settings) -> None:
    """The head and the model that the settings name must be there."""
    if settings.head is not None:
        name, _, variant = settings.head.partition("/")
        job = store.get(name)
        if job is None or job.state != "done" or not (store.result(name) / variant).is_dir():
            raise ApiError(
                404, "no_head", "There is no such head; it may have been deleted, or is not ready yet."
            )
    model = settings.model
    if model is not None and model.endswith(".safetensors") and not Path(model).is_file():
        raise ApiError(422, "model", f"The model file {model} does not exist; choose another model.")


def create(store: Store, settings: Settings, photos: list[Upload], warnings: list[list[str]]) -> Job:
    """Queue what the settings ask for; of several photos the batch, with a job for each below it.

    Args: warnings: what was said of each photo.
    """
    values = settings.model_dump(mode="json")
    if settings.kind == "edit":
        head = store.get(str(settings.head).partition("/")[0])
        return store.create("edit", values, head.title if head is not None else "")
    jobs = []
    # At once: the dispatcher must not see half a batch.
    with store.together():
        parent = None
        if settings.kind == "batch":
            parent = store.create("batch", values, f"{len(photos)} photos")
            values = {**values, "kind": "invert"}
        for photo, said in zip(photos, warnings, strict=True):
            job = store.create(
                "invert",
                values,
                photo.name,
                parent=parent.id if parent is not None else None,
                photo=photo.data,
                suffix=photo.suffix,
                warnings=said,
            )
            jobs.append(job)
    return parent if parent is not None else jobs[0]
