"""The networks of the local branch: a picture to a feature map, and what sides know to changes of colour."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

from geoinv_core.detail.evidence import PICTURE_CHANNELS, Evidence

LIMIT = 4.0
"""Largest change of a colour, in logits."""
POOL = 2
"""The network sees texels in blocks of this size; differences themselves keep full resolution."""


@dataclass(frozen=True)
class DetailConfig:
    """Widths; `sides` names the sides that the networks know, in order."""

    sides: tuple[str, ...] = ("front", "back", "left", "right")
    features: int = 16
    picture_widths: tuple[int, ...] = (24, 48, 96)
    side_widths: tuple[int, ...] = (48, 72, 96)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> DetailConfig:
        data: dict[str, Any] = json.loads(text)
        lists = ("sides", "picture_widths", "side_widths")
        return cls(features=int(data["features"]), **{name: tuple(data[name]) for name in lists})


class _Block(nn.Module):
    """Two convolutions about a shortcut, group norm: batches are small."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.norm = nn.GroupNorm(8, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(torch.relu(self.norm(self.first(x))))
        return torch.relu(y + (x if self.skip is None else self.skip(x)))


def _silence(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class _Hourglass(nn.Module):
    """Down and up again with shortcuts; the last convolution begins at zero where `silent`."""

    def __init__(self, inputs: int, widths: Sequence[int], outputs: int, silent: bool = False) -> None:
        super().__init__()
        self.start = _Block(inputs, widths[0])
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(_Block(a, b, 2) for a, b in pairs)
        self.up = nn.ModuleList(_Block(a + b, a) for a, b in reversed(pairs))
        self.last = nn.Conv2d(widths[0], outputs, 1)
        if silent:
            _silence(self.last)

    def forward(self, x: Tensor) -> Tensor:
        kept = [self.start(x)]
        for layer in self.down:
            kept.append(layer(kept[-1]))
        x = kept.pop()
        for layer in self.up:
            beside = kept.pop()
            x = interpolate(x, size=beside.shape[-2:], mode="bilinear")
            x = layer(torch.cat([x, beside], 1))
        out: Tensor = self.last(x)
        return out


class _Heights(nn.Module):
    """What all sides know at one height, told to all of them: upright, they share their rows. The back of the
    hair gets its colour from the front, which the photo shows. Says nothing at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv1d(width, width, 5, padding=2) for _ in range(2))
        _silence(self.second)

    def forward(self, x: Tensor, sides: int) -> Tensor:
        """x [B S, C, R, R], S sides of a head next to each other, to [B S, C, R, 1]."""
        rows = torch.relu(x).unflatten(0, (-1, sides)).mean((1, 4))
        told = self.second(torch.relu(self.first(rows)))
        return torch.repeat_interleave(told, sides, 0)[..., None]


class Detail(nn.Module):
    """Evidence to changes of colour on the sides.

    A change is confidence times the photo's difference, plus a (lesser) confidence times that of the mirror
    image, plus scale times the head's own colour and shift: E3DGE's modulation of the colour path (its
    section 3.2), here per texel of the surface. All four begin at zero, so an untrained network changes
    nothing.
    """

    def __init__(self, config: DetailConfig) -> None:
        super().__init__()
        self.config = config
        self.picture = _Hourglass(PICTURE_CHANNELS, config.picture_widths, config.features)
        self.side = nn.Parameter(torch.zeros(len(config.sides), config.side_widths[0]))
        self.enter = nn.Conv2d(2 * (3 + 2 + config.features) + 3 + 3 + 1, config.side_widths[0], 1)
        self.heights = _Heights(config.side_widths[0])
        self.fuse = _Hourglass(config.side_widths[0], config.side_widths, 2 + 3 + 3, silent=True)

    def forward(self, evidence: Sequence[Evidence]) -> Tensor:
        """Changes of colour [B, S, 3, R, R] in logits of sRGB, upright."""
        maps = self.picture(torch.stack([e.picture for e in evidence]).float())
        at, seen, facing, difference, base, normals, inside = (
            torch.stack([getattr(e, name) for e in evidence]).float()
            for name in ("at", "seen", "facing", "difference", "base", "normals", "inside")
        )
        B, S, _, R, _ = base.shape
        pieces = []
        for k in (0, 1):  # as seen, and its mirror image
            where = avg_pool2d(at[:, k].flatten(0, 1), POOL).permute(0, 2, 3, 1)
            known = avg_pool2d(seen[:, k].flatten(0, 1), POOL)
            features = grid_sample(maps.repeat_interleave(S, 0), where, align_corners=False)
            apart = avg_pool2d((difference[:, k] * seen[:, k]).flatten(0, 1), POOL)
            angle = avg_pool2d(facing[:, k].flatten(0, 1), POOL)
            pieces += [apart, known, angle, features * known]
        pieces += [avg_pool2d(x.flatten(0, 1), POOL) for x in (base / 2, normals, inside)]
        x = self.enter(torch.cat(pieces, 1)) + self.side.repeat(B, 1)[:, :, None, None]
        x = x + self.heights(x, S)
        out = interpolate(self.fuse(x), size=(R, R), mode="bilinear").unflatten(0, (B, S))
        own, mirrored = out[:, :, 0:1] * seen[:, 0], out[:, :, 1:2] * seen[:, 1]
        scale, shift = out[:, :, 2:5], out[:, :, 5:8]
        change = own * difference[:, 0] + mirrored * difference[:, 1] + 0.25 * scale * base + shift
        return LIMIT * torch.tanh(change / LIMIT) * inside
