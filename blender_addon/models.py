"""Model files as the artist chooses among them: names, licences, how fast they are. No bpy here."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from .errors import Trouble

BUNDLED = "default"
BUNDLED_LICENCE = "CC0-1.0"
COMPANIONS = (".encoder", ".detail", ".directions", ".discriminator")
"""Endings of the names of files that lie beside a model and are none."""
_MAX_HEADER = 16 << 20


@dataclass(frozen=True)
class ModelFacts:
    """One model. `name` is what the engine is told: "default" or a path."""

    name: str
    title: str
    licence: str
    slow: bool
    """It has no encoder, so heads take minutes of optimisation."""


def read_model(name: str) -> ModelFacts:
    """What a model file says of itself. Trouble when it is missing or no model of GeoInv."""
    if name in ("", BUNDLED):
        return ModelFacts(BUNDLED, "Bundled Model", BUNDLED_LICENCE, False)
    path = Path(name)
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length)) if length <= _MAX_HEADER else {}
        texts = header["__metadata__"]
        if "geoinv" not in texts or "config" not in texts:
            raise KeyError("geoinv")
        licence = str(json.loads(texts.get("meta", "{}")).get("licence") or "unknown")
    except OSError as error:
        raise Trouble(
            f"The model {path} cannot be read ({error.strerror}): choose it again.", "model"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise Trouble(
            f"{path.name} is no model of GeoInv: checkpoints of EG3D and PanoHead are converted first, with "
            "`geoinv convert FILE.pkl -o MODEL.safetensors`.",
            "model",
        ) from error
    encoder = path.with_name(path.stem + ".encoder.safetensors")
    return ModelFacts(str(path), path.stem, licence, not encoder.is_file())


def models_in(folder: Path) -> list[Path]:
    """The model files of a folder, by name."""
    return sorted(p for p in folder.glob("*.safetensors") if not p.stem.endswith(COMPANIONS))
