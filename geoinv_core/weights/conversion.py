"""Checkpoints of EG3D and PanoHead to GeoInv's model files, without running what they carry."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geoinv_core.errors import ModelError
from geoinv_core.generator.config import GeneratorConfig
from geoinv_core.generator.generator import TriplaneGenerator
from geoinv_core.generator.layers import fir_filter
from geoinv_core.progress import OnProgress, report
from geoinv_core.weights import memory
from geoinv_core.weights.describe import UnsupportedError, describe
from geoinv_core.weights.header import discriminator_beside
from geoinv_core.weights.pickle_reader import Network, network, open_checkpoint, printable
from geoinv_core.weights.pickle_values import Bag, StoredTensor
from geoinv_core.weights.store import packed, sha256, write, write_tensors

LICENCES = {
    "eg3d": "NVIDIA Source Code License for EG3D: non-commercial research and evaluation only",
    "panohead": "non-commercial research only, as PanoHead and the EG3D code it builds on are licensed",
}


@dataclass(frozen=True)
class Conversion:
    """What convert() found and did."""

    path: Path
    network: str
    """Which of the checkpoint's networks was taken."""
    family: str
    """"eg3d" or "panohead"."""
    licence: str
    config: GeneratorConfig
    found: tuple[str, ...]
    """Everything at the top of the checkpoint."""
    ignored: tuple[str, ...]
    """Tensors of that network that were left out."""
    parameters: int
    files: tuple[Path, ...]
    """Everything that was written, the generator first."""


def convert(
    source: str | Path,
    target: str | Path,
    which: str = "G_ema",
    half: bool = False,
    discriminator: bool = False,
    on_progress: OnProgress | None = None,
) -> Conversion:
    """Write a checkpoint's generator as safetensors, with its configuration and licence.

    Args:
        source: "network-snapshot-….pkl". target: the file to write; it appears only when complete.
        which: "G_ema" (the averaged weights, meant for use) or "G".
        half: store as float16.
        discriminator: also write the discriminator's convolutions, as TARGET.discriminator.safetensors, whose
            features serve `invert` as a measure of likeness.
    Raises: ModelError for anything that is no such checkpoint; OutputError when the target cannot be written.
    """
    source = Path(source)
    report(on_progress, "load", 0.0, f"Reading {source.name}")
    with open_checkpoint(source) as content:
        taken = network(content, which, source)
        try:
            config = describe(taken, source.stem)
        except (UnsupportedError, ValueError) as error:
            raise ModelError(
                f"{source.name} cannot be used, because {error}; use a checkpoint of EG3D or PanoHead."
            ) from error
        memory.require(2 * sum(t.nbytes for t in taken.tensors.values()), source.name)
        state, ignored = _select(taken, config, source, half, on_progress)
        critic = _discriminator(content, source, half) if discriminator else None
        found = tuple(_summary(key, value) for key, value in content.items())
        family = "panohead" if config.mask else "eg3d"
        licence = LICENCES[family]
        report(on_progress, "load", 0.9, "Writing the model")
        meta = {"licence": licence, "family": family, "source": source.name, "source_sha256": sha256(source)}
        path = write(state, config, target, meta | {"network": which, "ignored": ignored})
        files = [path]
        if critic is not None:
            header = {"geoinv-discriminator": "1", "meta": json.dumps(meta)}
            files.append(write_tensors(critic, discriminator_beside(path), header))
    report(on_progress, "load", 1.0, f"Wrote {path.name}")
    return Conversion(path, which, family, licence, config, found, tuple(ignored), state.count, tuple(files))


class _OnDemand(Mapping[str, Tensor]):
    """Tensors that stay in the checkpoint until each is written."""

    def __init__(self, stored: dict[str, StoredTensor], half: bool) -> None:
        self._stored, self._half = stored, half

    def __getitem__(self, name: str) -> Tensor:
        return packed(name, self._stored[name].read(), self._half)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def count(self) -> int:
        return sum(math.prod(t.shape) for t in self._stored.values())


def _discriminator(content: dict[str, Any], source: Path, half: bool) -> _OnDemand:
    """The residual blocks of network D; the layers that judge the whole picture are of no use here."""
    critic = network(content, "D", source)
    wanted = re.compile(r"b\d+\.(fromrgb|conv0|conv1|skip)\.(weight|bias)")
    found = {n: t for n, t in critic.tensors.items() if wanted.fullmatch(n) and not n.startswith("b4.")}
    sides = sorted({int(n.split(".")[0][1:]) for n in found}, reverse=True)
    parts = ("conv0.weight", "conv0.bias", "conv1.weight", "conv1.bias", "skip.weight")
    needed = [f"b{r}.{part}" for r in sides for part in parts]
    needed += [f"b{r}.fromrgb.{part}" for r in sides[:1] for part in ("weight", "bias")]
    for name in needed or ["b8.conv0.weight"]:
        value = found.get(name)
        if value is None or len(value.shape) != (1 if "bias" in name else 4) or not _numbers(value.read()):
            raise ModelError(
                f"The discriminator in {source.name} cannot be used, because its tensor {name} is missing "
                "or of another kind; convert without it."
            )
    return _OnDemand(found, half)


def _numbers(value: Tensor) -> bool:
    return value.is_floating_point() and bool(value.isfinite().all())


def _select(
    taken: Network, config: GeneratorConfig, source: Path, half: bool, on_progress: OnProgress | None
) -> tuple[_OnDemand, list[str]]:
    """The tensors that the rebuilt generator needs, checked one by one, and what is left over."""
    with torch.device("meta"):
        expected = {name: tuple(v.shape) for name, v in TriplaneGenerator(config).state_dict().items()}
    for name, shape in expected.items():
        tensor = taken.tensors.get(name)
        if tensor is None or tensor.shape != shape:
            state = "missing" if tensor is None else f"of shape {list(tensor.shape)} instead of {list(shape)}"
            raise ModelError(
                f"{source.name} cannot be used, because its tensor {name} is {state}; "
                "it seems to come from a changed version of EG3D or PanoHead."
            )
    result: dict[str, StoredTensor] = {}
    ignored: list[str] = []
    for index, (name, tensor) in enumerate(taken.tensors.items()):
        if index % 32 == 0:
            report(on_progress, "load", 0.8 * index / len(taken.tensors), "Reading weights")
        if name in expected:
            if not _numbers(tensor.read()):
                raise ModelError(
                    f"{source.name} cannot be used, because its tensor {name} holds no numbers; "
                    "get the checkpoint again."
                )
            result[name] = tensor
        elif name.endswith("resample_filter"):
            value = tensor.read()
            if value.shape != (4, 4) or not torch.allclose(value, fir_filter(), atol=1e-6):
                raise ModelError(
                    f"{source.name} cannot be used, because it resamples with an unusual filter ({name}); "
                    "use a checkpoint of EG3D or PanoHead."
                )
        else:
            ignored.append(name)
    return _OnDemand(result, half), ignored


def _summary(key: Any, value: Any) -> str:
    name = printable(str(key))
    return f"{name}: {printable(value.kind)}" if isinstance(value, Bag) else name
