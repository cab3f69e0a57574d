"""Drawn pictures made to look like anybody's photos: crops, backgrounds, occluders, colour, blur, noise,
JPEG.

For batches on the way into the encoder and the local branch, which have to tell skin and hair colours: milder
than `photolike`, which teaches the landmark network to find a face under any light.
"""

from __future__ import annotations

import math
from typing import cast

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from geoinv_core import camera as cameras


def face_crop(landmarks: Tensor, camera: Tensor) -> Tensor:
    """The crop that `photo.align` makes, from true landmarks.

    Args:
        landmarks: [B, 4, 3] world: eyeball left, eyeball right, mouth left, mouth right (the subject's
            sides).
        camera: [B, 25].
    Returns: [B, 2, 3] similarity from the picture (image widths) to the crop (crop widths).
    """
    at, _ = cameras.project(camera, landmarks)
    left, right, mouth = at[:, 0], at[:, 1], at[:, 2:].mean(1)
    eyes = (left + right) / 2
    down = mouth - eyes
    across = left - right + torch.stack([down[:, 1], -down[:, 0]], 1)
    half = torch.maximum(2.0 * (left - right).norm(dim=1), 1.8 * down.norm(dim=1))
    centre = eyes + 0.1 * down
    axis = across / across.norm(dim=1, keepdim=True)
    rotation = torch.stack([axis, torch.stack([-axis[:, 1], axis[:, 0]], 1)], 1)
    linear = rotation / (2 * half)[:, None, None]
    return torch.cat([linear, 0.5 - linear @ centre[:, :, None]], 2)


def jitter(
    matrix: Tensor, generator: torch.Generator, shift: float = 0.03, scale: float = 0.07, turn: float = 4.0
) -> Tensor:
    """Disturb a crop as an imperfect detector would: shift and log-scale as standard deviations, turn in
    degrees."""
    B = len(matrix)
    draw = torch.randn(B, 4, generator=generator)
    angle = draw[:, 0] * math.radians(turn)
    gain = torch.exp(draw[:, 1] * scale)
    change = torch.stack(
        [torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)], 1
    )
    change = change * gain[:, None, None]
    middle = torch.full((B, 2, 1), 0.5)
    offset = middle - change @ middle + draw[:, 2:, None] * shift
    return torch.cat([change @ matrix[:, :, :2], change @ matrix[:, :, 2:] + offset], 2)


def resample(picture: Tensor, matrix: Tensor, size: int, padding: str = "border") -> Tensor:
    """Pictures [B, C, S, S] to crops [B, C, size, size] for similarities as `face_crop` returns them."""
    square = torch.cat([matrix, torch.tensor([[[0.0, 0.0, 1.0]]]).expand(len(matrix), 1, 3)], 1)
    # grid_sample wants crop -> picture, both in [-1, 1].
    to_unit = torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
    theta = torch.linalg.inv(to_unit) @ torch.linalg.inv(square) @ to_unit
    grid = affine_grid(theta[:, :2], [len(matrix), 1, size, size], align_corners=False)
    return grid_sample(picture, grid, padding_mode=padding, align_corners=False)


def backgrounds(count: int, size: int, generator: torch.Generator, pool: Tensor | None = None) -> Tensor:
    """Random backgrounds [count, 3, size, size] in 0..1: clouds of every scale, steps, and blurred pieces
    of `pool`."""
    result = torch.zeros(count, 3, size, size)
    for scale in (2, 5, 12, 40):
        noise = torch.randn(count, 3, scale, scale, generator=generator) * 0.25 + torch.randn(
            count, 1, scale, scale, generator=generator
        )
        weight = torch.rand(count, 1, 1, 1, generator=generator) ** 2 * 0.5
        result += weight * interpolate(noise, size=(size, size), mode="bicubic", align_corners=True)
    result += torch.rand(count, 3, 1, 1, generator=generator) * 1.2 - 0.1
    steps = torch.rand(count, 1, 1, 1, generator=generator) < 0.3
    result = torch.where(steps, (result * 3).round() / 3, result)
    if pool is not None:
        chosen = torch.randint(len(pool), (count,), generator=generator)
        piece = interpolate(
            interpolate(pool[chosen].flip(2), size=(24, 24), mode="area"), size=(size, size), mode="bilinear"
        )
        use = torch.rand(count, 1, 1, 1, generator=generator) < 0.25
        result = torch.where(use, piece, result)
    return result.clamp(0, 1)


