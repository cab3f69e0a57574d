"""E0, the global encoder: a face crop to the latent code, the camera and the labels of the head in it.

After E3DGE (arXiv 2212.07409, section 3.1): codes are predicted as offsets from the generator's mean. Here
the generator is labelled, so the network first says what the head is (z, c: standardised shape axes and
labels), the generator's own mapping turns that into w, and small per-layer offsets add what labels cannot
say.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from geoinv_core import camera as cameras
from geoinv_core.heads.layout import LabelLayout

INPUT = 128
"""Side of the picture the network looks at, pixels."""


@dataclass(frozen=True)
class EncoderConfig:
    """Widths and sizes; the layout says what the label outputs mean."""

    z_dim: int
    c_dim: int
    num_ws: int
    w_dim: int
    groups: list[tuple[int, int]]
    """[start, stop) of the mutually exclusive entries of c (skin, hair, eyes, brow)"""
    widths: tuple[int, ...] = (48, 64, 128, 256, 320)
    hidden: int = 768

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> EncoderConfig:
        data: dict[str, Any] = json.loads(text)
        data["groups"] = [tuple(g) for g in data["groups"]]
        data["widths"] = tuple(data["widths"])
        return cls(**data)

    @classmethod
    def of(cls, layout: LabelLayout, num_ws: int, w_dim: int, **sizes: Any) -> EncoderConfig:
        """The configuration for a generator with these labels and styles."""
        names = layout.names
        groups = []
        for kind in layout.choices:
            indices = [i for i, name in enumerate(names) if name.startswith(kind + ":")]
            groups.append((indices[0], indices[-1] + 1))
        return cls(layout.z_dim, len(names), num_ws, w_dim, groups, **sizes)


@dataclass
class Encoded:
    """What the encoder says about a batch of crops."""

    z: Tensor
    """[B, z_dim]"""
    c: Tensor
    """[B, c_dim] standardised; the exclusive groups hold probabilities, standardised alike"""
    logits: Tensor
    """[B, c_dim] the same before the softmax of the groups"""
    delta: Tensor
    """[B, num_ws, w_dim] offsets from the mapped code"""
    pose: Tensor
    """[B, 6] yaw, pitch, roll (radians), log of the crop's side and its centre (image widths of the orbit
    camera)"""
    camera: Tensor
    """[B, 25]"""
    spread: Tensor
    """[B, c_dim] predicted standard deviation of c"""


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.skip = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if stride > 1 or inputs != outputs
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.second(torch.relu(self.norm1(self.first(x)))))
        return torch.relu(y + self.skip(x))


class Encoder(nn.Module):
    """See the module's docstring."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        stem, *widths = config.widths
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 5, 2, 2, bias=False), nn.BatchNorm2d(stem), nn.ReLU())
        blocks: list[nn.Module] = []
        for inputs, outputs in zip([stem, *widths], widths, strict=False):
            blocks += [_Residual(inputs, outputs, 2), _Residual(outputs, outputs, 1)]
        self.blocks = nn.Sequential(*blocks)
        side = INPUT // 2 ** (len(widths) + 1)
        self.squeeze = nn.Conv2d(widths[-1], 64, 1)
        self.trunk = nn.Sequential(nn.Linear(64 * side * side + widths[-1], config.hidden), nn.ReLU())
        self.z = nn.Linear(config.hidden, config.z_dim)
        self.c = nn.Linear(config.hidden, 2 * config.c_dim)
        self.pose = nn.Linear(config.hidden, 6)
        # Offsets live in a small space: what labels cannot say is little, and a full matrix would overfit.
        last = nn.Linear(64, config.num_ws * config.w_dim)
        self.delta = nn.Sequential(nn.Linear(config.hidden, 64), last)
        for head in (self.pose, last):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def features(self, image: Tensor) -> Tensor:
        """image [B, 3, S, S] in [-1, 1], any S, to [B, hidden]."""
        if image.shape[-1] != INPUT:
            image = interpolate(image, size=(INPUT, INPUT), mode="bilinear", antialias=True)
        x = self.blocks(self.stem(image))
        hidden: Tensor = self.trunk(torch.cat([self.squeeze(x).flatten(1), x.mean((2, 3))], 1))
        return hidden

    def forward(self, image: Tensor) -> Encoded:
        """image: float32 [B, 3, S, S] sRGB in [-1, 1], an upright FFHQ-like crop (see `photo.align`)."""
        hidden = self.features(image)
        with torch.autocast(image.device.type, enabled=False):  # cameras and labels want full precision
            hidden = hidden.float()
            logits, log_spread = self.c(hidden).chunk(2, 1)
            pose = self.pose(hidden)
            delta = self.delta(hidden).unflatten(1, (self.config.num_ws, self.config.w_dim))
            c = self.probabilities(logits)
            spread = log_spread.clamp(-5, 3).exp()
            return Encoded(self.z(hidden), c, logits, delta, pose, camera_of(pose), spread)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Replace the exclusive groups by standardised probabilities (entry = p / 0.5)."""
        c = logits.clone()
        for start, stop in self.config.groups:
            c[:, start:stop] = torch.softmax(logits[:, start:stop], 1) / 0.5
        return c


def camera_of(pose: Tensor) -> Tensor:
    """The camera of a crop, differentiable.

    Args:
        pose: [B, 6]: yaw, pitch, roll in radians, log side and centre offset of the crop in image widths of
            the orbit camera (radius 2.7, focal 4.2647), after the roll.
    Returns: [B, 25].
    """
    yaw, pitch, roll, log_side, x, y = pose.unbind(1)
    pitch = pitch.clamp(-1.4, 1.4)
    position = (
        torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()], 1) * cameras.RADIUS
    )
    forward = -position / cameras.RADIUS
    up = torch.tensor([0.0, 1.0, 0.0], device=pose.device).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=1)
    down = torch.linalg.cross(forward, right)
    cos, sin = roll.cos()[:, None], roll.sin()[:, None]
    cam2world = torch.zeros(len(pose), 4, 4, device=pose.device)
    cam2world[:, :3, 0] = right * cos + down * sin
    cam2world[:, :3, 1] = down * cos - right * sin
    cam2world[:, :3, 2] = forward
    cam2world[:, :3, 3] = position
    cam2world[:, 3, 3] = 1
    K = cameras.intrinsics().to(pose.device).expand(len(pose), 3, 3)
    return cameras.crop(cameras.pack(cam2world, K), log_side.exp(), 0.5 + torch.stack([x, y], 1))


def pose_of(yaw: Tensor, pitch: Tensor, matrix: Tensor) -> Tensor:
    """The inverse for training: the pose of a crop of an orbit camera's picture.

    Args:
        yaw, pitch: [B] radians of the orbit camera.
        matrix: [B, 2, 3] similarity from its picture (image widths) to the crop (crop widths).
    Returns: [B, 6] as `camera_of` takes it.
    """
    a, b = matrix[:, 0, 0], matrix[:, 1, 0]
    scale, angle = torch.sqrt(a * a + b * b), torch.atan2(b, a)
    # The camera rolls by -angle, so its picture turns by +angle about the principal point; then it is
    # cropped.
    # The crop's centre follows from where the principal point lands.
    principal = matrix[:, :, :2].sum(2) * 0.5 + matrix[:, :, 2]
    x, y = ((0.5 - principal) / scale[:, None]).unbind(1)
    return torch.stack([yaw, pitch, -angle, -torch.log(scale), x, y], 1)
