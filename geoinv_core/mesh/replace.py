"""Write a folder whole or not at all: fill a hidden sibling, then rename."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from secrets import token_hex

from geoinv_core.errors import OutputError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def write_folder(
    folder: Path, fill: Callable[[Path], None], owned: Iterable[str], is_ours: Callable[[Path], bool]
) -> Path:
    """Make `folder` by filling a temporary sibling (the same file system, so the rename cannot fail halfway).

    Args:
        folder: may exist where it is empty or `is_ours`; a link is followed.
        fill: writes the content into the folder it is given; may raise anything, Cancelled included.
        owned: names of the content. Other entries of a replaced folder are the user's and are moved over.
        is_ours: whether an existing folder may be replaced.

    Returns: the absolute path. Raises: OutputError, or what `fill` raises; nothing is left behind then.
    """
    temporary: Path | None = None
    try:
        target = folder.expanduser().resolve()
        _check_target(target, is_ours)
        target.parent.mkdir(parents=True, exist_ok=True)
        name = target.parent / f".{target.name}.{token_hex(4)}"
        temporary = name.with_name(name.name + ".partial")
        temporary.mkdir()
        fill(temporary)
        _swap(temporary, target, name.with_name(name.name + ".old"), set(owned))
    except OSError as error:
        raise OutputError(explain(folder, error)) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def _check_target(target: Path, is_ours: Callable[[Path], bool]) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise OutputError(
            f"“{target}” is a file, so the head cannot be saved as a folder there; choose another name."
        )
    if any(target.iterdir()) and not is_ours(target):
        raise OutputError(
            f"“{target}” holds other files and is not a saved head, so it is not overwritten; "
            "choose an empty or a new folder."
        )
    if os.path.ismount(target):
        raise OutputError(
            f"“{target}” is a whole drive and cannot be replaced by a head; choose a folder inside it."
        )


def _swap(temporary: Path, target: Path, old: Path, owned: set[str]) -> None:
    if not target.exists():
        temporary.rename(target)
        return
    target.rename(old)
    try:
        temporary.rename(target)
    except BaseException:
        old.rename(target)
        raise
    for entry in old.iterdir():
        if entry.name not in owned:
            entry.rename(target / entry.name)
    shutil.rmtree(old)


def explain(target: Path, error: OSError) -> str:
    """Why a file or folder could not be written, as one sentence that says what to do."""
    where = f"The head could not be saved to “{target}”"
    if error.errno in _FULL:
        return f"{where}: the disk is full; free some space or choose another folder."
    if error.errno in _DENIED:
        return f"{where}: the folder may not be written to; choose another folder or change its permissions."
    return f"{where}: {(error.strerror or str(error)).lower()}; choose another folder."
