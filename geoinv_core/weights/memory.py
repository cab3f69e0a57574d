"""How much memory is free, so that a model too large for the machine is refused before it hurts."""

from __future__ import annotations

from pathlib import Path

from geoinv_core.errors import ModelError


def available() -> int | None:
    """Bytes that can be had without swapping; None where the system does not tell."""
    table = Path("/proc/meminfo")
    if not table.exists():
        return None
    for line in table.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def require(count: int, name: str) -> None:
    """Raises ModelError if `count` bytes cannot be had for the model called `name`."""
    free = available()
    if free is not None and count > free:
        raise ModelError(
            f"{name} needs {count / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free; "
            "close other programs or use a machine with more memory."
        )
