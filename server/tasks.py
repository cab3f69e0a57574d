"""What a job is in terms of the library: photo to head, head to edited head, and a quick look at one.

Runs in the worker. Results are made in the job's `work` folder and renamed to `result` when complete.
"""

from __future__ import annotations

import io
import shutil
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoinv_core.errors import EditError, OutputError
from geoinv_core.progress import OnProgress
from server.engine import Engine, Head, Model

LabelKey = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Made:
    """What a finished job tells besides its files. Times in seconds."""

    warnings: list[str]
    timings: dict[str, float]
    labels: dict[str, float]


class Heads:
    """The heads looked at last, as loaded and as last edited, so that turning one does not load it again."""

    def __init__(self, engine: Engine, device: str, room: int = 3) -> None:
        self._engine = engine
        self._device = device
        self._room = room
        self._loaded: OrderedDict[Path, Head] = OrderedDict()
        self._edited: OrderedDict[tuple[Path, LabelKey], Head] = OrderedDict()

    def get(self, folder: Path, labels: Mapping[str, float]) -> Head:
        head = self._loaded.get(folder)
        if head is None:
            if not folder.is_dir():
                raise OutputError("The head is no longer there; make it again from its photo.", "no_head")
            head = self._engine.load_head(folder, self._device)
        self._keep(self._loaded, folder, head)
        if not labels:
            return head
        key = (folder, tuple(sorted(labels.items())))
        edited = self._edited.get(key)
        if edited is None:
            edited = head.edit(dict(labels))
        self._keep(self._edited, key, edited)
        return edited

    def _keep(self, shelf: OrderedDict[Any, Head], key: object, head: Head) -> None:
        shelf[key] = head
        shelf.move_to_end(key)
        while len(shelf) > self._room:
            shelf.popitem(last=False)


def invert(
    model: Model, photo: Path, folder: Path, settings: Mapping[str, Any], on_progress: OnProgress
) -> Made:
    """Photo to bundle in folder/result, labels applied, variants beside it. Raises GeoInvError, Cancelled."""
    box = settings["face_box"]
    points = settings["points"]
    head = model.invert(
        photo,
        refine=settings["refine"],
        on_progress=on_progress,
        face_box=None if box is None else tuple(box),
        points=None if points is None else {name: tuple(point) for name, point in points.items()},
        space=settings.get("space", "w+"),  # absent in jobs that an older engine left queued
        tune=settings.get("tune", 0),
        seed=settings.get("seed", 0),
    )
    timings = dict(head.timings)
    warnings = list(head.warnings)
    if settings["labels"]:
        head = head.edit(settings["labels"])
    return _save(head, folder, settings, on_progress, warnings, timings)


def edit(
    heads: Heads, source: Path, folder: Path, settings: Mapping[str, Any], on_progress: OnProgress
) -> Made:
    """An earlier bundle and labels to a new bundle in folder/result. Raises GeoInvError, Cancelled."""
    start = time.perf_counter()
    head = heads.get(source, settings["labels"])
    timings = {"edit": time.perf_counter() - start}
    return _save(head, folder, settings, on_progress, [], timings)


def _save(
    head: Head,
    folder: Path,
    settings: Mapping[str, Any],
    on_progress: OnProgress,
    warnings: list[str],
    timings: dict[str, float],
) -> Made:
    work, result = folder / "work", folder / "result"
    try:
        shutil.rmtree(work, ignore_errors=True)
        start = time.perf_counter()
        asked = {name: settings[name] for name in ("topology", "texture", "shapes")}
        head.save(work, **asked, on_progress=on_progress)
        timings["save"] = time.perf_counter() - start
        for number, labels in enumerate(settings["variants"], start=1):
            start = time.perf_counter()
            try:
                variant = head.edit(labels)
            except EditError as error:  # the main head is good: it is not thrown away for one variant
                warnings.append(f"Variant {number} was left out: {error}")
                continue
            variant.save(work / f"variant-{number}", **asked, on_progress=on_progress)
            timings[f"variant-{number}"] = time.perf_counter() - start
            warnings.extend(variant.warnings)
        _rename(work, result)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError(
            f"The result could not be written to the data folder ({reason}); free some disk space and retry.",
            "output",
        ) from error
    warnings.extend(head.warnings)
    seconds = {name: round(float(value), 3) for name, value in timings.items()}
    labels = {name: float(value) for name, value in head.labels.items()}
    return Made(list(dict.fromkeys(warnings)), seconds, labels)


def _rename(old: Path, new: Path) -> None:
    """On Windows a virus scanner may hold new files for a moment; so more than one try."""
    for pause in (0.1, 0.3, 1.0):
        try:
            old.rename(new)
        except PermissionError:
            time.sleep(pause)
        else:
            return
    old.rename(new)


def look(heads: Heads, source: Path, request: Mapping[str, Any]) -> tuple[str, bytes]:
    """A media type and the bytes of a picture (PNG) or of vertices (float32 little-endian [V, 3], metres)."""
    head = heads.get(source, request["labels"])
    if request["want"] == "vertices":
        vertices = head.mesh(topology="quads", texture=64, shapes=False).vertices
        return "application/octet-stream", vertices.astype("<f4").tobytes()
    picture = head.render(yaw=request["yaw"], pitch=request["pitch"], size=request["size"])
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=1)  # speed before size: it only crosses the loopback
    return "image/png", out.getvalue()
