"""Cameras: OpenCV cam2world (x right, y down, z forward) plus normalised intrinsics, as 25 numbers.

World frame: x right in the frontal image (the subject's left), y up, the face looks along +z.
A camera is a float32 tensor [..., 25]: the 4x4 cam2world row by row, then the 3x3 intrinsics row by row,
in units of the image width (focal 4.2647, principal point .5). Depth is distance along the unit ray.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

RADIUS = 2.7
FOCAL = 4.2647


def orbit(
    yaw: float = 0.0,
    pitch: float = 0.0,
    radius: float = RADIUS,
    focal: float = FOCAL,
    roll: float = 0.0,
    target: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Tensor:
    """Camera on a sphere about the origin, looking at the origin or at `target`.

    Args:
        yaw: degrees; positive moves the camera towards +x (the subject's left).
        pitch: degrees; positive moves it upwards. Must stay inside (-90, 90).
        radius: world units.
        focal: image widths.
        roll: degrees; positive turns the camera clockwise as seen by itself (the picture turns the other
            way).
        target: world point in the middle of the picture; the sphere stays about the origin, as EG3D's does.

    Returns: float32 [25].
    """
    y, p, r = (math.radians(v) for v in (yaw, pitch, roll))
    position = torch.tensor([math.sin(y) * math.cos(p), math.sin(p), math.cos(y) * math.cos(p)]) * radius
    ahead = torch.tensor(target) - position
    forward = ahead / ahead.norm()
    right = torch.linalg.cross(forward, torch.tensor([0.0, 1.0, 0.0]))
    right = right / right.norm()
    down = torch.linalg.cross(forward, right)
    right, down = right * math.cos(r) + down * math.sin(r), down * math.cos(r) - right * math.sin(r)
    cam2world = torch.eye(4)
    cam2world[:3, 0], cam2world[:3, 1], cam2world[:3, 2], cam2world[:3, 3] = right, down, forward, position
    return pack(cam2world, intrinsics(focal))


def intrinsics(focal: float = FOCAL, cx: float = 0.5, cy: float = 0.5) -> Tensor:
    """float32 [3, 3] in image widths."""
    return torch.tensor([[focal, 0.0, cx], [0.0, focal, cy], [0.0, 0.0, 1.0]])


def pack(cam2world: Tensor, K: Tensor) -> Tensor:
    """[..., 4, 4] and [..., 3, 3] to [..., 25]."""
    return torch.cat([cam2world.flatten(-2), K.flatten(-2)], -1)


def unpack(camera: Tensor) -> tuple[Tensor, Tensor]:
    """[..., 25] to cam2world [..., 4, 4] and intrinsics [..., 3, 3]."""
    if camera.shape[-1] != 25:
        raise ValueError(f"A camera has 25 numbers (cam2world, intrinsics), got {camera.shape[-1]}.")
    return camera[..., :16].unflatten(-1, (4, 4)), camera[..., 16:].unflatten(-1, (3, 3))


def rays(camera: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """One ray per pixel centre, row-major.

    Args:
        camera: [B, 25].
    Returns: origins [B, R*R, 3] and unit directions [B, R*R, 3], world units.
    """
    cam2world, K = unpack(camera)
    pixel = torch.arange(resolution, device=camera.device, dtype=camera.dtype)
    centre = pixel * (1 / resolution) + 0.5 / resolution
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    x, y = x.reshape(1, -1), y.reshape(1, -1)
    fx, fy, cx, cy, skew = (K[:, i, j].unsqueeze(1) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2), (0, 1)))
    X = (x - cx + cy * skew / fy - skew * y / fy) / fx
    Y = (y - cy) / fy
    ones = torch.ones_like(X)
    local = torch.stack([X, Y.expand_as(X), ones, ones], -1)
    # Through a point one unit ahead, not by rotation alone, and pixel centres as a product plus half a
    # pixel: this
    # rounds as EG3D does; the steep planes of its models turn a different last bit into 1e-4 of colour.
    ahead = (cam2world @ local.transpose(1, 2)).transpose(1, 2)[..., :3]
    directions = torch.nn.functional.normalize(ahead - cam2world[:, None, :3, 3], dim=-1)
    origins = cam2world[:, None, :3, 3].expand_as(directions)
    return origins, directions


def project(camera: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """World points to the picture.

    Args:
        camera: [B, 25]; points: [B, N, 3].
    Returns: pixel position [B, N, 2] in image widths (0..1 inside the picture), depth along the ray [B, N].
    """
    cam2world, K = unpack(camera)
    offset = points - cam2world[:, None, :3, 3]
    local = offset @ cam2world[:, :3, :3]
    z = local[..., 2:].clamp_min(1e-6)
    picture = (local / z) @ K.transpose(1, 2)
    return picture[..., :2], offset.norm(dim=-1)


def crop(camera: Tensor, scale: Tensor, centre: Tensor) -> Tensor:
    """The camera of a square part of the picture.

    Args:
        camera: [B, 25]; scale: [B] side of the part in image widths; centre: [B, 2] its middle in image
            widths.
    Returns: [B, 25], the same pose with focal length and principal point of the part.
    """
    cam2world, K = unpack(camera)
    one = torch.ones_like(scale)
    zero = torch.zeros_like(scale)
    offset = 0.5 - centre / scale[:, None]
    rows = [1 / scale, zero, offset[:, 0], zero, 1 / scale, offset[:, 1], zero, zero, one]
    return pack(cam2world, torch.stack(rows, 1).unflatten(1, (3, 3)) @ K)
