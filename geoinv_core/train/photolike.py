"""What stands between a drawn head and a photo of one: scenes behind it, things before it, cameras and files.

Everything is procedural, so no picture's licence matters. For the landmark network, one picture at a time:
harsher than `augment`, whose readers have to tell colours.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
F32 = NDArray[np.float32]
Random = np.random.Generator


def backgrounds(r: Random, count: int, size: int) -> Image:
    """Scenes [count, size, size, 3]: clouds of noise, gradients, polygons, stripes, checks, blobs."""
    return np.stack([_scene(r, size) for _ in range(count)])


def _scene(r: Random, size: int) -> Image:
    image = _noise(r, size)
    for _ in range(int(r.integers(0, 25))):
        _shape(r, image)
    kind = r.random()
    if kind < 0.25:  # stripes or checks, as of blinds, bricks, cloth
        x, y = np.meshgrid(np.arange(size), np.arange(size))
        turn, wave = r.uniform(0, math.pi), r.uniform(4, 50)
        u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
        pattern = np.sin(2 * math.pi * u / wave) * (
            np.sin(2 * math.pi * v / (wave * r.uniform(0.5, 2))) if kind < 0.12 else 1
        )
        image = image + (pattern > r.uniform(-0.5, 0.5))[..., None] * r.normal(0, 50, 3)
    elif kind < 0.4:  # dark spots in a light oval: what cascades mistake for faces
        middle = r.uniform(0.3, 0.7, 2) * size
        wide = r.uniform(0.15, 0.35) * size
        oval = (int(wide), int(wide * r.uniform(0.9, 1.5)))
        cv2.ellipse(image, _at(middle), oval, r.uniform(0, 180), 0, 360, _colour(r), -1, cv2.LINE_AA)
        for _ in range(int(r.integers(2, 6))):
            spot = middle + r.uniform(-0.6, 0.6, 2) * wide
            axes = (int(wide * r.uniform(0.05, 0.3)) + 1, int(wide * r.uniform(0.05, 0.2)) + 1)
            cv2.ellipse(image, _at(spot), axes, r.uniform(0, 180), 0, 360, _colour(r), -1, cv2.LINE_AA)
    if r.random() < 0.6:
        image = _f32(cv2.GaussianBlur(image, (0, 0), math.exp(r.uniform(-1, 2.2))))
    return np.clip(image, 0, 255).astype(np.uint8)


def _noise(r: Random, size: int) -> F32:
    """Octaves of smooth noise between two or three colours, float32 [size, size, 3] about 0..255."""
    image = np.full((size, size, 3), r.uniform(20, 235), np.float32) + r.normal(0, 25, 3).astype(np.float32)
    fall = r.uniform(0.4, 0.95)
    for level in range(7):
        n = 2 << level
        coarse = r.normal(0, 45 * fall**level, (n, n, 1)) * r.uniform(0.6, 1.2, 3) + r.normal(
            0, 12 * fall**level, (n, n, 3)
        )
        image += cv2.resize(coarse.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    return image


def _shape(r: Random, image: F32) -> None:
    size = image.shape[0]
    middle = r.uniform(-0.1, 1.1, 2) * size
    if r.random() < 0.5:
        axes = (int(r.uniform(2, 0.3 * size)), int(r.uniform(2, 0.3 * size)))
        thick = -1 if r.random() < 0.7 else int(r.integers(1, 6))
        cv2.ellipse(image, _at(middle), axes, r.uniform(0, 180), 0, 360, _colour(r), thick, cv2.LINE_AA)
    else:
        angles = np.sort(r.uniform(0, 2 * math.pi, int(r.integers(3, 7))))
        reach = r.uniform(0.05, 0.4) * size * r.uniform(0.4, 1, len(angles))
        corners = middle + np.stack([np.cos(angles), np.sin(angles)], 1) * reach[:, None]
        cv2.fillPoly(image, [corners.round().astype(np.int32)], _colour(r), cv2.LINE_AA)


def _f32(x: NDArray[Any]) -> F32:
    return np.asarray(x, np.float32)


def _at(p: NDArray[np.float64]) -> tuple[int, int]:
    return int(p[0]), int(p[1])


def _colour(r: Random) -> tuple[float, float, float]:
    c = np.clip(r.uniform(0, 255) + r.normal(0, 40, 3), 0, 255)
    return float(c[0]), float(c[1]), float(c[2])


def spoil(r: Random, square: Image, points: F32, scene: Image) -> Image:
    """Put things before a face: glasses, hats, beards, cards over half of it, hands and other blobs.

    Args:
        square: [S, S, 3]; points: [14, 2] pixels, as the landmark network orders them; scene: their texture.
    """
    image = square.copy()
    eyes, mouth, chin, crown = points[:2], points[2:4].mean(0), points[6], points[7]
    size = image.shape[0]
    across, down = eyes[0] - eyes[1], mouth - eyes.mean(0)
    length = float(max(np.linalg.norm(across), 0.6 * np.linalg.norm(down)))
    kind = r.random()
    if kind < 0.14:
        _glasses(r, image, eyes, length)
    elif kind < 0.22:  # a hat: all above a line over the brows
        up = crown - eyes.mean(0)
        edge = eyes.mean(0) + up * r.uniform(0.45, 0.8)
        side = np.array([-up[1], up[0]]) / max(float(np.linalg.norm(up)), 1e-3) * length * r.uniform(1.2, 2.2)
        _fill(
            r,
            image,
            np.stack([edge - side, edge + side, edge + side * 0.8 + up, edge - side * 0.8 + up]),
            scene,
        )
    elif kind < 0.32:  # a beard: from the cheeks around the mouth to the chin
        wide = across * r.uniform(0.6, 0.9)
        hair = np.stack(
            [
                mouth - wide - down * 0.3,
                mouth - wide * 0.35 - down * 0.2,
                mouth + wide * 0.35 - down * 0.2,
                mouth + wide - down * 0.3,
                chin + wide * 0.6,
                chin + down * r.uniform(0.05, 0.5),
                chin - wide * 0.6,
            ]
        )
        cover = np.zeros(image.shape[:2], np.float32)
        cv2.fillPoly(cover, [hair.round().astype(np.int32)], (1.0,))
        cv2.ellipse(cover, _at(mouth), (int(length * 0.3) + 1, int(length * 0.1) + 1), 0, 0, 360, (0.0,), -1)
        cover = _f32(cv2.GaussianBlur(cover, (0, 0), 3)) * float(r.uniform(0.4, 1))
        grain = r.normal(0, 14, (size, size, 1)) + np.array(_colour(r)) * r.uniform(0.1, 0.8)
        image = _mix(image, grain, cover)
    elif kind < 0.4:
        _half(r, image, eyes, down, across, scene)
    for _ in range(int(r.integers(1, 4)) if r.random() < 0.3 else 0):
        middle = r.uniform(0, 1, 2) * size
        angles = np.sort(r.uniform(0, 2 * math.pi, 6))
        reach = r.uniform(0.06, 0.22) * size
        _fill(
            r,
            image,
            middle + reach * np.stack([np.cos(angles), np.sin(angles) * r.uniform(0.4, 2)], 1),
            scene,
        )
    return image


def _glasses(r: Random, image: Image, eyes: F32, length: float) -> None:
    axes = (int(length * r.uniform(0.3, 0.45)) + 1, int(length * r.uniform(0.2, 0.4)) + 1)
    turn = math.degrees(math.atan2(*(eyes[0] - eyes[1])[::-1]))
    colour, thick = _colour(r) if r.random() < 0.4 else (20.0, 18.0, 16.0), int(r.integers(1, 4))
    dark = r.random() < 0.35
    for eye in eyes:
        cv2.ellipse(image, _at(eye), axes, turn, 0, 360, colour, -1 if dark else thick, cv2.LINE_AA)
    if dark:
        cv2.line(image, _at(eyes[0]), _at(eyes[1]), colour, thick)


def _half(r: Random, image: Image, eyes: F32, down: F32, across: F32, scene: Image) -> None:
    """A card, a door frame, a scarf: all of the face on one side of a line near its middle."""
    away, along = (across, down) if r.random() < 0.7 else (down, across)
    if away is across and r.random() < 0.5:
        away = -away
    length = float(max(np.linalg.norm(across), np.linalg.norm(down)))
    away, along = (v / max(float(np.linalg.norm(v)), 1e-3) * length for v in (away, along))
    edge = eyes.mean(0) + down * 0.5 + away * r.uniform(-0.1, 0.4)
    slant = away * r.normal(0, 0.15)
    near = (edge - along * r.uniform(1, 2.2) - slant, edge + along * r.uniform(1, 2.2) + slant)
    far = away * r.uniform(1, 2.5)
    _fill(r, image, np.stack([*near, near[1] + far, near[0] + far]), scene)


def _fill(r: Random, image: Image, corners: NDArray[np.float64], scene: Image) -> None:
    cover = np.zeros(image.shape[:2], np.float32)
    cv2.fillPoly(cover, [corners.round().astype(np.int32)], (1.0,))
    cover = _f32(cv2.GaussianBlur(cover, (0, 0), float(r.uniform(0.5, 2))))
    size = image.shape[0]
    paint = scene[:size, :size] if r.random() < 0.5 else np.broadcast_to(np.array(_colour(r)), image.shape)
    image[:] = _mix(image, paint, cover)


def _mix(image: Image, paint: NDArray[np.generic], cover: F32) -> Image:
    mixed = image + (np.asarray(paint, np.float32) - image) * cover[..., None]
    return np.clip(mixed, 0, 255).astype(np.uint8)


def photograph(r: Random, square: Image) -> Image:
    """Light, lens, sensor, file: gamma, cast, uneven light, saturation, blur, low resolution, noise, JPEG."""
    size = square.shape[0]
    curve = (np.arange(256, dtype=np.float32) / 255)[:, None] ** math.exp(r.uniform(-0.5, 0.5))
    curve = curve * math.exp(r.normal(0, 0.2)) * np.exp(r.normal(0, 0.08, 3))
    if r.random() < 0.5:
        curve = (curve - 0.5) * r.uniform(0.6, 1.4) + 0.5 + r.normal(0, 0.07)
    x = np.asarray(cv2.LUT(square, curve[None].astype(np.float32)), np.float32)
    if r.random() < 0.5:  # light from one side
        turn = r.uniform(0, 2 * math.pi)
        ramp = np.linspace(-1, 1, size, dtype=np.float32)
        x *= (1 + r.uniform(0, 0.5) * (ramp[None] * math.cos(turn) + ramp[:, None] * math.sin(turn)))[
            ..., None
        ]
    if r.random() < 0.7:
        share = 0.0 if r.random() < 0.25 else r.uniform(0.3, 1.5)
        grey = cv2.cvtColor(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        x = np.asarray(cv2.addWeighted(x, share, grey, 1 - share, 0), np.float32)
    if r.random() < 0.3:
        small = int(math.exp(r.uniform(math.log(20), math.log(size))))
        x = _f32(cv2.resize(x, (small, small), interpolation=cv2.INTER_AREA))
        smooth = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(r.integers(2))]
        x = _f32(cv2.resize(x, (size, size), interpolation=smooth))
    elif r.random() < 0.4:
        x = _f32(cv2.GaussianBlur(x, (0, 0), float(r.uniform(0.4, 2.2))))
    if r.random() < 0.15:
        n = int(r.integers(3, 10))
        kernel = np.zeros((n, n), np.float32)
        cv2.line(kernel, (0, int(r.integers(n))), (n - 1, int(r.integers(n))), (1.0,))
        x = _f32(cv2.filter2D(x, -1, kernel / kernel.sum()))
    if r.random() < 0.5:
        x = x + r.standard_normal((size, size, 3 if r.random() < 0.6 else 1), np.float32) * np.float32(
            r.uniform(0, 0.09)
        )
    out = np.clip(x * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)
    if r.random() < 0.35:
        _, data = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(r.integers(12, 95))])
        out = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return out
