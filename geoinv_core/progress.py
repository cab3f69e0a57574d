"""Progress of long work: one small value, handed to one callable, which may raise `Cancelled`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

STAGES = ("load", "detect", "encode", "refine", "surface", "texture", "shapes", "save")


@dataclass(frozen=True)
class Progress:
    """Where the work stands. `stage` is one of STAGES, `fraction` of the whole stage in [0, 1]."""

    stage: str
    fraction: float
    message: str = ""
    preview: Any = None
    """A PIL.Image to show meanwhile, or None."""


OnProgress = Callable[[Progress], None]


def report(
    on_progress: OnProgress | None, stage: str, fraction: float, message: str = "", preview: Any = None
) -> None:
    """Tell the listener, if there is one. Passes on `Cancelled`."""
    if on_progress is not None:
        on_progress(Progress(stage, fraction, message, preview))
