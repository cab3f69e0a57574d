"""What the add-on and the engine agree on: protocol number, address, stages. No bpy here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import Trouble

PROTOCOL = 1
"""The number that the engine must report; another number means another meaning of the routes."""

ADDRESS_FILE = "engine.json"
"""In the data folder: where the living engine listens, written by the engine when it is ready."""

# Share of the whole wait that each stage takes, from runs on two CPU cores; only moves the bar.
STAGES: dict[str, tuple[str, float]] = {
    "load": ("Loading the model", 0.10),
    "detect": ("Finding the face", 0.05),
    "encode": ("Encoding the photo", 0.10),
    "refine": ("Refining", 0.15),
    "surface": ("Making the surface", 0.25),
    "texture": ("Baking the texture", 0.25),
    "shapes": ("Making shape keys", 0.05),
    "save": ("Saving", 0.05),
}


def overall(stage: str, fraction: float) -> float:
    """Fraction of the whole job in [0, 1] when `stage` is `fraction` done. Unknown stages count as 0."""
    done = 0.0
    for name, (_title, share) in STAGES.items():
        if name == stage:
            return done + share * min(max(fraction, 0.0), 1.0)
        done += share
    return 0.0


@dataclass(frozen=True)
class Address:
    """Where one engine listens, and the key to it."""

    host: str
    port: int
    token: str
    pid: int
    protocol: int
    version: str

    @classmethod
    def parse(cls, said: Mapping[str, Any]) -> Address:
        """From the engine's ready line or engine.json. Trouble when it is not one, or not this computer's."""
        try:
            found = re.fullmatch(r"http://([^/:]+):(\d+)/?", str(said["url"]))
            if found is None or found[1] not in ("127.0.0.1", "localhost"):
                raise ValueError(said["url"])
            return cls(
                host=found[1],
                port=int(found[2]),
                token=str(said["token"]),
                pid=int(said["pid"]),
                protocol=int(said["protocol"]),
                version=str(said["version"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Trouble(
                f"The engine gave an address that cannot be used ({error}): start it again, "
                "and if that does not help install the engine anew.",
                code="address",
            ) from error


def read_address(data: Path) -> Address | None:
    """The address that the last engine of this data folder left, or None when there is none to use."""
    try:
        return Address.parse(json.loads((data / ADDRESS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, Trouble):
        # A missing, half-written or foreign file only means that there is nothing to attach to.
        return None


def check_protocol(protocol: int, version: str) -> None:
    """Trouble unless the engine speaks this add-on's protocol."""
    if protocol != PROTOCOL:
        older = "engine" if protocol < PROTOCOL else "add-on"
        raise Trouble(
            f"The running engine (version {version}) speaks protocol {protocol} but this add-on speaks "
            f"{PROTOCOL}: stop that engine, then update the {older} so that both have the same version.",
            code="protocol",
            fix="geoinv.stop_engine",
        )
