"""Jobs from the upload to the files: progress, results, edits, batches, failures, cancel."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from tests.server.conftest import BOX, Running, picture


def test_photo_becomes_files(shared: Running) -> None:
    reply = shared.send(labels={"smile": 0.5}, variants=[{"age": 70}, {"nose": 1}], texture=512)
    assert reply.status_code == 202
    assert reply.json()["state"] in {"queued", "running"}
    job = shared.ended(reply.json()["id"])
    assert (job["state"], job["error"], job["position"], job["attempts"]) == ("done", None, None, 1)
    assert job["files"] == [
        *(f"{name}" for name in ("head.json", "mesh.npz", "preview.png")),
        *(f"variant-1/{name}" for name in ("head.json", "mesh.npz", "preview.png")),
    ]
    assert job["title"] == "some one.jpg"
    assert job["labels"] == {"age": 40.0, "smile": 0.5}
    assert "A fake head." in job["warnings"]
    assert any(
        text.startswith("Variant 2 was left out: There is no label named nose") for text in job["warnings"]
    )
    assert {"load", "encode", "save", "variant-1"} <= set(job["timings"])
    assert job["elapsed"] > 0
    facts = shared.client.get(f"/v1/jobs/{job['id']}/files/variant-1/head.json").json()
    assert facts == {"labels": {"age": 70, "smile": 0.5}, "topology": "quads", "texture": 512, "shapes": True}
    png = shared.client.get(f"/v1/jobs/{job['id']}/files/preview.png")
    assert png.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(png.content)).size == (64, 64)


def test_events_tell_stages_in_order_and_resume(shared: Running) -> None:
    id = shared.make()
    events = list(shared.events(id))
    numbers = [number for number, _, _ in events]
    assert numbers == sorted(set(numbers))
    stages = [data["stage"] for _, name, data in events if name == "progress"]
    assert list(dict.fromkeys(stages)) == ["load", "encode", "surface", "save"]
    assert [data["state"] for _, name, data in events if name == "state"] == ["queued", "running"]
    assert events[-1][1:] == ("end", {"state": "done", "error": None, "message": "", "preview": None})
    previews = [data["preview"] for _, _, data in events if data["preview"]]
    assert len(previews) == 1
    assert Image.open(io.BytesIO(base64.b64decode(previews[0]))).format == "JPEG"
    middle = len(events) // 2
    assert list(shared.events(id, after=numbers[middle])) == events[middle + 1 :]
    # Whoever has seen everything is told the end again rather than kept waiting.
    assert [name for _, name, _ in shared.events(id, after=numbers[-1])] == ["end"]


def test_edit_of_a_head_and_of_a_variant(shared: Running) -> None:
    head = shared.make(variants=[{"age": 70}])
    shared.ended(head)
    first = shared.ended(shared.make(kind="edit", head=head, labels={"smile": 0.9}))
    assert first["labels"] == {"age": 40.0, "smile": 0.9}
    reply = shared.client.post(
        "/v1/jobs", json={"kind": "edit", "head": f"{head}/variant-1", "labels": {"smile": 0.2}}
    )
    assert shared.ended(reply.json()["id"])["labels"] == {"age": 70.0, "smile": 0.2}
    wrong = shared.ended(shared.make(kind="edit", head=head, labels={"nose": 1}))
    assert wrong["state"] == "failed"
    assert wrong["error"]["code"] == "edit"
    assert "nose" in wrong["error"]["message"]
    assert wrong["files"] == []


def test_edit_needs_a_head_that_is_there(shared: Running) -> None:
    reply = shared.send(kind="edit", head="0" * 16, labels={"smile": 1})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "no_head")


def test_expected_failures_are_told_and_the_engine_lives_on(shared: Running) -> None:
    codes = {}
    for model in ("missing", "broken", "memory"):
        job = shared.ended(shared.make(model=model))
        assert (job["state"], job["files"]) == ("failed", [])
        assert job["message"] == job["error"]["message"]
        codes[model] = job["error"]["code"]
    assert codes == {"missing": "model", "broken": "internal", "memory": "out_of_memory"}
    log = (shared.data / "log.txt").read_text()
    assert "ZeroDivisionError: on purpose" in log
    assert shared.facts["token"] not in log
    assert "some one" not in log
    assert shared.ended(shared.make())["state"] == "done"


def test_cancel_of_a_running_job_keeps_the_worker(shared: Running) -> None:
    id = shared.make(model="slow")
    shared.working(id)
    worker = shared.worker()
    reply = shared.client.post(f"/v1/jobs/{id}/cancel")
    assert reply.status_code == 202
    job = shared.ended(id)
    assert (job["state"], job["error"], job["files"]) == ("cancelled", None, [])
    assert shared.worker() == worker
    assert shared.client.post(f"/v1/jobs/{id}/cancel").json()["state"] == "cancelled"


def test_cancel_of_a_stuck_job_replaces_the_worker(shared: Running) -> None:
    id = shared.make(model="stuck")
    shared.working(id, "encode")
    worker = shared.worker()
    shared.client.post(f"/v1/jobs/{id}/cancel")
    job = shared.ended(id)
    assert job["state"] == "cancelled"
    assert "restarted" in job["message"]
    assert shared.ended(shared.make())["state"] == "done"
    assert shared.worker() != worker


def test_queue_positions_and_cancel_while_waiting(shared: Running) -> None:
    blocker = shared.make(model="slow")
    shared.working(blocker)
    waiting = [shared.make() for _ in range(3)]
    assert [shared.job(id)["position"] for id in waiting] == [1, 2, 3]
    health = shared.health()
    assert (health["state"], health["running"], health["queued"]) == ("busy", blocker, 3)
    shared.client.post(f"/v1/jobs/{waiting[0]}/cancel")
    assert shared.ended(waiting[0])["state"] == "cancelled"
    assert [shared.job(id)["position"] for id in waiting] == [None, 1, 2]
    listed = shared.client.get("/v1/jobs", params={"state": "queued"}).json()["jobs"]
    assert [job["id"] for job in listed] == [waiting[2], waiting[1]]
    assert shared.client.delete(f"/v1/jobs/{blocker}").json()["error"]["code"] == "running"
    assert shared.client.delete(f"/v1/jobs/{waiting[1]}").status_code == 200
    assert shared.client.get(f"/v1/jobs/{waiting[1]}").status_code == 404
    shared.client.post(f"/v1/jobs/{blocker}/cancel")
    assert shared.ended(blocker)["state"] == "cancelled"
    assert shared.ended(waiting[2])["state"] == "done"


def test_two_clients_at_once(shared: Running) -> None:
    def run(number: int) -> dict[str, object]:
        with shared.connect() as client:
            settings = json.dumps({"face_box": BOX, "labels": {"age": 20 + number}})
            reply = client.post(
                "/v1/jobs", data={"settings": settings}, files={"photo": ("x", picture("JPEG"))}
            )
            return shared.ended(reply.json()["id"])

    with ThreadPoolExecutor(4) as pool:
        jobs = list(pool.map(run, range(8)))
    assert [job["labels"] for job in jobs] == [{"age": 20.0 + n, "smile": 0.1} for n in range(8)]


def test_delete_removes_files(shared: Running) -> None:
    id = shared.make()
    shared.ended(id)
    assert (shared.data / "jobs" / id / "input.jpg").is_file()
    assert shared.client.delete(f"/v1/jobs/{id}").json() == {"ok": True}
    assert not (shared.data / "jobs" / id).exists()
    assert shared.client.get(f"/v1/jobs/{id}").json()["error"]["code"] == "no_job"


def test_preview_pictures_and_vertices(shared: Running) -> None:
    raw, quads = shared.make(topology="raw"), shared.make()
    shared.ended(raw)
    shared.ended(quads)
    reply = shared.client.post(
        f"/v1/heads/{raw}/preview", json={"labels": {"age": 61}, "yaw": 30, "size": 96}
    )
    image = Image.open(io.BytesIO(reply.content))
    assert (image.size, image.getpixel((0, 0))) == ((96, 96), (30, 61, 7))
    reply = shared.client.post(f"/v1/heads/{quads}/preview", json={"labels": {"age": 61}, "want": "vertices"})
    np.testing.assert_array_equal(np.frombuffer(reply.content, "<f4").reshape(-1, 3), np.full((5, 3), 61.0))
    refused = shared.client.post(f"/v1/heads/{raw}/preview", json={"want": "vertices"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "topology")
    wrong = shared.client.post(f"/v1/heads/{raw}/preview", json={"labels": {"nose": 1}})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "edit")
    assert shared.client.post(f"/v1/heads/{'0' * 16}/preview", json={}).status_code == 404


def test_newer_preview_replaces_a_waiting_one(shared: Running) -> None:
    head = shared.make()
    shared.ended(head)
    blocker = shared.make(model="slow")
    shared.working(blocker)
    with ThreadPoolExecutor(3) as pool:

        def look(yaw: int) -> int:
            with shared.connect() as client:
                body = {"yaw": yaw, "stream": "view"}
                return client.post(f"/v1/heads/{head}/preview", json=body).status_code

        asked = [pool.submit(look, yaw) for yaw in (1, 2, 3)]
        # The worker is taken by the blocker, so of three requests two are answered before any is drawn.
        codes: list[int] = []
        while len(codes) < 2:
            codes = [one.result() for one in asked if one.done()]
        assert codes == [409, 409]
        shared.client.post(f"/v1/jobs/{blocker}/cancel")
        assert sorted(one.result() for one in asked) == [200, 409, 409]


def test_models_are_described_after_loading(shared: Running) -> None:
    shared.ended(shared.make())
    models = {model["name"]: model for model in shared.client.get("/v1/models").json()["models"]}
    assert models["default"]["loaded"]
    assert models["default"]["licence"] == "CC0-1.0"
    assert models["default"]["labels"] == {"age": [18.0, 90.0, 35.0], "smile": [0.0, 1.0, 0.0]}
    health = shared.health()
    assert health["memory"]["worker"] > 0
    assert (health["device"], health["model"], health["protocol"]) == ("cpu", "default", 1)


def test_unload_ends_the_worker_and_the_next_job_starts_one(shared: Running) -> None:
    shared.ended(shared.make())
    assert shared.client.post("/v1/unload").status_code == 200
    assert (shared.health()["state"], shared.health()["worker_pid"]) == ("unloaded", None)
    assert shared.ended(shared.make())["state"] == "done"
