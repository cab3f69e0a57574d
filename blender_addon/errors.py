"""Trouble that the panel can show: one sentence, and the operator that mends it where there is one."""

from __future__ import annotations


class Trouble(Exception):  # noqa: N818 -- read in panels and sentences, not only raised
    """`str(trouble)` says what happened, why, and what to do.

    code: stable short name ("no_python", "lost", "token", "protocol", "job", "photo", "bundle", "disk" …)
    fix:  id of an operator that mends the cause, offered as a button, or ""
    """

    def __init__(self, sentence: str, code: str = "error", fix: str = "") -> None:
        super().__init__(sentence)
        self.code = code
        self.fix = fix


def disk_trouble(error: OSError, doing: str) -> Trouble:
    """The sentence for a failed write. `doing` continues "could not", e.g. "save the head"."""
    reason = error.strerror or str(error)
    return Trouble(
        f"GeoInv could not {doing} ({reason}): free some space or choose another data folder "
        "in the add-on's preferences, then try again.",
        code="disk",
        fix="geoinv.open_preferences",
    )
