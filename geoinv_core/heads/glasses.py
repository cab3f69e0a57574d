"""Frames of glasses, fitted to a head: two rims, a bridge and two temples, as tubes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

SHAPES = {"round": 2.0, "square": 4.5}
"""The exponent of the superellipse that a rim follows."""
_SIDES, _THICK = 6, 0.022


def frame(
    left: Tensor, right: Tensor, brow: float, ears: tuple[Tensor, Tensor], shape: str
) -> tuple[Tensor, Tensor]:
    """Vertices [V, 3] and triangles int64 [T, 3] of a frame.

    Args:
        left, right: middles of the eyeballs [3] (the subject's); brow: z that the rims stay in front of;
        ears: where the temples end, left and right [3].
    Units are decimetres.
    """
    apart = float((left - right).norm())
    half = 0.46 * apart, (0.40 if shape == "round" else 0.33) * apart
    z = max(float(left[2] + right[2]) / 2 + 0.24, brow + 0.03)
    turn = torch.linspace(0, 2 * math.pi, 41)[:-1]
    power = 2 / SHAPES[shape]
    outline = torch.stack(
        [
            half[0] * turn.cos().sign() * turn.cos().abs() ** power,
            half[1] * turn.sin().sign() * turn.sin().abs() ** power,
        ],
        1,
    )
    tubes = []
    ends = []
    for eye, side, ear in ((left, 1.0, ears[0]), (right, -1.0, ears[1])):
        rim = torch.zeros(len(turn), 3)
        rim[:, 0] = eye[0].cpu() + side * 0.02 * apart + outline[:, 0]
        rim[:, 1] = eye[1].cpu() - 0.06 * apart + outline[:, 1]
        # Rims follow the face: the outer edge lies further back.
        rim[:, 2] = z - 0.35 * (outline[:, 0] * side).clamp_min(0) ** 2 / half[0]
        tubes.append((rim, True))
        outer = torch.stack(
            [
                eye[0].cpu() + side * (half[0] + 0.03 * apart),
                eye[1].cpu() + 0.1 * half[1],
                torch.tensor(z - 0.35 * half[0]),
            ]
        )
        wide = torch.stack([0.9 * ear[0].cpu(), outer[1], outer[2] - 0.35])
        behind = ear.cpu() * torch.tensor([0.9, 1.0, 1.0]) + torch.tensor([0.0, 0.12, -0.1])
        tubes.append((torch.stack([outer, wide, behind]), False))
        ends.append(
            torch.stack(
                [eye[0].cpu() - side * (half[0] - 0.02 * apart), eye[1].cpu() + 0.05 * apart, torch.tensor(z)]
            )
        )
    arch = (ends[0] + ends[1]) / 2 + torch.tensor([0.0, 0.04 * apart, 0.02])
    tubes.append((torch.stack([ends[0], arch, ends[1]]), False))
    vertices, triangles, start = [], [], 0
    for line, closed in tubes:
        v, t = _tube(line, _THICK, closed)
        vertices.append(v)
        triangles.append(t + start)
        start += len(v)
    return torch.cat(vertices).to(left), torch.cat(triangles).to(left.device)


def _tube(line: Tensor, radius: float, closed: bool) -> tuple[Tensor, Tensor]:
    n = len(line)
    if closed:
        along = line.roll(-1, 0) - line.roll(1, 0)
    else:
        along = torch.cat([line[1:2] - line[:1], line[2:] - line[:-2], line[-1:] - line[-2:-1]])
    along = normalize(along, dim=1)
    helper = torch.tensor([0.0, 0.0, 1.0]) if closed else torch.tensor([0.0, 1.0, 0.0])
    across = normalize(torch.linalg.cross(along, helper.expand(n, 3)), dim=1)
    third = torch.linalg.cross(along, across)
    angle = torch.arange(_SIDES) * (2 * math.pi / _SIDES)
    ring = across[:, None] * angle.cos()[:, None] + third[:, None] * angle.sin()[:, None]
    vertices = (line[:, None] + radius * ring).reshape(-1, 3)
    quads = []
    for i in range(n if closed else n - 1):
        a, b = i * _SIDES, (i + 1) % n * _SIDES
        for k in range(_SIDES):
            m = (k + 1) % _SIDES
            quads += [[a + k, a + m, b + k], [a + m, b + m, b + k]]
    return vertices, torch.tensor(quads)
