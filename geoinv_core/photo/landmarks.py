"""Where the points of a face are: a small network of our own, trained on synthetic heads only.

It sees a square of 128 pixels around a face and answers with fourteen points, how sure it is of each, the
head's turn, and whether there is a face at all. Points come from heat maps read by their expected position
(Sun et al. 2018, "Integral human pose regression"), uncertainties from a Laplace likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from geoinv_core.errors import ModelError
from geoinv_core.photo import align

SIZE = 128
GRID = 32
FILE = Path(__file__).with_name("landmarks.safetensors")

NAMES = (
    "eye_left", "eye_right", "mouth_left", "mouth_right", "nose_tip", "nasion", "chin", "crown", "ear_left",
    "ear_right", "eye_left_outer", "eye_left_inner", "eye_right_outer", "eye_right_inner",
)  # fmt: skip
"""Left and right are the subject's; eye_left and eye_right are the centres of the eyeballs."""

MIRROR = (1, 0, 3, 2, 4, 5, 6, 7, 9, 8, 12, 13, 10, 11)
"""Index of each point's counterpart in a mirrored picture."""

SEEK_SIDE = 320
"""`seek` looks at pictures of this short side, pixels."""
SEEK_SHARES = (1.0, 0.7, 0.5)
"""Sides of the squares it looks at, in short sides of the picture; they overlap by three quarters."""
SEEK_STARTS = 6
"""Squares, the most face-like, from which it goes on."""
SEEK_SCORE, SEEK_AGREE = 0.9, 3
"""A face is where as many of them end, each so sure: on pictures without a face none was surer than .81."""


class Prediction(NamedTuple):
    """What the network says about B squares."""

    points: Tensor
    """[B, 14, 2] in squares: (0, 0) top left, (1, 1) bottom right"""
    spread: Tensor
    """[B, 14] expected distance from the truth, in squares"""
    heat: Tensor
    """[B, 14, GRID, GRID] logits"""
    pose: Tensor
    """[B, 2] yaw and pitch of the camera about the head, degrees / 45"""
    face: Tensor
    """[B] logit of there being a face"""


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.second(leaky_relu(self.first(leaky_relu(x, 0.1)), 0.1))
        return x + change


class LandmarkNet(nn.Module):
    """Squares [B, 3, 128, 128], float32 in [-1, 1], to a Prediction. 0.7 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 24, 48, 80, 96)
        self.stem = nn.Conv2d(3, widths[0], 3, stride=2, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.blocks = nn.ModuleList(
            nn.Sequential(*(_Block(w) for _ in range(n)))
            for w, n in zip(widths[1:], (0, 1, 2, 1), strict=True)
        )
        self.up = nn.ModuleList(
            [nn.Conv2d(96, 80, 1), nn.Conv2d(80, 48, 3, padding=1), nn.Conv2d(48, 24, 3, padding=1)]
        )
        self.last = nn.Conv2d(24, 32, 3, padding=1)
        self.heat = nn.Conv2d(32, len(NAMES), 1)
        self.facts = nn.Sequential(nn.Linear(96 * 16, 64), nn.LeakyReLU(0.1), nn.Linear(64, len(NAMES) + 3))

    def forward(self, x: Tensor) -> Prediction:
        # Brightness and contrast are taken out here, so that they need not be learnt.
        mean = x.mean((1, 2, 3), keepdim=True)
        x = (x - mean) / (x.std((1, 2, 3), keepdim=True) + 0.1)
        x = leaky_relu(self.stem(x), 0.1)
        levels = []
        for down, block in zip(self.down, self.blocks, strict=True):
            x = block(down(leaky_relu(x, 0.1)))
            levels.append(x)
        facts = self.facts(leaky_relu(levels[3], 0.1).flatten(1)).float()
        x = levels[3]
        for up, level in zip(self.up, reversed(levels[:3]), strict=True):
            wider = interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = up(leaky_relu(wider, 0.1)) + level
        heat = self.heat(leaky_relu(self.last(leaky_relu(x, 0.1)), 0.1)).float()
        spread = facts[:, :-3].clamp(-7, 1).exp()
        return Prediction(expected(heat), spread, heat, facts[:, -3:-1], facts[:, -1])


def expected(heat: Tensor) -> Tensor:
    """Logits [B, N, G, G] to the mean position of their distribution, [B, N, 2] in squares."""
    g = heat.shape[-1]
    p = heat.flatten(2).softmax(-1).view_as(heat)
    at = (torch.arange(g, device=heat.device, dtype=heat.dtype) + 0.5) / g
    return torch.stack([(p.sum(2) * at).sum(-1), (p.sum(3) * at).sum(-1)], -1)


@dataclass(frozen=True)
class Landmarks:
    """The points of one face."""

    points: dict[str, tuple[float, float]]
    """All of NAMES, pixels of the picture."""
    spread: dict[str, float]
    """Expected error of each, pixels of the picture."""
    score: float
    """0..1, how surely this is a face."""
    yaw: float
    """Degrees; positive: the camera stands towards the subject's left."""
    pitch: float
    """Degrees; positive: the camera stands above."""

    def scaled(self, factor: float) -> Landmarks:
        """The same in a picture `factor` times as large."""
        points = {name: (x * factor, y * factor) for name, (x, y) in self.points.items()}
        spread = {name: s * factor for name, s in self.spread.items()}
        return Landmarks(points, spread, self.score, self.yaw, self.pitch)