def occluders(
    image: Tensor, generator: torch.Generator, share: float = 0.25, cards: float = 0.08
) -> tuple[Tensor, Tensor]:
    """Cover parts of some pictures [B, 3, S, S] with soft-edged ellipses and bars (hands, hats, hair, frames
    of glasses), and of fewer ones with cards, which may hide half a face.

    They are of one colour, grained, or show a piece of another picture, for hands look like faces.
    Returns: the pictures; how far each pixel is covered, [B, 1, S, S].
    """
    B, _, S, _ = image.shape

    def u(*size: int) -> Tensor:
        return torch.rand(*size, 1, 1, generator=generator)

    axis = torch.linspace(0, 1, S)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    card = u(B) < cards
    at = torch.where(card, u(2, B) * 0.8 + 0.1, u(2, B) * 1.2 - 0.1)
    radius = torch.where(card, u(2, B) * 0.3 + 0.1, u(2, B) * 0.2 + 0.03)
    angle = torch.where(card, torch.randn(B, 1, 1, generator=generator) * 0.3, u(B) * math.pi)
    dx, dy = x - at[0], y - at[1]
    along = (dx * angle.cos() + dy * angle.sin()) / radius[0]
    across = (dy * angle.cos() - dx * angle.sin()) / radius[1]
    bar = u(B) < 0.3
    reach = torch.where(bar, torch.maximum(along.abs() / 3, across.abs()), torch.hypot(along, across))
    reach = torch.where(card, torch.maximum(along.abs(), across.abs()), reach)
    use = (u(B) < share) | card
    cover = (((1 - reach) * torch.where(card, 8 + 40 * u(B), 8)).clamp(0, 1) * use)[:, None]
    grey = u(B, 1)
    colour = grey + (u(B, 3) - grey) * u(B, 1)
    plain = colour * (1 + 0.2 * u(B, 1) * torch.randn(B, 1, S, S, generator=generator))
    pieces = image.roll(1, 0).roll((S // 3, S // 4), (2, 3)).flip(3)
    fill = torch.where(u(B, 1) < 0.3, pieces, plain.clamp(0, 1))
    return image * (1 - cover) + fill * cover, cover


def photograph(image: Tensor, generator: torch.Generator) -> Tensor:
    """Colour, contrast, blur, low resolution, noise and JPEG, a random mix per picture; [B, 3, S, S] in
    0..1."""
    B, _, S, _ = image.shape

    def u(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.rand(B, channels, 1, 1, generator=generator) * (high - low) + low

    def some(share: float) -> Tensor:
        return torch.rand(B, 1, 1, 1, generator=generator) < share

    image = image.clamp(0, 1) ** u(0.7, 1.4)
    image = image * u(0.9, 1.1, 3) * u(0.85, 1.15)
    grey = image.mean(1, keepdim=True)
    image = grey + (image - grey) * torch.where(some(0.05), torch.zeros(B, 1, 1, 1), u(0.7, 1.3))
    image = (image - 0.5) * u(0.7, 1.2) + 0.5
    small = interpolate(image, scale_factor=0.5, mode="bilinear", antialias=True)
    tiny = interpolate(image, scale_factor=0.25, mode="bilinear", antialias=True)
    blurred = interpolate(small, size=(S, S), mode="bilinear")
    blurrier = interpolate(tiny, size=(S, S), mode="bilinear")
    image = torch.where(some(0.35), image + (blurred - image) * u(0, 1), image)
    image = torch.where(some(0.08), blurrier, image)
    image = image + torch.randn(image.shape, generator=generator) * u(0, 0.04) * some(0.6)
    image = image.clamp(0, 1)
    for i in torch.nonzero(torch.rand(B, generator=generator) < 0.4)[:, 0].tolist():
        pixels = (image[i].permute(1, 2, 0).numpy()[..., ::-1] * 255).round().astype(np.uint8)
        quality = int(torch.randint(25, 92, (1,), generator=generator))
        packed = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        decoded = cast(
            "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", cv2.imdecode(packed, cv2.IMREAD_COLOR)
        )
        image[i] = torch.from_numpy(decoded[..., ::-1].copy()).permute(2, 0, 1).float() / 255
    return image
