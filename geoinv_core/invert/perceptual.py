"""How alike two pictures look, by the features of a network, without a download.

Distances are those of LPIPS (Zhang et al. 2018) without its learned weights: features of several layers, each
pixel's vector brought to length 1, squared differences, means over pixels, summed over layers. The network is
the model's own discriminator where it was kept at conversion, else the bundled encoder; LPIPS itself serves
where a person has its weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, leaky_relu, normalize, pad

from geoinv_core.encoder import Encoder, load_encoder
from geoinv_core.encoder.config import INPUT
from geoinv_core.errors import ModelError
from geoinv_core.generator.layers import SQRT2, fir_filter
from geoinv_core.weights.header import BUNDLED, discriminator_beside, encoder_beside

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""Two pictures [B, 3, S, S] in [-1, 1] to one number; differentiable."""
DISCRIMINATOR = "geoinv-discriminator"
"""Metadata key of a converted discriminator's file."""


def measure_for(model: Path, device: torch.device, lpips: Sequence[Path] = ()) -> Perceptual:
    """The best measure at hand for a model file. Raises: ModelError for a damaged file."""
    if lpips:
        from geoinv_core.invert.lpips import load_lpips

        return load_lpips(lpips, device)
    beside = discriminator_beside(model)
    if beside.is_file():
        return discriminator_distance(load_discriminator(beside, device))
    encoder, _, _ = load_encoder(encoder_beside(BUNDLED), device)
    return encoder_distance(encoder)


def layers_apart(first: Iterable[Tensor], second: Iterable[Tensor]) -> Tensor:
    """Sum over layers of the mean squared difference of unit feature vectors."""
    parts = [
        (normalize(a, dim=1) - normalize(b, dim=1)).square().sum(1).mean()
        for a, b in zip(first, second, strict=True)
    ]
    return torch.stack(parts).sum()


def encoder_distance(encoder: Encoder) -> Perceptual:
    """By the bundled encoder's stages. It sees 128 pixels a side."""

    def layers(x: Tensor) -> list[Tensor]:
        if x.shape[-1] != INPUT:
            x = interpolate(x, size=(INPUT, INPUT), mode="bilinear", antialias=x.shape[-1] > INPUT)
        x = encoder.stem(x)
        found = [x]
        for block in encoder.blocks:
            x = block(x)
            found.append(x)
        return found

    return lambda a, b: layers_apart(layers(a), layers(b))


def load_discriminator(path: Path, device: torch.device) -> dict[str, Tensor]:
    """The convolutions of a discriminator that `convert` wrote. Raises: ModelError."""
    try:
        with safe_open(str(path), framework="pt", device=str(device)) as file:
            if DISCRIMINATOR not in (file.metadata() or {}):
                raise ModelError(f"{path.name} is no converted discriminator; convert the checkpoint again.")
            return {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 -- no mapping
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path.name} is damaged ({error}); convert the checkpoint again.") from error


def discriminator_distance(weights: Mapping[str, Tensor]) -> Perceptual:
    """By the residual blocks of StyleGAN2's discriminator (Karras et al. 2020), as EG3D's dual one has them:
    the picture and its blurred copy side by side, and for PanoHead a mask of ones."""
    sides = sorted({int(name.split(".")[0][1:]) for name in weights}, reverse=True)
    inputs = weights[f"b{sides[0]}.fromrgb.weight"].shape[1]

    def layers(x: Tensor) -> list[Tensor]:
        x = interpolate(x, size=(sides[0], sides[0]), mode="bilinear", antialias=x.shape[-1] > sides[0])
        x = torch.cat([x, x, x.new_ones(len(x), 1, *x.shape[2:])], 1)[:, :inputs]
        found = []
        for side in sides:
            block = {n.split(".", 1)[1]: w for n, w in weights.items() if n.startswith(f"b{side}.")}
            if "fromrgb.weight" in block:
                x = _layer(x, block, "fromrgb")
            skip = _conv(_lowpass(x, 1)[..., ::2, ::2], block["skip.weight"], 1)
            x = _layer(x, block, "conv0")
            x = _layer(_lowpass(x, 2), block, "conv1", stride=2)
            x = (x + skip) * math.sqrt(0.5)
            found.append(x)
        return found

    return lambda a, b: layers_apart(layers(a), layers(b))


def _layer(x: Tensor, block: Mapping[str, Tensor], name: str, stride: int = 1) -> Tensor:
    x = _conv(x, block[f"{name}.weight"], stride) + block[f"{name}.bias"][:, None, None]
    return leaky_relu(x, 0.2) * SQRT2


def _conv(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    padding = weight.shape[-1] // 2 if stride == 1 else 0  # a striding one gets its border from the low-pass
    return conv2d(x, weight / math.sqrt(weight[0].numel()), stride=stride, padding=padding)


def _lowpass(x: Tensor, border: int) -> Tensor:
    channels = x.shape[1]
    kernel = fir_filter().to(x).expand(channels, 1, 4, 4)
    return conv2d(pad(x, [border] * 4), kernel, groups=channels)
