"""Cameras: conventions of the world frame, rays and projection are inverse to each other."""

from __future__ import annotations

import pytest
import torch

from geoinv_core import camera


def test_orbit_follows_the_conventions() -> None:
    position = lambda c: c[:16].view(4, 4)[:3, 3]  # noqa: E731
    assert torch.allclose(position(camera.orbit()), torch.tensor([0.0, 0.0, camera.RADIUS]), atol=1e-6)
    assert position(camera.orbit(yaw=30))[0] > 0
    assert position(camera.orbit(pitch=20))[1] > 0


def test_rays_and_projection_are_inverse() -> None:
    views = torch.stack([camera.orbit(20, 10, roll=15), camera.orbit(-100, -30, focal=3)])
    origins, directions = camera.rays(views, 9)
    distance = torch.rand(2, 81) + 1
    at, depth = camera.project(views, origins + directions * distance[..., None])
    centre = (torch.arange(9) + 0.5) / 9
    expected = torch.stack(torch.meshgrid(centre, centre, indexing="xy"), -1).reshape(81, 2)
    assert torch.allclose(at, expected.expand(2, 81, 2), atol=1e-5)
    assert torch.allclose(depth, distance, atol=1e-5)


def test_crop_moves_the_picture() -> None:
    view = camera.orbit(10, 5)[None]
    points = torch.randn(1, 20, 3, generator=torch.Generator().manual_seed(0)) * 0.1
    at, _ = camera.project(view, points)
    inside, _ = camera.project(camera.crop(view, torch.tensor([0.5]), torch.tensor([[0.4, 0.6]])), points)
    assert torch.allclose(inside, (at - torch.tensor([0.4, 0.6])) / 0.5 + 0.5, atol=1e-5)


def test_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="25 numbers"):
        camera.unpack(torch.zeros(24))
