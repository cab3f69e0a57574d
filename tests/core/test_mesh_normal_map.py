"""A ball with ridges, meshed without them: the normal map has to bring them back."""

from __future__ import annotations

import numpy as np
import pytest

from geoinv_core.mesh.bake import texel_map
from geoinv_core.mesh.normal_map import normal_map
from geoinv_core.mesh.tangents import across, tangent_frames

RADIUS, HEIGHT, WAVES = 0.3, 0.004, 24


def ridged(points: np.ndarray) -> np.ndarray:
    """Distance to a ball whose surface waves along its meridians."""
    longitude = np.arctan2(points[:, 0], points[:, 2])
    return (np.linalg.norm(points, axis=1) - RADIUS - HEIGHT * np.cos(WAVES * longitude)).astype(np.float32)


def true_normals(points: np.ndarray) -> np.ndarray:
    across = points[:, 0] ** 2 + points[:, 2] ** 2
    outward = points / np.linalg.norm(points, axis=1, keepdims=True)
    turn = np.stack([points[:, 2], np.zeros(len(points)), -points[:, 0]], 1) / across[:, None]
    longitude = np.arctan2(points[:, 0], points[:, 2])
    slope = outward + HEIGHT * WAVES * np.sin(WAVES * longitude)[:, None] * turn
    return np.asarray(slope / np.linalg.norm(slope, axis=1, keepdims=True))


def patch(flipped: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The front of the ball between its polar regions, smooth; u runs with the longitude or against it."""
    longitude, latitude = np.meshgrid(np.linspace(-1.2, 1.2, 49), np.linspace(-0.8, 0.8, 33))
    points = RADIUS * np.stack(
        [np.sin(longitude) * np.cos(latitude), np.sin(latitude), np.cos(longitude) * np.cos(latitude)], -1
    )
    number = np.arange(33 * 49).reshape(33, 49)
    a, b, c, d = (x.ravel() for x in (number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]))
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]).astype(np.int32)
    u, v = (longitude / 2.4 + 0.5) * 0.9 + 0.05, (latitude / 1.6 + 0.5) * 0.9 + 0.05
    uv = np.stack([1 - u if flipped else u, v], -1).reshape(-1, 2).astype(np.float32)
    return points.reshape(-1, 3).astype(np.float32), faces, uv[faces]


@pytest.mark.parametrize("flipped", [False, True])
def test_relief_comes_back(flipped: bool) -> None:
    vertices, faces, uv = patch(flipped)
    picture = normal_map(vertices, faces, uv, ridged, 0.001, 256)
    assert picture.shape == (256, 256, 3)
    texels = texel_map(uv, 256)
    points = texels.interpolate(vertices, faces)
    outward = points / np.linalg.norm(points, axis=1, keepdims=True)
    east = np.cross([0.0, 1.0, 0.0], outward)
    east /= np.linalg.norm(east, axis=1, keepdims=True) * (-1 if flipped else 1)
    north = np.cross(outward, east) * (-1 if flipped else 1)
    local = picture.reshape(-1, 3)[texels.pixel] / 127.5 - 1
    assert np.allclose(np.linalg.norm(local, axis=1), 1, atol=0.02)
    found = sum(local[:, [i]] * axis for i, axis in enumerate((east, north, outward)))
    truth = true_normals(points)
    plain, mapped = (np.degrees(np.arccos(np.clip((x * truth).sum(1), -1, 1))) for x in (outward, found))
    assert plain.mean() > 10
    assert mapped.mean() < 2


def test_blank_and_far_off_stay_flat() -> None:
    vertices, faces, uv = patch(False)
    blank = vertices[:, 1] > 0
    picture = normal_map(vertices, faces, uv, ridged, 0.001, 128, blank)
    bent = np.abs(picture[..., :2].astype(int) - 128).max(2) > 4
    assert not bent[:60].any()  # v = 1 is the first row
    assert bent[70:].mean() > 0.5
    away = normal_map(vertices, faces, uv, lambda p: ridged(p) - np.float32(0.05), 0.001, 128)
    assert (np.abs(away.astype(int) - (128, 128, 255)).max() <= 1).all()


def test_size_is_no_larger_than_the_field_can_tell() -> None:
    vertices, faces, uv = patch(False)
    assert normal_map(vertices, faces, uv, ridged, 0.001, 4096).shape == (1024, 1024, 3)


def test_tangents_are_shared_within_an_island_only() -> None:
    """Two triangles with an edge in common: as one island they share tangents there, apart they do not."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], np.float32)
    faces = np.array([[0, 1, 2], [1, 3, 2]], np.int32)
    flat = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32) * 0.4
    together, _ = tangent_frames(vertices, faces, flat[faces])
    np.testing.assert_allclose(together, np.broadcast_to([1, 0, 0], (2, 3, 3)), atol=1e-6)
    turned = flat[faces].copy()
    turned[1] = np.array([[0.5, 0.5], [0.5, 0.9], [0.9, 0.5]], np.float32)  # mirrored, too
    apart, hands = tangent_frames(vertices, faces, turned)
    np.testing.assert_allclose(apart[0], np.broadcast_to([1, 0, 0], (3, 3)), atol=1e-6)
    assert abs(apart[1] @ [1.0, 0.0, 0.0]).max() < 0.99
    assert hands.tolist() == [1.0, -1.0]


def test_a_lost_tangent_is_any_at_right_angles() -> None:
    normals = np.array([[0, 0, 1], [0, 1, 0]], np.float32)
    found = across(np.array([[0, 0, 2], [3, 3, 0]], np.float32), normals)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose((found * normals).sum(1), 0, atol=1e-6)
    np.testing.assert_allclose(found[1], [1, 0, 0], atol=1e-6)
