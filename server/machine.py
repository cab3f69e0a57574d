"""What differs between operating systems: a file lock, "is that process alive", memory, private files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import ctypes
    import msvcrt
    from ctypes import wintypes
else:
    import fcntl
    import resource


class FileLock:
    """An exclusive lock on a file; the system lets go of it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """False when another process holds it. Raises OSError when the file cannot be opened."""
        file = self._path.open("a+b")
        try:
            if sys.platform == "win32":
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        self._file = file
        return True

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, in one step: readers see the old one, none, or all of it."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    part.replace(path)


def watch(pid: int) -> Callable[[], bool]:
    """A function that says whether the process which has this number now is still alive.

    A number is given to a new process sooner or later, so the process is held by a handle (Windows) or
    recognised by its start time (Linux). On macOS only the number is looked at.
    """
    if sys.platform == "win32":
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.OpenProcess.restype = wintypes.HANDLE
        kernel.WaitForSingleObject.argtypes = [wintypes.HANDLE, wintypes.DWORD]
        handle = kernel.OpenProcess(0x00100000, False, pid)  # SYNCHRONIZE
        wait_timeout = 0x102
        return lambda: bool(handle) and kernel.WaitForSingleObject(handle, 0) == wait_timeout
    born = _birth(pid)

    def alive() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return not sys.platform.startswith("linux") or (born is not None and _birth(pid) == born)

    return alive


def _birth(pid: int) -> str | None:
    """Linux: the start time of a process that is neither gone nor a zombie. Elsewhere None."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def own_memory() -> int | None:
    """Bytes of physical memory that this process holds (macOS: the most it ever held)."""
    if sys.platform == "win32":
        size = ctypes.sizeof(ctypes.c_size_t)
        counters = (ctypes.c_size_t * (8 + 8 // size))()  # PROCESS_MEMORY_COUNTERS: two DWORDs, then sizes
        ctypes.cast(counters, ctypes.POINTER(wintypes.DWORD))[0] = ctypes.sizeof(counters)
        kernel = ctypes.WinDLL("kernel32")
        kernel.GetCurrentProcess.restype = wintypes.HANDLE
        query = kernel.K32GetProcessMemoryInfo
        query.argtypes = [wintypes.HANDLE, ctypes.c_void_p, wintypes.DWORD]
        ok = query(kernel.GetCurrentProcess(), ctypes.byref(counters), ctypes.sizeof(counters))
        return int(counters[8 // size + 1]) if ok else None
    if sys.platform == "darwin":
        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def available_memory() -> int | None:
    """Bytes of physical memory that this machine can still give, where it says so."""
    if sys.platform == "win32":
        status = (ctypes.c_ulonglong * 8)()  # MEMORYSTATUSEX: two DWORDs, then seven 64 bit numbers
        ctypes.cast(status, ctypes.POINTER(wintypes.DWORD))[0] = ctypes.sizeof(status)
        ok = ctypes.WinDLL("kernel32").GlobalMemoryStatusEx(ctypes.byref(status))
        return int(status[2]) if ok else None
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
