"""LPIPS (Zhang et al. 2018) from weight files that a person brings; nothing is downloaded.

Needed are the convolutions of VGG16 or AlexNet under torchvision's names (features.0.weight ...) and LPIPS's
own linear weights (lin0.model.1.weight ...), together in one file or in two: .safetensors, or .pth / .pt
state dicts, which are read with weights_only=True.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d

from geoinv_core.errors import ModelError
from geoinv_core.invert.perceptual import Perceptual

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""What LPIPS takes off its pictures in [-1, 1], and divides them by."""
VGG16 = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Convolutions (index in torchvision's `features`) before each of the five outputs."""
ALEXNET = ((0,), (3,), (6,), (8,), (10,))
_MAX_BYTES = 2 << 30


def load_lpips(paths: Sequence[Path], device: torch.device) -> Perceptual:
    """The distance, mean over a batch. Raises: ModelError when something is missing, damaged or not LPIPS."""
    state: dict[str, Tensor] = {}
    for path in paths:
        state |= {name.removeprefix("net."): value.float().to(device) for name, value in _read(path).items()}
    first = state.get("features.0.weight")
    alex = first is not None and first.shape[-1] == 11
    stages = ALEXNET if alex else VGG16
    needed = [f"features.{i}.{part}" for stage in stages for i in stage for part in ("weight", "bias")]
    needed += [f"lin{k}.model.1.weight" for k in range(5)]
    missing = [name for name in needed if name not in state]
    if missing:
        raise ModelError(
            f"{', '.join(p.name for p in paths)}: no LPIPS weights, because {missing[0]} is missing; give "
            "torchvision's VGG16 (or AlexNet) state dict and LPIPS's own file of linear weights.",
            "lpips",
        )
    shift, scale = (torch.tensor(v, device=device)[:, None, None] for v in (SHIFT, SCALE))

    def layers(x: Tensor) -> list[Tensor]:
        x = (x - shift) / scale
        found: list[Tensor] = []
        for number, stage in enumerate(stages):
            if number and (not alex or number < 3):
                x = max_pool2d(x, 3 if alex else 2, 2)
            for i in stage:
                x = _convolution(x, state, i, alex)
            found.append(x)
        return found

    def distance(a: Tensor, b: Tensor) -> Tensor:
        parts = [
            conv2d((_unit(x) - _unit(y)).square(), state[f"lin{k}.model.1.weight"]).mean()
            for k, (x, y) in enumerate(zip(layers(a), layers(b), strict=True))
        ]
        return torch.stack(parts).sum()

    return distance


def _convolution(x: Tensor, state: Mapping[str, Tensor], index: int, alex: bool) -> Tensor:
    weight, bias = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
    stride, padding = ((4, 2) if index == 0 else (1, weight.shape[-1] // 2)) if alex else (1, 1)
    return conv2d(x, weight, bias, stride, padding).relu()


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ModelError(
                f"{path.name} is far larger than LPIPS weights are; give the right file.", "lpips"
            )
        if path.suffix == ".safetensors":
            return load_file(str(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"There is no file {path}; check the name.", "lpips") from error
    except (OSError, SafetensorError, RuntimeError, ValueError, pickle.UnpicklingError, EOFError) as error:
        raise ModelError(
            f"{path.name} holds no plain weights ({type(error).__name__}); give a state dict or safetensors.",
            "lpips",
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"{path.name} is no state dict of plain tensors; give one.", "lpips")
    return state