@cache
def network() -> LandmarkNet:
    """The trained network, on the CPU. Raises: ModelError when its file is missing or damaged."""
    try:
        state = load_file(FILE)
        net = LandmarkNet()
        net.load_state_dict({name: value.float() for name, value in state.items()})
    except Exception as error:  # whatever is wrong with the file, the remedy is the same
        raise ModelError(
            f"The landmark network {FILE.name} is missing or damaged ({error}); install GeoInv again.",
            "landmarks",
        ) from error
    return net.eval().requires_grad_(False)


def squares(rgb: NDArray[np.uint8], matrices: list[NDArray[np.float64]]) -> Tensor:
    """Cut squares for the network: float32 [B, 3, 128, 128] in [-1, 1]."""
    cut = np.stack([align.resample(rgb, m, SIZE) for m in matrices])
    return torch.from_numpy(cut).permute(0, 3, 1, 2).float() / 127.5 - 1


def find(rgb: NDArray[np.uint8], centre: tuple[float, float], half: float, passes: int = 2) -> Landmarks:
    """The points of the face in a square of the picture, which need not be centred well nor upright.

    Each pass cuts an upright, centred square around what the pass before has found; the square and its mirror
    image are both looked at and averaged.

    Args:
        rgb: uint8 [H, W, 3] sRGB; centre, half: middle and half side of the square, pixels of the picture.
        passes: how often the square is improved after the first look.
    """
    net = network()
    middle, axis = np.array(centre, np.float64), np.array([half, 0.0])
    score = 1.0
    for step in range(passes + 1):
        matrix = align.matrix_of(middle, axis, SIZE)
        with torch.inference_mode():
            square = squares(rgb, [matrix])
            found = net(torch.cat([square, square.flip(3)]))
        mirrored = found.points[1, list(MIRROR)] * torch.tensor([-1.0, 1.0]) + torch.tensor([1.0, 0.0])
        points = ((found.points[0] + mirrored) / 2).double().numpy()
        spread = ((found.spread[0] + found.spread[1, list(MIRROR)]) / 2).double().numpy()
        score = min(score, float(found.face.sigmoid().mean())) if step else float(found.face.sigmoid().mean())
        picture = align.transform(align.invert(matrix), points * SIZE)
        if step < passes:
            middle, axis = align.crop_square(picture[:4])
            axis = axis * 1.1
    yaw, pitch = ((found.pose[0] + found.pose[1] * torch.tensor([-1.0, 1.0])) * 22.5).tolist()
    side = 2 * float(np.linalg.norm(axis))
    return Landmarks(
        {name: (float(x), float(y)) for name, (x, y) in zip(NAMES, picture, strict=True)},
        {name: float(s) * side for name, s in zip(NAMES, spread, strict=True)},
        score, yaw, pitch,
    )  # fmt: skip


def seek(rgb: NDArray[np.uint8]) -> Landmarks | None:
    """The face of a picture where no detector sees one, such as with hair over an eye; None without any.

    The network looks at overlapping squares, follows the most promising ones to where they lead, and must
    come to the same face from several, surely each time. Faces are found whose crop fills about half of the
    picture's short side.

    Args: rgb: uint8 [H, W, 3] sRGB.
    """
    shrink = min(1.0, SEEK_SIDE / min(rgb.shape[:2]))
    small = align.shrunk(rgb, shrink)
    starts = _starts(small.shape[1], small.shape[0])
    net, faces = network(), []
    for at in range(0, len(starts), 32):
        matrices = [align.matrix_of((x, y), (half, 0.0), SIZE) for x, y, half in starts[at : at + 32]]
        with torch.inference_mode():
            faces.append(net(squares(small, matrices)).face)
    best = torch.cat(faces).topk(min(SEEK_STARTS, len(starts))).indices.tolist()
    ends = [find(small, starts[i][:2], starts[i][2]) for i in best]
    sure = sorted((end for end in ends if end.score >= SEEK_SCORE), key=lambda e: e.score, reverse=True)
    for end in sure:
        if sum(_same_face(end, other) for other in sure) >= SEEK_AGREE:
            return end.scaled(1 / shrink)
    return None


def _starts(width: int, height: int) -> list[tuple[float, float, float]]:
    """Middle and half side of the squares that `seek` looks at first, pixels."""
    result = []
    for share in SEEK_SHARES:
        side = min(width, height) * share
        columns, rows = (round(4 * (length - side) / side) + 1 for length in (width, height))
        for y in np.linspace(side / 2, height - side / 2, rows):
            result += [
                (float(x), float(y), side / 2) for x in np.linspace(side / 2, width - side / 2, columns)
            ]
    return result


def _same_face(a: Landmarks, b: Landmarks) -> bool:
    (at, half), (other, width) = (
        align.crop_square(np.array([found.points[n] for n in align.POINTS])) for found in (a, b)
    )
    size, near = float(np.linalg.norm(half)), float(np.linalg.norm(at - other))
    return near < 0.2 * size and 0.8 < float(np.linalg.norm(width)) / size < 1.25
