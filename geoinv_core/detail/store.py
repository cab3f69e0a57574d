"""Detail networks on disk: safetensors with their configuration in the file's metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from geoinv_core.detail.network import Detail, DetailConfig
from geoinv_core.errors import ModelError
from geoinv_core.weights.store import packed, write_tensors

FORMAT = "1"


def save_detail(network: Detail, path: Path, meta: dict[str, Any], half: bool = False) -> None:
    """Write a network; `half` stores float16, which loading widens again. Raises OutputError."""
    tensors = {name: packed(name, value, half) for name, value in network.state_dict().items()}
    header = {"geoinv-detail": FORMAT, "config": network.config.to_json(), "meta": json.dumps(meta)}
    write_tensors(tensors, path, header)


def load_detail(path: Path, device: str | torch.device = "cpu") -> tuple[Detail, dict[str, Any]]:
    """Read what `save_detail` wrote: the network (in eval mode) and its meta data. Raises ModelError."""
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            if header.get("geoinv-detail") != FORMAT:
                raise ModelError(
                    f"{path.name} is no detail network of this version of GeoInv; train or download it again."
                )
            tensors = {k: file.get_tensor(k).float() for k in file.keys()}  # noqa: SIM118 -- no mapping
        network = Detail(DetailConfig.from_json(header["config"]))
        network.load_state_dict(tensors)
    except FileNotFoundError as error:
        raise ModelError(f"The detail network {path} is missing; download the model again.") from error
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelError(
            f"The detail network {path.name} is damaged ({error}); download the model again."
        ) from error
    return network.to(device).eval().requires_grad_(False), json.loads(header.get("meta", "{}"))
