"""The real engine: one photo through server, worker and bundled model."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CHECKOUT = Path(__file__).parents[2]
PHOTO = CHECKOUT / "tests" / "data" / "head-900003.png"
MODEL = CHECKOUT / "geoinv_core" / "weights" / "default.safetensors"
pytestmark = pytest.mark.skipif(not MODEL.is_file(), reason="the bundled model is not in this checkout")


def test_a_photo_becomes_a_bundle_and_an_edit_another(start: Callable[..., Any]) -> None:
    server = start("--engine", "server.engine:CoreEngine")  # the last option wins
    first = server.send(PHOTO.read_bytes(), face_box=None, texture=256).raise_for_status().json()["id"]
    job = server.ended(first)
    assert job["state"] == "done", job["error"]
    assert {"mesh.npz", "albedo.png", "head.json", "photo.png"} <= set(job["files"])
    mesh = np.load(
        io.BytesIO(server.client.get(f"/v1/jobs/{first}/files/mesh.npz").raise_for_status().content)
    )
    assert "smile" in server.client.get("/v1/models").raise_for_status().json()["models"][0]["labels"]
    size = mesh["vertices"].max(0) - mesh["vertices"].min(0)
    assert 0.1 < size[2] < 0.5  # metres, Z up
    edit = server.ended(server.make(kind="edit", head=first, labels={"age": 70}, texture=256))
    assert edit["state"] == "done", edit["error"]
    head = json.loads(server.client.get(f"/v1/jobs/{edit['id']}/files/head.json").raise_for_status().content)
    assert head["labels"]["age"] == pytest.approx(70)
    look = server.client.post(f"/v1/heads/{first}/preview", json={"yaw": 20, "size": 96})
    assert look.raise_for_status().headers["content-type"] == "image/png"
