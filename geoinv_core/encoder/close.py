"""The close reading of an encoder: landmarks, outline, and the expression from mouth and eyes.

Eyes and mouth are a few pixels of the crop but most of an expression, and the trunk's last map is too coarse
for them. So landmarks and the outline are found in the finer maps with all their places (the crop is aligned,
so a place is a feature of the face), mouth and eyes are cut out of the picture at the landmarks, and these
alone tell the expression: nothing else that the network has to learn disturbs it there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, interpolate

from geoinv_core.encoder.config import INPUT, LANDMARKS, OUTLINE, EncoderConfig

PATCH = 40
"""Side of what is cut out around mouth and eyes, pixels."""
# Crop widths; eyes are cut out _BROWS higher than they are, for the brows.
_MOUTH_SIDE, _EYE_SIDE, _BROWS = 0.32, 0.22, 0.025
_RIGHT, _LEFT = slice(36, 42), slice(42, 48)  # eyes among the landmarks
_SEEN = 96
_SHAPE = 8.0  # brings landmarks about their middle to about 1
_SPOT, _SPOT_SIDE = 16, 0.1  # what a landmark sees around it: pixels, crop widths
_REACH = 0.05  # crop widths; brings what it moves by to about 1
_ABOUT = 4.0  # brings landmarks about the crop's middle to about 1


@dataclass
class _Read:
    """What the close reading finds, float32."""

    units: Tensor
    log_spread: Tensor
    pose: Tensor
    pose_log_spread: Tensor
    landmarks: Tensor
    landmark_log_spread: Tensor
    outline: Tensor
    form: Tensor | None
    """[B, z_dim + labels before the expressions] what is added to them"""


class NearerLook(nn.Module):
    """Every landmark looks at the picture around the place where it was found, and moves a little.

    A regression from all of a map knows where a landmark usually is; where it is in this picture, only the
    picture says. As in cascaded regression, one network describes every place and each landmark reads it in
    its own way.
    """

    def __init__(self, fine: int, middle: int) -> None:
        super().__init__()
        self.describe = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 32, 3, 2, 1), nn.ReLU(), nn.Flatten()
        )
        self.shorten = nn.Linear(32 * (_SPOT // 4) ** 2 + fine + middle, 64)
        self.moves = nn.Parameter(torch.zeros(LANDMARKS, 64, 2))

    def forward(self, image: Tensor, maps: list[Tensor], places: Tensor) -> Tensor:
        """image [B, 3, S, S], maps of the trunk (finest first), places [B, 68, 2]: moves [B, 68, 2]."""
        spots = cut(image.float(), places, _SPOT_SIDE, _SPOT)
        around = [cut(x.float(), places, 0.0, 1)[..., 0, 0] for x in maps[:2]]
        told = torch.cat([self.describe(spots.flatten(0, 1)).unflatten(0, spots.shape[:2]), *around], 2)
        described = torch.relu(self.shorten(told)).float()
        return torch.einsum("blf,lfc->blc", described, self.moves) * _REACH


class CloseReading(nn.Module):
    """The finer maps, place by place, and the picture where it matters; see the module's docstring."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        fine, middle, coarse = config.widths[1:4]
        self.fine = nn.Conv2d(fine, 16, 3, 2, 1)
        self.middle = nn.Conv2d(middle, 32, 1)
        self.coarse = nn.Conv2d(coarse, 48, 1)
        side = INPUT // 8
        places = (16 + 32) * side**2 + 48 * (side // 2) ** 2
        self.look = nn.Sequential(nn.Linear(places + config.hidden, config.close), nn.ReLU())
        self.landmarks = nn.Linear(config.close, 3 * LANDMARKS)
        self.outline = nn.Linear(16 + 32 + 48, 1)
        self.mouth, self.eye = _patch_network(), _patch_network()
        units = config.expressions[1] - config.expressions[0]
        self.join = nn.Sequential(nn.Linear(3 * _SEEN + 2 * LANDMARKS, config.close), nn.ReLU())
        self.units, self.log_spread = nn.Linear(config.close, units), nn.Linear(config.close, units)
        self.pose = nn.Linear(config.close, 2 * 7)
        self.nearer = NearerLook(fine, middle) if config.nearer else None
        self.turn = _placed(config.close, 7) if config.nearer else None
        self.form = _placed(config.close, config.z_dim + config.expressions[0]) if config.form else None
        nn.init.zeros_(self.pose.weight)
        nn.init.zeros_(self.pose.bias)
        with torch.no_grad():  # points begin in the middle of the face, half its size unsure
            self.landmarks.weight.mul_(0.1)
            self.landmarks.bias[: 2 * LANDMARKS] = 0.5
            self.landmarks.bias[2 * LANDMARKS :] = -2.0
            self.pose.bias[7:] = -2.0

    def forward(self, image: Tensor, hidden: Tensor, maps: list[Tensor]) -> _Read:
        seen = [
            torch.relu(layer(x))
            for layer, x in zip((self.fine, self.middle, self.coarse), maps[:3], strict=True)
        ]
        look = self.look(torch.cat([*(x.flatten(1) for x in seen), hidden], 1))
        enlarged = [interpolate(x, size=(OUTLINE, OUTLINE), mode="bilinear") for x in seen]
        outline = self.outline(torch.cat(enlarged, 1).permute(0, 2, 3, 1)).float().permute(0, 3, 1, 2)
        with torch.autocast(hidden.device.type, enabled=False):
            look = look.float()
            places = self.landmarks(look)[:, : 2 * LANDMARKS].unflatten(1, (LANDMARKS, 2))
        if self.nearer is not None:
            places = places + self.nearer(image, maps, places.detach())
        mouth, right, left = patches(image.float(), places.detach())
        both = self.eye(torch.cat([right, left.flip(3)]))  # a left eye is a mirrored right one
        shape = (places - places.mean(1, keepdim=True)).detach().flatten(1) * _SHAPE
        read = self.join(torch.cat([self.mouth(mouth), *both.chunk(2), shape], 1))
        with torch.autocast(hidden.device.type, enabled=False):
            read = read.float()
            pose = self.pose(look)[:, :7]
            # whose face it is, as the look knows it, and where its landmarks are: so it is turned and formed
            found = torch.cat([((places.detach() - 0.5) * _ABOUT).flatten(1), look], 1)
            if self.turn is not None:
                pose = pose + self.turn(found)
            # How sure it is must not disturb what it says: no gradient goes back from the spreads.
            return _Read(
                self.units(read),
                self.log_spread(read.detach()),
                pose,
                self.pose(look.detach())[:, 7:],
                places,
                self.landmarks(look.detach())[:, 2 * LANDMARKS :],
                outline,
                None if self.form is None else self.form(found),
            )


def _placed(width: int, outputs: int) -> nn.Sequential:
    """Landmarks and the look at the crop to what they add to an answer, nothing at first."""
    last = nn.Linear(width, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(2 * LANDMARKS + width, width), nn.ReLU(), last)


def _patch_network() -> nn.Sequential:
    """[B, 3, PATCH, PATCH] to [B, _SEEN]."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs, stride in ((32, 2), (64, 2), (64, 1), (96, 2)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * (PATCH // 8) ** 2, _SEEN), nn.ReLU())


def resized(image: Tensor, side: int) -> Tensor:
    """Pictures [B, C, S, S] as [B, C, side, side], without aliasing: photos are sharper than what is trained
    on."""
    if image.shape[-1] == side:
        return image
    return interpolate(image, size=(side, side), mode="bilinear", antialias=True)


def patches(image: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mouth, right eye and left eye (the subject's), with their brows.

    Args: image: [B, 3, S, S]. landmarks: [B, 68, 2] crop widths.
    Returns: [B, 3, PATCH, PATCH] each; what lies beyond the picture repeats its border.
    """
    mouth = landmarks[:, 48:].mean(1)
    eyes = [landmarks[:, at].mean(1) - landmarks.new_tensor([0.0, _BROWS]) for at in (_RIGHT, _LEFT)]
    sides = (_MOUTH_SIDE, _EYE_SIDE, _EYE_SIDE)
    found = [
        cut(image, centre[:, None], side, PATCH)[:, 0]
        for centre, side in zip((mouth, *eyes), sides, strict=True)
    ]
    return found[0], found[1], found[2]


def cut(image: Tensor, centres: Tensor, side: float, pixels: int) -> Tensor:
    """Squares of a picture [B, C, S, S] about centres [B, N, 2]: [B, N, C, pixels, pixels].

    Centres and the side of a square in picture widths; what lies beyond the picture repeats its border.
    """
    axis = ((torch.arange(pixels, device=image.device, dtype=image.dtype) + 0.5) / pixels - 0.5) * side
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    at = centres[:, :, None, None] + torch.stack([x, y], -1)
    found = grid_sample(image, at.flatten(1, 2) * 2 - 1, padding_mode="border", align_corners=False)
    squares: Tensor = found.unflatten(2, (-1, pixels)).transpose(1, 2)
    return squares
