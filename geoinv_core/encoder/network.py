"""E0, the global encoder: a face crop to the latent code, the camera and the labels of the head in it.

After E3DGE (arXiv 2212.07409, section 3.1): codes are predicted as offsets from the generator's mean. Here
the generator is labelled, so the network first says what the head is (z, c: standardised shape axes and
labels), the generator's own mapping turns that into w, and small per-layer offsets add what labels cannot
say. Expressions, landmarks and outline come from the close reading (see `close`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from geoinv_core import camera as cameras
from geoinv_core.encoder.brows import Brows, band_of, cut_band
from geoinv_core.encoder.cascade import Cascade
from geoinv_core.encoder.close import CloseReading, resized
from geoinv_core.encoder.config import INPUT, EncoderConfig
from geoinv_core.encoder.occlusion import Occlusion
from geoinv_core.errors import ModelError

_SURER = 3.0


@dataclass
class Encoded:
    """What the encoder says about a batch of crops."""

    z: Tensor
    """[B, z_dim]"""
    c: Tensor
    """[B, c_dim] standardised; choices hold probabilities, standardised alike"""
    logits: Tensor
    """[B, c_dim] the same before the softmax of the choices"""
    delta: Tensor
    """[B, num_ws, w_dim] offsets from the mapped code"""
    pose: Tensor
    """[B, 7] yaw, pitch, roll (radians), log of the crop's side and its centre (image widths of the orbit
    camera), log of the distance in units of the usual one; see `camera_of`"""
    camera: Tensor
    """[B, 25]"""
    spread: Tensor
    """[B, c_dim] predicted standard deviation of c"""
    pose_spread: Tensor | None = None
    """[B, 7] predicted standard deviation of the pose; None (like all below) without a close reading"""
    landmarks: Tensor | None = None
    """[B, 68, 2] iBUG landmarks in crop widths; may lie outside of 0..1"""
    landmark_spread: Tensor | None = None
    """[B, 68, 2] predicted standard deviation along x and y, crop widths"""
    outline: Tensor | None = None
    """[B, 1, 32, 32] logits of the head's mask"""
    occlusion: Tensor | None = None
    """[B, 1, 32, 32] logits of something lying in front of it; means nothing outside of the head"""


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
        self.close = CloseReading(config) if config.close else None
        self.occlusion = Occlusion(tuple(widths)) if config.occlusion else None
        self.cascade = Cascade() if config.cascade else None
        self.brows = Brows(len(config.brows)) if config.brows else None

    def features(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """image [B, 3, S, S] in [-1, 1], any S, to [B, hidden] and the maps of the stages, finest first."""
        x = self.stem(resized(image, INPUT))
        maps = []
        for k in range(0, len(self.blocks), 2):
            x = self.blocks[k + 1](self.blocks[k](x))
            maps.append(x)
        hidden: Tensor = self.trunk(torch.cat([self.squeeze(x).flatten(1), x.mean((2, 3))], 1))
        return hidden, maps

    def forward(self, image: Tensor) -> Encoded:
        """image: float32 [B, 3, S, S] sRGB in [-1, 1], an upright FFHQ-like crop (see `photo.align`)."""
        hidden, maps = self.features(image)
        sharp = resized(image, self.config.sharp)
        read = None if self.close is None else self.close(sharp, hidden, maps)
        with torch.autocast(image.device.type, enabled=False):  # cameras and labels want full precision
            hidden = hidden.float()
            logits, _ = self.c(hidden).chunk(2, 1)
            _, log_spread = self.c(hidden.detach()).chunk(
                2, 1
            )  # how sure it is must not disturb what it says
            pose = torch.cat([self.pose(hidden), hidden.new_zeros(len(hidden), 1)], 1)
            z = self.z(hidden)
            delta = self.delta(hidden).unflatten(1, (self.config.num_ws, self.config.w_dim))
            if read is not None:
                start, stop = self.config.expressions
                scalars = logits[:, :start]
                if read.form is not None:
                    z = z + read.form[:, : z.shape[1]]
                    scalars = scalars + read.form[:, z.shape[1] :]
                logits = torch.cat([scalars, read.units, logits[:, stop:]], 1)
                log_spread = torch.cat([log_spread[:, :start], read.log_spread, log_spread[:, stop:]], 1)
                pose = pose + read.pose
            c = self.probabilities(logits)
            out = Encoded(z, c, logits, delta, pose, camera_of(pose), log_spread.clamp(-5, 3).exp())
            if read is not None:
                out.pose_spread = read.pose_log_spread.clamp(-7, 1).exp()
                out.landmarks = read.landmarks
                spread = read.landmark_log_spread.clamp(-7, 1).exp()
                out.landmark_spread = spread[..., None].expand(-1, -1, 2)
                if self.cascade is not None:
                    out.landmarks, out.landmark_spread = self.cascade.settled(sharp.float(), read.landmarks)
                out.outline = read.outline
                self._read_brows(sharp.float(), out)
            if self.occlusion is not None:
                out.occlusion = self.occlusion(maps)
            return out

    def _read_brows(self, sharp: Tensor, out: Encoded) -> None:
        """Puts what the band around the eyes says, if it is read, in the place of what is said already."""
        if self.brows is None or out.landmarks is None:
            return
        at = list(self.config.brows)
        there = [at.index(self.config.across[i]) for i in at]
        band = cut_band(sharp, band_of(out.landmarks))
        (value, log_spread), (other, other_spread) = self.brows(band), self.brows(band.flip(3))
        value, log_spread = (value + other[:, there]) / 2, (log_spread + other_spread[:, there]) / 2
        out.c[:, at], out.logits[:, at], out.spread[:, at] = value, value, log_spread.exp()

    def first_landmarks(self, image: Tensor) -> Tensor:
        """[B, 68, 2] as the close reading alone finds them. Raises: ModelError without one."""
        if self.close is None:
            raise ModelError(
                "This encoder has no close reading, which finds the landmarks; train one with `geoinv train "
                "encoder`."
            )
        hidden, maps = self.features(image)
        found: Tensor = self.close(resized(image, self.config.sharp), hidden, maps).landmarks
        return found

    def probabilities(self, logits: Tensor) -> Tensor:
        """Replace every choice by standardised probabilities (entry = p / 0.5), made surer than they are: no
        generator knows a head with half a pair of glasses."""
        c = logits.clone()
        for choice in map(list, self.config.choices):
            c[:, choice] = torch.softmax(_SURER * logits[:, choice], 1) / 0.5
        return c


def camera_of(pose: Tensor) -> Tensor:
    """The camera of a crop, differentiable.

    Args:
        pose: [B, 7]: yaw, pitch, roll in radians, log side and centre offset of the crop in image widths of
            the orbit camera (radius 2.7, focal 4.2647), after the roll; log of the distance in units of that
            radius, with which the focal length grows. [B, 6]: at the usual distance.
    Returns: [B, 25].
    """
    yaw, pitch, roll, log_side, x, y = pose[:, :6].unbind(1)
    pitch = pitch.clamp(-1.4, 1.4)
    away = pose[:, 6].clamp(-1, 1).exp() if pose.shape[1] > 6 else torch.ones_like(yaw)
    outward = torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()], 1)
    position = outward * (cameras.RADIUS * away)[:, None]
    forward = -outward
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
    K = cameras.intrinsics().to(pose.device).repeat(len(pose), 1, 1)
    K[:, 0, 0], K[:, 1, 1] = cameras.FOCAL * away, cameras.FOCAL * away
    return cameras.crop(cameras.pack(cam2world, K), log_side.exp(), 0.5 + torch.stack([x, y], 1))


def pose_of(yaw: Tensor, pitch: Tensor, matrix: Tensor, away: Tensor | None = None) -> Tensor:
    """The inverse for training: the pose of a crop of an orbit camera's picture.

    Args:
        yaw, pitch: [B] radians of the orbit camera.
        matrix: [B, 2, 3] similarity from its picture (image widths) to the crop (crop widths).
        away: [B] its distance in units of the usual radius; its focal length is greater by as much. None: 1.
    Returns: [B, 7] as `camera_of` takes it.
    """
    a, b = matrix[:, 0, 0], matrix[:, 1, 0]
    scale, angle = torch.sqrt(a * a + b * b), torch.atan2(b, a)
    # The camera rolls by -angle, so its picture turns by +angle about the principal point; then it is
    # cropped.
    # The crop's centre follows from where the principal point lands.
    principal = matrix[:, :, :2].sum(2) * 0.5 + matrix[:, :, 2]
    x, y = ((0.5 - principal) / scale[:, None]).unbind(1)
    away = torch.ones_like(yaw) if away is None else away
    return torch.stack([yaw, pitch, -angle, -torch.log(scale), x, y, away.log()], 1)
