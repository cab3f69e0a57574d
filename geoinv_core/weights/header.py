"""What model files say of themselves, read without torch: for lists of models."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

BUNDLED = Path(__file__).with_name("default.safetensors")
COMPANIONS = (".encoder", ".detail", ".directions", ".discriminator")
"""Endings of the names of files that lie beside a model and are none."""
_MAX_HEADER = 16 << 20


def encoder_beside(model: Path) -> Path:
    return model.with_name(model.stem + ".encoder.safetensors")


def detail_beside(model: Path) -> Path:
    return model.with_name(model.stem + ".detail.safetensors")


def directions_beside(model: Path) -> Path:
    return model.with_name(model.stem + ".directions.safetensors")


def discriminator_beside(model: Path) -> Path:
    return model.with_name(model.stem + ".discriminator.safetensors")


def metadata(path: Path) -> dict[str, str]:
    """The texts in a safetensors file's header; empty where the file is missing or something else."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            found = json.loads(file.read(length)) if length <= _MAX_HEADER else {}
    except (OSError, ValueError, struct.error):
        return {}
    texts = found.get("__metadata__", {}) if isinstance(found, dict) else {}
    return {str(k): str(v) for k, v in texts.items()} if isinstance(texts, dict) else {}


def about(name: str) -> dict[str, Any]:
    """licence (None where the file does not tell) and encoder (whether one lies beside it) of "default" or a
    model file."""
    path = BUNDLED if name == "default" else Path(name)
    try:
        meta = json.loads(metadata(path).get("meta", "{}"))
    except ValueError:
        meta = {}
    licence = meta.get("licence") if isinstance(meta, dict) else None
    told = None if licence is None else str(licence)
    return {"licence": told, "encoder": encoder_beside(path).is_file()}


def models_in(folder: Path) -> list[Path]:
    """The model files of a folder, by name."""
    return sorted(p for p in folder.glob("*.safetensors") if not p.stem.endswith(COMPANIONS))
