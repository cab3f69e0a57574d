"""What survives a crash: the job table (SQLite, write-ahead log), the events, and a folder per job.

    DIR/jobs.sqlite        jobs and their events
    DIR/jobs/ID/input.*    the photo as it was sent (edit jobs have none)
    DIR/jobs/ID/work/      what a running job has written so far; thrown away when it stops early
    DIR/jobs/ID/result/    the head bundle, complete or absent; variants in variant-1, variant-2 ...

One connection behind one lock serves all threads; every call is a few short statements.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.schema import FINISHED

ATTEMPTS = 2
"""A job whose worker died is tried this often in all."""

KEPT_EVENTS = 500

_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, state TEXT NOT NULL, title TEXT NOT NULL,
    settings TEXT NOT NULL, parent TEXT, input TEXT, attempts INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL, started REAL, finished REAL,
    stage TEXT NOT NULL DEFAULT '', fraction REAL NOT NULL DEFAULT 0, message TEXT NOT NULL DEFAULT '',
    error TEXT, warnings TEXT NOT NULL DEFAULT '[]', timings TEXT NOT NULL DEFAULT '{}',
    labels TEXT NOT NULL DEFAULT '{}', size INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS jobs_state ON jobs (state, place);
CREATE INDEX IF NOT EXISTS jobs_parent ON jobs (parent, place);
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    job TEXT NOT NULL, name TEXT NOT NULL, data TEXT NOT NULL, preview TEXT);
CREATE INDEX IF NOT EXISTS events_job ON events (job, seq);
"""


@dataclass(frozen=True)
class Job:
    """One row of the job table. Times are Unix seconds; `size` is the bytes of the result."""

    place: int
    id: str
    kind: str
    state: str
    title: str
    settings: dict[str, Any]
    parent: str | None
    input: str | None
    attempts: int
    created: float
    started: float | None
    finished: float | None
    stage: str
    fraction: float
    message: str
    error: dict[str, str] | None
    warnings: list[str]
    timings: dict[str, float]
    labels: dict[str, float]
    size: int

    @property
    def ended(self) -> bool:
        return self.state in FINISHED


@dataclass(frozen=True)
class Event:
    """`name` is "state", "progress" or "end"; `data` has what clients get, the preview included."""

    seq: int
    name: str
    data: dict[str, Any]


def _job(row: sqlite3.Row) -> Job:
    values = dict(row)
    for name in ("settings", "warnings", "timings", "labels"):
        values[name] = json.loads(values[name])
    if values["error"] is not None:
        values["error"] = json.loads(values["error"])
    return Job(**values)


