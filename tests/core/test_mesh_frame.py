"""World to Blender axes and back."""

from __future__ import annotations

import numpy as np
import pytest

from geoinv_core.errors import ModelError
from geoinv_core.mesh.frame import Frame, neck_frame
from geoinv_core.mesh.topology import boundary_loops, vertex_normals, volume


def tube(height: float = 1.0, segments: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """A tube along y, closed at the top by a point, open at y = -.4, its axis at x = .1, z = -.2."""
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    angle = angle + 0.4 * np.sin(angle)  # uneven spacing
    ring = np.stack([0.1 + 0.2 * np.cos(angle), np.full(segments, -0.4), -0.2 + 0.2 * np.sin(angle)], -1)
    vertices = np.concatenate([ring, [[0.1, -0.4 + height, -0.2]]]).astype(np.float32)
    i = np.arange(segments)
    faces = np.stack([(i + 1) % segments, i, np.full(segments, segments)], -1).astype(np.int32)
    return vertices, faces


def test_axes_and_scale() -> None:
    frame = Frame((0.0, -0.5, 0.0), 400.0)
    # the subject's left, up, and out of the face
    world = np.array([[1, -0.5, 0], [0, 0.5, 0], [0, -0.5, 1]], np.float32)
    np.testing.assert_allclose(frame.to_blender(world), [[0.4, 0, 0], [0, 0, 0.4], [0, -0.4, 0]], atol=1e-7)
    np.testing.assert_allclose(frame.vectors_to_blender(np.array([0, 0, 1.0])), [0, -0.4, 0], atol=1e-7)


def test_round_trip_keeps_handedness() -> None:
    frame = Frame((0.1, -0.5, 0.3), 371.0)
    points = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float32)
    back = frame.to_world(frame.to_blender(points))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, points, atol=1e-6)
    assert np.linalg.det(frame.to_blender(np.eye(3)) - frame.to_blender(np.zeros(3))) > 0


def test_origin_is_the_centre_of_the_open_ring() -> None:
    vertices, faces = tube()
    assert len(boundary_loops(faces)) == 1
    frame = neck_frame(vertices, faces, 400)
    np.testing.assert_allclose(frame.origin, [0.1, -0.4, -0.2], atol=4e-3)


def test_closed_mesh_gets_its_lowest_point() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
    assert volume(vertices, faces) == pytest.approx(1 / 6)
    assert boundary_loops(faces) == []
    assert neck_frame(vertices, faces, 400).origin == pytest.approx((0.5, 0.0, 0.5))
    assert (vertex_normals(vertices, faces)[0] < 0).all()


@pytest.mark.parametrize("unit", [0.0, -1.0, float("nan"), float("inf")])
def test_unusable_units(unit: float) -> None:
    with pytest.raises(ModelError, match="no usable size"):
        Frame((0.0, 0.0, 0.0), unit)
