"""Closest points and sides of triangle meshes against brute force and a shape that is known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from geoinv_core.mesh.closest import ClosestPoints, nearest_weights


@pytest.fixture(scope="module")
def hull() -> ConvexHull:
    """A convex body with triangles of many sizes."""
    r = np.random.default_rng(0)
    points = r.normal(size=(150, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return ConvexHull(np.concatenate([points, [[0, 0, 4]]]))


def outward(hull: ConvexHull) -> np.ndarray:
    triangles = hull.simplices.copy()
    a, b, c = (hull.points[triangles[:, k]] for k in range(3))
    inward = (np.cross(b - a, c - a) * hull.equations[:, :3]).sum(1) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    return triangles


def test_the_nearest_point_is_the_nearest_over_all_triangles(hull: ConvexHull) -> None:
    mesh = ClosestPoints(hull.points, outward(hull))
    points = np.random.default_rng(1).normal(size=(400, 3)) * 1.5
    found = mesh(points)
    corners = hull.points[mesh.triangles][None]
    every = (nearest_weights(points[:, None], corners)[..., None] * corners).sum(2)
    assert np.allclose(found.distance, np.linalg.norm(every - points[:, None], axis=2).min(1), atol=1e-12)
    at = (found.weights[..., None] * hull.points[mesh.triangles[found.triangle]]).sum(1)
    assert np.allclose(at, found.point)
    assert np.allclose(np.linalg.norm(at - points, axis=1), found.distance)


def test_sides_and_inner_distances_of_a_convex_body(hull: ConvexHull) -> None:
    mesh = ClosestPoints(hull.points, outward(hull))
    points = np.random.default_rng(2).normal(size=(2000, 3))
    signed = mesh.signed_distance(points)
    depth = (hull.equations[:, :3] @ points.T + hull.equations[:, 3:]).max(0)
    assert ((signed < 0) == (depth < 0)).all()
    assert np.allclose(signed[signed < 0], depth[signed < 0])
    assert 0.2 < (signed < 0).mean() < 0.8


def test_degenerate_triangles_do_no_harm() -> None:
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [2, 0, 0]])
    mesh = ClosestPoints(vertices, np.array([[0, 1, 2], [0, 1, 3], [1, 1, 1]]))
    found = mesh(np.array([[1.5, -1.0, 0.0], [0.2, 0.2, 0.5]]))
    assert np.allclose(found.distance, [1.0, 0.5])
