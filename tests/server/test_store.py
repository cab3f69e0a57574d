"""The job table by itself: recovery, limits, events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.store import ATTEMPTS, KEPT_EVENTS, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.close()


def made(store: Store, **settings: object) -> str:
    return store.create("invert", dict(settings), "x", photo=b"12345", suffix=".jpg").id


def test_cut_off_jobs_run_again_once_and_then_fail(store: Store) -> None:
    id = made(store)
    states = []
    for _ in range(ATTEMPTS):
        store.start(id)
        store.work(id).mkdir()
        store.recover()
        assert not store.work(id).exists()
        job = store.get(id)
        assert job is not None
        states.append(job.state)
    assert states == ["queued", "failed"]
    assert job.error is not None
    assert job.error["code"] == "engine_stopped"


def test_forgiven_attempts_do_not_count(store: Store) -> None:
    id = made(store)
    for _ in range(5):
        store.start(id)
        store.requeue(id, "stopped", forgive=True)
    job = store.get(id)
    assert job is not None
    assert (job.attempts, job.state) == (0, "queued")


def test_stray_folders_go_and_known_ones_stay(store: Store, tmp_path: Path) -> None:
    id = made(store)
    (tmp_path / "jobs" / "stray").mkdir()
    store.sweep()
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == [id]


def test_limits_drop_the_oldest_but_no_head_that_an_edit_waits_for(store: Store) -> None:
    ids = [made(store) for _ in range(5)]
    for id in ids:
        store.finish(id, "done")
    store.create("edit", {"head": f"{ids[0]}/variant-1"}, "x")
    assert store.clean(keep_jobs=2, keep_bytes=1000) == [ids[2], ids[1]]
    assert store.clean(keep_jobs=9, keep_bytes=7) == [ids[3]]
    assert not store.folder(ids[1]).exists()
    assert {job.id for job in store.jobs(10, ("done",))} == {ids[0], ids[4]}


def test_old_events_and_previews_are_dropped(store: Store) -> None:
    id = made(store)
    for step in range(KEPT_EVENTS + 120):
        store.progress(id, "refine", 0.5, str(step), preview=f"picture {step}")
    events = store.events(id, 0)
    assert KEPT_EVENTS <= len(events) <= KEPT_EVENTS + 50
    assert [event.data["preview"] for event in events if event.data["preview"]] == [f"picture {step}"]
    assert events[-1].data["message"] == str(step)


def test_a_broken_batch_leaves_no_rows(store: Store) -> None:
    def half_a_batch() -> None:
        with store.together():
            made(store)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_a_batch()
    assert store.jobs(10) == []
