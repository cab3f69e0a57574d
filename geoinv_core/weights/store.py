"""Generators on disk: safetensors with the configuration as JSON in the file's metadata.

A file holds every tensor of the state dict under its own name, float32 or float16, and the metadata keys
"geoinv" (format version), "config" (GeneratorConfig as JSON) and "meta" (free JSON: licence, source, labels).
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from geoinv_core.errors import ModelError, OutputError
from geoinv_core.generator.config import GeneratorConfig
from geoinv_core.generator.generator import TriplaneGenerator
from geoinv_core.generator.precision import Precision, set_precision
from geoinv_core.weights import memory

FORMAT = "1"
_DTYPES = {torch.float32: "F32", torch.float16: "F16"}
_EXACT = ("w_avg", "log_beta")
"""Tensors too delicate or too small to be worth storing in 16 bits."""


def save(
    generator: TriplaneGenerator, path: str | Path, meta: dict[str, Any] | None = None, half: bool = False
) -> Path:
    """Write a generator; the file appears under its name only when complete.

    Args:
        meta: anything JSON can hold; "licence", "source" and "labels" are shown to people.
        half: store as float16 (half the size; loading gives float32 again). Tensors
            with values beyond its range stay float32.
    Raises: OutputError if the folder cannot be written.
    """
    tensors = {name: packed(name, value, half) for name, value in generator.state_dict().items()}
    return write(tensors, generator.config, path, meta or {})


def write(
    tensors: Mapping[str, Tensor], config: GeneratorConfig, path: str | Path, meta: dict[str, Any]
) -> Path:
    """Write a state dict with its configuration, see save()."""
    header = {"geoinv": FORMAT, "config": config.to_json(), "meta": json.dumps(meta)}
    return write_tensors(tensors, Path(path), header)


def write_tensors(tensors: Mapping[str, Tensor], path: Path, header: dict[str, str]) -> Path:
    """Write a safetensors file, which appears only when complete.

    One tensor after the other, each asked for twice: a mapping that reads them from somewhere on demand never
    has more than one in memory, while the safetensors library copies all of them at once.

    Args: tensors: float32 or float16, contiguous. Raises: OutputError.
    """
    entries: dict[str, Any] = {"__metadata__": header}
    end = 0
    for name, value in tensors.items():
        start, end = end, end + value.numel() * value.element_size()
        entries[name] = {
            "dtype": _DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": [start, end]
        }  # fmt: skip
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for value in tensors.values():
                file.write(value.reshape(-1).numpy().data.cast("B"))
        partial.replace(path)
    except OSError as error:
        raise OutputError(
            f"The model could not be written to {path} ({error}); choose another folder."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def load(
    path: str | Path, device: str | torch.device = "cpu", precision: Precision = "auto"
) -> TriplaneGenerator:
    """Read a generator written by save() or convert().

    Args: precision: of super-resolution, see geoinv_core.generator.precision; "auto": float16 on CUDA.
    Returns: the generator in eval mode, its weights float32, on `device`.
    Raises: ModelError if the file is missing, damaged, not a GeoInv generator, or too large for the machine,
    or if the generator cannot calculate in that precision.
    """
    path = Path(path)
    config, _ = _header(path)
    memory.require(2 * path.stat().st_size, path.name)
    with torch.device("meta"):
        generator = TriplaneGenerator(config)
    expected = {name: value.shape for name, value in generator.state_dict().items()}
    with _open(path) as file:
        names = set(file.keys())
        wrong = sorted(set(expected) ^ names) or sorted(
            name for name in names if tuple(file.get_slice(name).get_shape()) != tuple(expected[name])
        )
        if wrong:
            raise ModelError(
                f"The model {path.name} does not fit its own description (first difference: {wrong[0]}); "
                "it was altered or half written, so convert or download it again."
            )
        state = {name: file.get_tensor(name).float() for name in names}
    generator = generator.to_empty(device=device)
    generator.load_state_dict(state)
    generator.reset_axes()
    set_precision(generator, precision)
    return generator.eval().requires_grad_(False)


def info(path: str | Path) -> dict[str, Any]:
    """What a model file says about itself, without reading its weights.

    Returns: name, config, meta, licence, parameters (count), bytes, sha256 of the file.
    Raises: ModelError as load().
    """
    path = Path(path)
    config, meta = _header(path)
    with _open(path) as file:
        count = sum(_product(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 -- no mapping
    return {
        "name": config.name,
        "config": json.loads(config.to_json()),
        "meta": meta,
        "licence": meta.get("licence", "unknown"),
        "parameters": count,
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
    }


def sha256(path: str | Path) -> str:
    """Hex digest of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def packed(name: str, value: Tensor, half: bool) -> Tensor:
    """A tensor as it is stored: contiguous, and float16 if wanted and harmless."""
    value = value.detach().cpu().contiguous()
    small = half and value.is_floating_point() and not name.endswith(_EXACT) and value.numel() > 1
    return value.half() if small and bool(value.abs().max() < 6e4) else value


def _open(path: Path) -> Any:
    try:
        return safe_open(str(path), framework="pt")
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"The file {path.name} is not a complete safetensors file ({error}); get it or convert it again."
        ) from error


def _header(path: Path) -> tuple[GeneratorConfig, dict[str, Any]]:
    if not path.is_file():
        raise ModelError(f"There is no model at {path}; check the name, or convert a checkpoint to it first.")
    if path.suffix.lower() in (".pkl", ".pt", ".pth", ".ckpt"):
        raise ModelError(
            f"{path.name} is a pickle, which could run code when opened; "
            f"make a safe copy with 'geoinv convert {path.name} -o model.safetensors' and use that."
        )
    with _open(path) as file:
        header = file.metadata() or {}
    if "geoinv" not in header or "config" not in header:
        raise ModelError(
            f"{path.name} holds weights but no description of a GeoInv generator; "
            "use a file made by 'geoinv convert' or 'geoinv train'."
        )
    if header["geoinv"] != FORMAT:
        raise ModelError(
            f"{path.name} was written in format {header['geoinv']}, this one reads {FORMAT}; update GeoInv."
        )
    try:
        config = GeneratorConfig.from_json(header["config"])
        meta = json.loads(header.get("meta", "{}"))
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"The description inside {path.name} is damaged ({error}); get the file again."
        ) from error
    return config, meta if isinstance(meta, dict) else {}


def _product(shape: Any) -> int:
    count = 1
    for side in shape:
        count *= int(side)
    return count