class Store:
    """Jobs and their files under `root`, which is made when missing. Raises OSError, sqlite3.Error."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders = root / "jobs"
        self._folders.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(root / "jobs.sqlite", check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_TABLES)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """All writes inside become visible at once, or not at all."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    # Reading -----------------------------------------------------------------------------------------------

    def get(self, id: str) -> Job | None:
        rows = self._read("SELECT * FROM jobs WHERE id = ?", (id,))
        return _job(rows[0]) if rows else None

    def jobs(self, limit: int, states: Sequence[str] = ()) -> list[Job]:
        """The newest jobs first; only those in one of `states`, when given."""
        marks = ",".join("?" * len(states))
        where = f"WHERE state IN ({marks})" if states else ""
        rows = self._read(f"SELECT * FROM jobs {where} ORDER BY place DESC LIMIT ?", (*states, limit))
        return [_job(row) for row in rows]

    def children(self, id: str) -> list[Job]:
        return [_job(row) for row in self._read("SELECT * FROM jobs WHERE parent = ? ORDER BY place", (id,))]

    def next_queued(self) -> Job | None:
        rows = self._read(
            "SELECT * FROM jobs WHERE state = 'queued' AND kind != 'batch' ORDER BY place LIMIT 1"
        )
        return _job(rows[0]) if rows else None

    def queued(self, before: int | None = None) -> int:
        """How many jobs wait; with `before`, only those ahead of that place."""
        sql = "SELECT COUNT(*) FROM jobs WHERE state = 'queued' AND kind != 'batch'"
        rows = self._read(sql) if before is None else self._read(f"{sql} AND place < ?", (before,))
        return int(rows[0][0])

    def events(self, id: str, after: int) -> list[Event]:
        rows = self._read("SELECT * FROM events WHERE job = ? AND seq > ? ORDER BY seq", (id, after))
        return [Event(r["seq"], r["name"], {**json.loads(r["data"]), "preview": r["preview"]}) for r in rows]

    # Writing -----------------------------------------------------------------------------------------------

    def create(
        self,
        kind: str,
        settings: dict[str, Any],
        title: str,
        *,
        parent: str | None = None,
        photo: bytes | None = None,
        suffix: str = "",
        warnings: Iterable[str] = (),
    ) -> Job:
        """A queued job with its folder and its photo, in that order: a row never lacks its files."""
        id = secrets.token_hex(8)
        folder = self.folder(id)
        folder.mkdir()
        name = None
        if photo is not None:
            name = f"input{suffix}"
            (folder / name).write_bytes(photo)
        self._write(
            "INSERT INTO jobs (id, kind, state, title, settings, parent, input, created, warnings)"
            " VALUES (?, ?, 'queued', ?, ?, ?, ?, ?, ?)",
            (id, kind, title, json.dumps(settings), parent, name, time.time(), json.dumps(list(warnings))),
        )
        self.add_event(id, "state", {"state": "queued", "message": ""})
        job = self.get(id)
        assert job is not None
        return job

    def start(self, id: str) -> None:
        self._write(
            "UPDATE jobs SET state = 'running', started = ?, finished = NULL, attempts = attempts + 1,"
            " stage = 'load', fraction = 0, message = '' WHERE id = ?",
            (time.time(), id),
        )
        self.add_event(id, "state", {"state": "running", "message": ""})

    def requeue(self, id: str, message: str, *, forgive: bool = False) -> None:
        """Back into the queue, at the old place. `forgive`: the attempt does not count."""
        shutil.rmtree(self.work(id), ignore_errors=True)
        self._write(
            "UPDATE jobs SET state = 'queued', started = NULL, stage = '', fraction = 0, message = ?,"
            " attempts = attempts - ? WHERE id = ?",
            (message, int(forgive), id),
        )
        self.add_event(id, "state", {"state": "queued", "message": message})

    def progress(
        self, id: str, stage: str, fraction: float, message: str, preview: str | None = None
    ) -> None:
        self._write(
            "UPDATE jobs SET stage = ?, fraction = ?, message = ? WHERE id = ?",
            (stage, fraction, message, id),
        )
        self.add_event(id, "progress", {"stage": stage, "fraction": fraction, "message": message}, preview)

    def finish(
        self,
        id: str,
        state: str,
        *,
        error: dict[str, str] | None = None,
        message: str = "",
        warnings: Iterable[str] = (),
        timings: dict[str, float] | None = None,
        labels: dict[str, float] | None = None,
    ) -> None:
        """The last word on a job. A failed or cancelled job leaves no half-written result."""
        if state != "done":
            shutil.rmtree(self.work(id), ignore_errors=True)
        job = self.get(id)
        if job is None:
            return
        said = list(dict.fromkeys([*job.warnings, *warnings]))
        size = sum(path.stat().st_size for path in self.folder(id).rglob("*") if path.is_file())
        self._write(
            "UPDATE jobs SET state = ?, finished = ?, error = ?, message = ?, warnings = ?, timings = ?,"
            " labels = ?, size = ?, fraction = CASE ? WHEN 'done' THEN 1 ELSE fraction END WHERE id = ?",
            (
                state,
                time.time(),
                json.dumps(error) if error else None,
                message,
                json.dumps(said),
                json.dumps(timings or {}),
                json.dumps(labels or {}),
                size,
                state,
                id,
            ),
        )
        self.add_event(id, "end", {"state": state, "error": error, "message": message})

    def add_event(self, id: str, name: str, data: dict[str, Any], preview: str | None = None) -> None:
        """Old events are dropped, and of all previews only the newest is kept."""
        with self._lock:
            if preview is not None:
                self._db.execute("UPDATE events SET preview = NULL WHERE job = ? AND preview NOT NULL", (id,))
            seq = self._db.execute(
                "INSERT INTO events (job, name, data, preview) VALUES (?, ?, ?, ?)",
                (id, name, json.dumps(data), preview),
            ).lastrowid
            assert seq is not None
            if seq % 50 == 0:
                self._db.execute(
                    "DELETE FROM events WHERE job = ? AND seq <= (SELECT seq FROM events WHERE job = ?"
                    " ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                    (id, id, KEPT_EVENTS),
                )

    def delete(self, id: str) -> None:
        """Row, events and files. The row goes first: what a crash leaves is swept up at the next start."""
        with self.together():
            self._db.execute("DELETE FROM jobs WHERE id = ?", (id,))
            self._db.execute("DELETE FROM events WHERE job = ?", (id,))
        shutil.rmtree(self.folder(id), ignore_errors=True)

    # Files -------------------------------------------------------------------------------------------------

    def folder(self, id: str) -> Path:
        return self._folders / id

    def work(self, id: str) -> Path:
        return self.folder(id) / "work"

    def result(self, id: str) -> Path:
        return self.folder(id) / "result"

    def files(self, id: str) -> list[str]:
        """Names of the result's files, with "/" between folders. Links are left out."""
        root = self.result(id)
        found = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
        return sorted(path.relative_to(root).as_posix() for path in found)

    def file(self, id: str, name: str) -> Path | None:
        """A result's file by a name from `files`; every other name, "../" included, is None."""
        return self.result(id) / name if name in self.files(id) else None

    # Housekeeping ------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Jobs that were cut off run once more or fail. Only while no job is running."""
        for job in self.jobs(limit=-1, states=("running",)):
            if job.kind == "batch":
                continue
            if job.attempts < ATTEMPTS:
                self.requeue(job.id, "The engine stopped while this ran; it is tried once more.")
            else:
                sentence = (
                    "The engine stopped twice while this ran, so it was given up; "
                    "try a smaller texture or fewer refinement steps, or look into the log."
                )
                self.finish(
                    job.id, "failed", error={"code": "engine_stopped", "message": sentence}, message=sentence
                )

    def sweep(self) -> None:
        """Remove folders of no job. Only before jobs are accepted: a new one has its folder first."""
        known = {row["id"] for row in self._read("SELECT id FROM jobs")}
        for folder in self._folders.iterdir():
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)

    def clean(self, keep_jobs: int, keep_bytes: int) -> list[str]:
        """Drop the oldest ended jobs beyond either limit, but none that a waiting edit needs. Returns ids."""
        waiting = self.jobs(limit=-1, states=("queued", "running"))
        needed = {str(job.settings.get("head") or "").partition("/")[0] for job in waiting}
        needed |= {job.parent for job in waiting if job.parent}
        ended = self.jobs(limit=-1, states=tuple(FINISHED))
        gone: list[str] = []
        total = 0
        for index, job in enumerate(ended):
            total += job.size
            if (index >= keep_jobs or total > keep_bytes) and index > 0 and job.id not in needed:
                self.delete(job.id)
                total -= job.size
                gone.append(job.id)
        return gone

    def _read(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def _write(self, sql: str, values: Sequence[Any]) -> None:
        with self._lock:
            self._db.execute(sql, values)
