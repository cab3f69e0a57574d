"""Start, end, and every way in which either can go wrong."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.__main__ import main
from tests.server.conftest import PATIENCE, ROOT, Running, command, is_alive, until

Start = Callable[..., Running]

posix = pytest.mark.skipif(os.name != "posix", reason="signals and modes as on POSIX")


def refused(data: Path, *options: str) -> str:
    """Start a server that cannot start. Returns its one sentence."""
    done = subprocess.run(
        command(data, *options),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr.strip()


def ended(server: Running) -> int:
    """Wait for the end that something else brings about."""
    code = server.process.wait(PATIENCE)
    server.client.close()
    server.close()
    return code


@posix
def test_says_where_it_is_and_cleans_up(start: Start) -> None:
    server = start()
    note = server.data / "engine.json"
    assert json.loads(note.read_text()) == server.facts
    assert set(server.facts) == {"url", "token", "pid", "protocol", "version"}
    assert server.facts["pid"] == server.process.pid
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    worker = server.worker()
    assert server.stop() == 0
    assert not note.exists()
    until(lambda: not is_alive(worker), "the end of the worker")


def test_the_token_can_be_given_and_the_worker_does_not_get_it(start: Start) -> None:
    server = start(env={"GEOINV_TOKEN": "a token of my own"[:16].replace(" ", "-")})
    assert server.facts["token"] == "a-token-of-my-ow"
    environment = Path(f"/proc/{server.worker()}/environ")
    if environment.exists():
        assert b"GEOINV_TOKEN" not in environment.read_bytes()


def test_shutdown_by_request_ends_open_event_streams(start: Start) -> None:
    server = start()
    id = server.make(model="slow")
    server.working(id)
    with server.client.stream("GET", f"/v1/jobs/{id}/events") as reply:
        lines = reply.iter_lines()
        next(lines)
        with server.connect() as other:
            assert other.post("/v1/shutdown").status_code == 202
        assert "event: end" not in list(lines)
    assert ended(server) == 0


def test_port_taken(shared: Running, tmp_path: Path) -> None:
    port = shared.facts["url"].rpartition(":")[2]
    assert refused(tmp_path / "other", "--port", port).startswith(f"Port {port} is in use by another program")


def test_one_engine_to_a_folder(shared: Running) -> None:
    sentence = refused(shared.data)
    assert f"process {shared.process.pid}" in sentence
    assert "already runs" in sentence
    assert shared.health()["pid"] == shared.process.pid


def test_unusable_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["--data", str(tmp_path / "file")]) == 1
    assert "cannot be used" in capsys.readouterr().err


def test_damaged_job_table(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"not a database" * 100)
    assert "job table" in refused(tmp_path)


def test_weak_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GEOINV_TOKEN", "short")
    assert main(["--data", str(tmp_path / "new")]) == 1
    assert "GEOINV_TOKEN" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_ends_with_its_parent(start: Start) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as parent:
        server = start("--parent-pid", str(parent.pid))
        worker = server.worker()
        parent.kill()
    assert ended(server) == 0
    until(lambda: not is_alive(worker), "the end of the worker")


def test_lives_until_the_last_attached_program_ends(start: Start) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as second:
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as first:
            server = start("--lazy", "--parent-pid", str(first.pid))
            joined = subprocess.run(
                command(server.data, "--attach", "--parent-pid", str(second.pid)),
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=True,
            )
            assert json.loads(joined.stdout) == {**server.facts, "attached": True}
            first.kill()
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(2)
        second.kill()
    assert ended(server) == 0


@posix
def test_worker_ends_when_the_front_is_killed_and_the_job_runs_again(start: Start) -> None:
    server = start()
    id = server.make(model="slow-once")
    server.working(id)
    worker = server.worker()
    server.kill()
    until(lambda: not is_alive(worker), "the end of the worker")
    again = start(data=server.data)
    job = again.ended(id)
    assert (job["state"], job["attempts"]) == ("done", 2)


def test_a_stopped_job_goes_on_at_the_next_start_and_history_stays(start: Start) -> None:
    server = start()
    done = server.make()
    server.ended(done)
    id = server.make(model="slow-once")
    server.working(id)
    assert server.stop() == 0
    again = start(data=server.data)
    job = again.ended(id)
    assert (job["state"], job["attempts"]) == ("done", 1)
    assert [job["id"] for job in again.client.get("/v1/jobs").json()["jobs"]] == [id, done]
    assert again.client.get(f"/v1/jobs/{done}/files/preview.png").status_code == 200


@posix
def test_killed_worker_costs_one_retry_and_then_a_clear_failure(start: Start) -> None:
    server = start()
    id = server.make(model="slow-once")
    server.working(id)
    worker = server.worker()
    os.kill(worker, signal.SIGKILL)
    events = list(server.events(id))
    job = server.job(id)
    assert (job["state"], job["attempts"]) == ("done", 2)
    assert job["files"]
    notes = [data["message"] for _, name, data in events if name == "state" and data["message"]]
    assert len(notes) == 1
    assert "tries once more" in notes[0]
    assert server.worker() != worker

    job = server.ended(server.make(model="dies"))
    assert (job["state"], job["attempts"], job["error"]["code"]) == ("failed", 2, "engine_stopped")
    assert "code 3" in job["error"]["message"]
    assert "twice" in job["error"]["message"]
    assert server.ended(server.make())["state"] == "done"


def test_a_model_that_cannot_be_loaded_is_reported_and_others_still_work(start: Start) -> None:
    server = start("--model", "missing")
    until(lambda: server.health()["problem"], "a problem")
    assert server.health()["problem"]["code"] == "model"
    assert server.ended(server.make(model="default"))["state"] == "done"


def test_idle_engine_gives_its_memory_back(start: Start) -> None:
    server = start("--idle-minutes", "0.005")
    worker = server.worker()
    until(lambda: server.health()["state"] == "unloaded", "the unloading")
    until(lambda: not is_alive(worker), "the end of the worker")
    assert server.ended(server.make())["state"] == "done"


def test_front_never_imports_torch(start: Start) -> None:
    # The variable makes the interpreter list what it imports; the worker's list goes to the log instead.
    server = start(env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert server.process.stderr is not None
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(server.process.stderr.read)  # the list is longer than a pipe holds
        assert server.ended(server.make())["state"] == "done"
        server.client.post("/v1/shutdown")
        listed = reading.result(timeout=PATIENCE)
    server.process.wait(PATIENCE)
    assert ended(server) == 0
    names = {
        line.rpartition("|")[2].strip() for line in listed.splitlines() if line.startswith("import time:")
    }
    assert {"server.app", "geoinv_core.photo.decode"} <= names
    assert not [name for name in names if name.partition(".")[0] in {"torch", "scipy", "numba"}]
