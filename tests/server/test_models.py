"""The list of models: files in the data folder, with what they say of themselves before they are loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file


def test_licences_are_known_without_loading(start: Callable[..., Any], tmp_path: Path) -> None:
    server = start()
    folder = Path(server.data) / "models"
    folder.mkdir()
    header = {"geoinv": "1", "config": "{}", "meta": json.dumps({"licence": "non-commercial"})}
    save_file({"x": np.zeros(1, np.float32)}, folder / "ffhq.safetensors", header)
    save_file({"x": np.zeros(1, np.float32)}, folder / "ffhq.directions.safetensors", {})
    (folder / "broken.safetensors").write_bytes(b"\x00")
    found = server.client.get("/v1/models").raise_for_status().json()["models"]
    by_name = {Path(model["name"]).name: model for model in found}
    assert by_name.keys() == {"default", "ffhq.safetensors", "broken.safetensors"}
    assert by_name["ffhq.safetensors"]["licence"] == "non-commercial"
    assert by_name["ffhq.safetensors"]["encoder"] is False
    assert by_name["ffhq.safetensors"]["loaded"] is False
    assert by_name["broken.safetensors"]["licence"] is None
