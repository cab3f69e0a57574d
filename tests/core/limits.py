"""A limit on processor time and memory of what happens inside a `with` block."""

from __future__ import annotations

import mmap
import sys
import time
from pathlib import Path

if sys.platform != "win32":
    import resource


class Limits:
    """Fails unless what happens inside takes under `seconds` of processor time and `megabytes` beyond before.

    Memory is the peak inside: Linux can be told to begin a new peak, so that what earlier tests used does not
    hide anything. Elsewhere only a peak beyond the process's largest so far is seen.
    """

    def __init__(self, seconds: float = 2.0, megabytes: float = 500.0) -> None:
        self.seconds, self.megabytes = seconds, megabytes

    def __enter__(self) -> None:
        self.fresh = Path("/proc/self/clear_refs").exists()
        if self.fresh:
            Path("/proc/self/clear_refs").write_text("5")
        self.before = _status("VmRSS") if self.fresh else _largest()
        self.start = time.process_time()

    def __exit__(self, *_: object) -> None:
        took = time.process_time() - self.start
        grown = (_status("VmHWM") if self.fresh else _largest()) - self.before
        assert took < self.seconds, f"{took:.1f} s"
        assert grown < self.megabytes * 1e6, f"{grown / 1e6:.0f} MB"


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def _largest() -> float:
    """Largest memory use of this process so far, bytes; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def fill(megabytes: int) -> None:
    """Use fresh memory: an allocator may hand out again what earlier tests gave back."""
    with mmap.mmap(-1, megabytes << 20) as fresh:
        for _ in range(megabytes):
            fresh.write(b"x" * (1 << 20))


def spend(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
