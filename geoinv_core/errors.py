"""The errors that reach a person: one sentence that says what happened, why, and what to do."""

from __future__ import annotations


class GeoInvError(Exception):
    """Something the user can act on. `str(error)` is a complete sentence, `code` is stable for programs."""

    code = "error"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class PhotoError(GeoInvError):
    """The photo cannot be used (not an image, too large, no face, ...)."""

    code = "photo"


class ModelError(GeoInvError):
    """A model file is missing, damaged, or of the wrong kind."""

    code = "model"


class OutputError(GeoInvError):
    """The result cannot be written (folder missing or read-only, disk full, ...)."""

    code = "output"


class EditError(GeoInvError):
    """An edit names a label that the model does not have, or a value out of range."""

    code = "edit"


class Cancelled(Exception):  # noqa: N818 -- not an error: the person asked for it
    """Raised by a progress callback to stop the work in hand; every step passes it on and cleans up."""
