"""A large file as pieces that fit through a narrow door, and back: nothing is lost or mixed up unnoticed.

`split(file, folder)` writes file.name.000, .001 ... and file.name.json (size, SHA-256 and number of pieces),
the latter last: pieces without it are unfinished and ignored.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from geoinv_core.errors import GeoInvError

LIMIT = 15 * 2**20  # bytes of a piece; leaves room below 16 MiB


class PiecesError(GeoInvError):
    """Pieces of a file are missing or damaged."""

    code = "pieces"


def split(file: Path, folder: Path, limit: int = LIMIT) -> list[Path]:
    """Cut a file into pieces of at most `limit` bytes; earlier pieces of the same name are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / f"{file.name}.json"
    index.unlink(missing_ok=True)
    for old in pieces_of(folder, file.name):
        old.unlink()
    digest = hashlib.sha256()
    pieces: list[Path] = []
    with file.open("rb") as source:
        while block := source.read(limit):
            digest.update(block)
            piece = folder / f"{file.name}.{len(pieces):03d}"
            piece.write_bytes(block)
            pieces.append(piece)
    about = {"bytes": file.stat().st_size, "sha256": digest.hexdigest(), "pieces": len(pieces)}
    index.write_text(json.dumps(about))
    return [*pieces, index]


def join(folder: Path, name: str, target: Path) -> bool:
    """Put a file together again; False when there are no (complete) pieces of that name.

    Raises: PiecesError when the pieces do not make the file that was split.
    """
    index = folder / f"{name}.json"
    if not index.is_file():
        return False
    about = json.loads(index.read_text())
    digest, partial = hashlib.sha256(), target.with_name(target.name + ".partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("wb") as file:
        for piece in pieces_of(folder, name):
            block = piece.read_bytes()
            digest.update(block)
            file.write(block)
    if digest.hexdigest() != about["sha256"]:
        partial.unlink()
        raise PiecesError(
            f"The {about['pieces']} pieces of {name} in {folder} do not make the file that was split; "
            "bring all of them over again."
        )
    partial.replace(target)
    return True


def pieces_of(folder: Path, name: str) -> list[Path]:
    """The pieces of a file, in order."""
    return sorted(p for p in folder.glob(f"{name}.*") if p.suffix[1:].isdigit())
