"""A real server process for the tests, with an engine that needs no torch."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from server.machine import watch

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds; only a broken server ever takes as long."""

BOX = [8, 8, 56, 56]


def until(condition: Callable[[], object], what: str) -> None:
    """Look again until it holds. For things that send no event, such as the end of another's child."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.02)


def picture(kind: str = "JPEG", size: tuple[int, int] = (64, 64)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (180, 140, 120)).save(out, kind)
    return out.getvalue()


def command(data: Path, *options: str) -> list[str]:
    engine = "tests.server.fake_engine:FakeEngine"
    return [sys.executable, "-m", "server", "--data", str(data), "--engine", engine, *options]


class Running:
    """A server process and a client of it."""

    def __init__(self, data: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self.data = data
        self.process = subprocess.Popen(
            command(data, *options),
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        give_up = threading.Timer(PATIENCE, self.process.kill)
        give_up.start()
        line = self.process.stdout.readline()
        give_up.cancel()
        if not line:
            raise AssertionError(f"the server did not start: {self.process.communicate()[1]}")
        self.facts = json.loads(line)
        self.client = self.connect()

    def connect(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.facts['token']}"}
        return httpx.Client(base_url=self.facts["url"], headers=headers, timeout=PATIENCE, trust_env=False)

    def send(self, photo: bytes | None = None, **settings: Any) -> httpx.Response:
        """POST a job with a marked face, which spares the search for one."""
        if settings.get("kind", "invert") == "invert":
            settings.setdefault("face_box", BOX)
        files = [("photo", ("some one.jpg", photo or picture()))] if settings.get("kind") != "edit" else []
        return self.client.post("/v1/jobs", data={"settings": json.dumps(settings)}, files=files or None)

    def make(self, **settings: Any) -> str:
        reply = self.send(**settings)
        assert reply.status_code == 202, reply.text
        return str(reply.json()["id"])

    def job(self, id: str) -> dict[str, Any]:
        return dict(self.client.get(f"/v1/jobs/{id}").raise_for_status().json())

    def events(self, id: str, after: int | None = None) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """(number, name, data) until the end event."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        with self.client.stream("GET", f"/v1/jobs/{id}/events", headers=headers) as reply:
            assert reply.headers["content-type"].startswith("text/event-stream")
            event: dict[str, str] = {}
            for line in reply.iter_lines():
                name, _, value = line.partition(": ")
                if line:
                    event[name] = value
                elif "data" in event:
                    yield int(event["id"]), event["event"], json.loads(event["data"])
                    event = {}

    def ended(self, id: str) -> dict[str, Any]:
        """The job once it has ended."""
        assert list(self.events(id))[-1][1] == "end"
        return self.job(id)

    def working(self, id: str, stage: str = "refine") -> None:
        """Return when the job is in that stage."""
        for _, name, data in self.events(id):
            assert name != "end", data
            if name == "progress" and data["stage"] == stage:
                return

    def health(self) -> dict[str, Any]:
        return dict(self.client.get("/v1/health").raise_for_status().json())

    def worker(self) -> int:
        """The worker's process number, once there is a worker."""
        until(lambda: self.health()["worker_pid"], "a worker")
        return int(self.health()["worker_pid"])

    def stop(self) -> int:
        """End by signal. Returns the exit code."""
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        self.close()
        return code

    def kill(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait(PATIENCE)
        self.close()

    def close(self) -> None:
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def is_alive(pid: int) -> bool:
    return watch(pid)()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all tests that leave it as they found it."""
    server = Running(tmp_path_factory.mktemp("shared data é"), "--max-upload-mb", "1", "--cancel-grace", "1")
    yield server
    assert server.stop() == 0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start servers of one's own; whatever still runs afterwards is ended."""
    servers: list[Running] = []

    def run(*options: str, data: Path | None = None, env: dict[str, str] | None = None) -> Running:
        servers.append(Running(data or tmp_path / "data", *options, env=env))
        return servers[-1]

    yield run
    for server in servers:
        if server.process.poll() is None:
            server.stop()
