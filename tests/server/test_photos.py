"""Photos and settings that cannot be used are refused at once, in one sentence, and leave nothing behind."""

from __future__ import annotations

import io
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from skimage.data import astronaut

from geoinv_core.photo import detect
from tests.server.conftest import Running, picture


def _declares(width: int, height: int) -> bytes:
    """A PNG that declares this size and has next to no pixels."""
    out = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(64)))):
        out += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return out


def portrait() -> bytes:
    out = io.BytesIO()
    Image.fromarray(astronaut()).crop((100, 0, 356, 256)).save(out, "JPEG", quality=90)
    return out.getvalue()


BAD = {
    "empty_file": (b"", 422),
    "not_an_image": (b"just some text, no picture at all", 415),
    "truncated": (picture(size=(400, 400))[:-900], 422),
    "too_large": (_declares(30_000, 30_000), 413),
    "too_small": (picture("PNG", (4, 4)), 422),
}


@pytest.mark.parametrize("code", BAD)
def test_bad_photos(shared: Running, code: str) -> None:
    data, status = BAD[code]
    before = len(list((shared.data / "jobs").iterdir()))
    files = {"photo": ("ünï côdé.jpg", data)}
    reply = shared.client.post("/v1/jobs", data={"settings": "{}"}, files=files)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert reply.json()["error"]["message"].endswith(".")
    assert len(list((shared.data / "jobs").iterdir())) == before
    assert shared.health()["state"] in {"ready", "starting", "busy", "unloaded"}


def test_no_face(shared: Running) -> None:
    reply = shared.client.post("/v1/jobs", files={"photo": ("grey.png", picture("PNG", (256, 256)))})
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "no_face")


def test_a_face_that_only_the_engine_can_tell_is_let_through(shared: Running) -> None:
    """Hair over half of it: the cascades doubt it, the landmark network does not."""
    covered = Image.fromarray(astronaut()[:300, 80:380])
    lock = [(85, 0), (200, 0), (160, 60), (147, 110), (128, 160), (105, 185), (75, 110)]
    ImageDraw.Draw(covered).polygon(lock, (70, 48, 35))
    out = io.BytesIO()
    covered.save(out, "PNG")
    assert not detect.find_faces(np.asarray(covered))
    reply = shared.client.post("/v1/jobs", files={"photo": ("covered.png", out.getvalue())})
    assert reply.status_code == 202, reply.text
    assert shared.ended(reply.json()["id"])["state"] == "done"


def test_face_marked_outside_the_photo(shared: Running) -> None:
    reply = shared.send(face_box=[100, 100, 200, 200])
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "face_box")


def test_a_face_is_found_and_a_batch_makes_a_job_of_each_photo(shared: Running) -> None:
    photos = [("photo", (f"{name}.jpg", portrait())) for name in "ab"]
    reply = shared.client.post(
        "/v1/jobs", data={"kind": "batch", "settings": '{"labels": {"age": 50}}'}, files=photos
    )
    assert reply.status_code == 202, reply.text
    batch = shared.ended(reply.json()["id"])
    assert (batch["state"], batch["title"], batch["message"]) == ("done", "2 photos", "2 of 2 photos done.")
    children = [shared.job(id) for id in batch["children"]]
    assert [(child["title"], child["state"], child["parent"]) for child in children] == [
        ("a.jpg", "done", batch["id"]),
        ("b.jpg", "done", batch["id"]),
    ]
    assert all(child["labels"]["age"] == 50 and "head.json" in child["files"] for child in children)
    assert shared.client.delete(f"/v1/jobs/{batch['id']}").status_code == 200
    assert [shared.client.get(f"/v1/jobs/{child['id']}").status_code for child in children] == [404, 404]


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"texture": "big"}, "settings"),
        ({"texture": 3}, "settings"),
        ({"colour": "red"}, "settings"),
        ({"labels": {"age": "old"}}, "settings"),
        ({"face_box": [9, 9, 1, 1]}, "settings"),
        ({"head": "0" * 16}, "settings"),
        ({"kind": "edit"}, "settings"),
        ({"kind": "edit", "head": "../../etc", "labels": {"age": 1}}, "settings"),
        ({"kind": "edit", "head": "0" * 16, "labels": {"age": 1}}, "no_head"),
        ({"model": "/nowhere/model.safetensors"}, "model"),
        ([], "settings"),
    ],
)
def test_bad_settings(shared: Running, settings: Any, code: str) -> None:
    photo = {"photo": ("a.jpg", picture())}
    reply = shared.client.post("/v1/jobs", data={"settings": json.dumps(settings)}, files=photo)
    assert reply.status_code in (404, 422)
    assert reply.json()["error"]["code"] == code
    assert reply.json()["error"]["message"].endswith(".")


@pytest.mark.parametrize("text", ["{", "NaN", '{"labels": {"age": NaN}}', "[" * 100_000])
def test_settings_that_are_no_json(shared: Running, text: str) -> None:
    reply = shared.client.post("/v1/jobs", data={"settings": text}, files={"photo": ("a.jpg", picture())})
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "settings")


def test_number_of_photos(shared: Running) -> None:
    two = [("photo", ("a.jpg", picture())), ("photo", ("b.jpg", picture()))]
    for files in ([], two):
        reply = shared.client.post("/v1/jobs", data={"settings": "{}"}, files=files or None)
        assert (reply.status_code, reply.json()["error"]["code"]) == (422, "photo_count")
