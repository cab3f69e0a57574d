"""Encoders on disk: safetensors with configuration and label layout as JSON in the file's metadata."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from geoinv_core.encoder.config import EncoderConfig
from geoinv_core.encoder.mirror import across
from geoinv_core.encoder.network import Encoder
from geoinv_core.errors import ModelError
from geoinv_core.heads.layout import LabelLayout

FORMAT = "1"


def save_encoder(
    encoder: Encoder, layout: LabelLayout, path: Path, meta: dict[str, Any], half: bool = False
) -> None:
    """Write an encoder; `half` stores float16, which loading widens again. The file appears only when
    complete."""
    tensors = {
        k: (v.half() if half and v.dtype == torch.float32 else v).contiguous()
        for k, v in encoder.state_dict().items()
    }
    header = {
        "geoinv-encoder": FORMAT,
        "config": encoder.config.to_json(),
        "layout": json.dumps(layout.to_json()),
        "meta": json.dumps(meta),
    }
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, str(partial), metadata=header)
    partial.replace(path)


def load_encoder(
    path: Path, device: str | torch.device = "cpu"
) -> tuple[Encoder, LabelLayout, dict[str, Any]]:
    """Read an encoder written by `save_encoder`: it (in eval mode), its labels, its meta data. Raises
    ModelError."""
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            if header.get("geoinv-encoder") != FORMAT:
                raise ModelError(
                    f"{path.name} is not an encoder of this version of GeoInv; train or download it again."
                )
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 -- safe_open is no mapping
        layout = LabelLayout.from_json(json.loads(header["layout"]))
        # older files do not say what a mirror does, which follows from the labels
        encoder = Encoder(replace(EncoderConfig.from_json(header["config"]), across=across(layout)))
        encoder.load_state_dict({k: v.float() if v.dtype == torch.float16 else v for k, v in tensors.items()})
    except FileNotFoundError as error:
        raise ModelError(f"The encoder {path} is missing; download the model again.") from error
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"The encoder {path.name} is damaged ({error}); download the model again."
        ) from error
    return encoder.to(device).eval().requires_grad_(False), layout, json.loads(header.get("meta", "{}"))
