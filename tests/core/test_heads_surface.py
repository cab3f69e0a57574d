"""The true outer surface: what is drawn lies on it, and distances to it are exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from geoinv_core import heads
from geoinv_core.camera import orbit, rays
from geoinv_core.heads import HeadAssets, HeadGeometry
from geoinv_core.heads.surface import BARE, OuterSurface, hidden_parts


@pytest.fixture(scope="module")
def geometry(assets: HeadAssets) -> HeadGeometry:
    return heads.build(assets, [replace(heads.sample(assets, 900_003), expression={})])[0]


def test_what_is_drawn_lies_on_the_surface(assets: HeadAssets, geometry: HeadGeometry) -> None:
    picture = heads.picture(assets, heads.Layers(assets, geometry), orbit(20), 64, 1)
    origins, directions = rays(picture.camera[None], 64)
    shown = ((picture.segment == 1) | (picture.segment == 2)).reshape(-1)
    points = origins[0, shown] + directions[0, shown] * picture.depth.reshape(-1)[shown, None]
    distance = OuterSurface(assets, geometry).signed_distance(points).abs() * geometry.unit_mm
    assert distance.median() < 0.01  # millimetres
    assert distance.quantile(0.99) < 0.5


def test_points_beside_the_surface_have_their_distance(assets: HeadAssets, geometry: HeadGeometry) -> None:
    surface = OuterSurface(assets, geometry)
    on = surface.sample(500, np.random.default_rng(0))
    for offset in (0.004, -0.004):
        distance = surface.signed_distance(on.points + on.normals * offset)
        assert (distance.abs() <= abs(offset) + 1e-6).all()
        assert ((distance - offset).abs() < 1e-5).float().mean() > 0.9  # the rest lies in folds
    assert on.points[:, 1].min() > surface.neck_y - 0.05
    far = torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.05, 0.0]])
    outside, inside = surface.signed_distance(far)
    assert outside > 1.5
    assert inside < -0.1


def test_points_of_the_skin_inside_an_eye_are_none_of_the_surface(assets: HeadAssets) -> None:
    # With these asymmetries the corner of an eye reaches into the eyeball.
    wry = {name: 1.5 * v for name, v in heads.sample(assets, 900_012).asymmetry.items()}
    labels = replace(heads.sample(assets, 900_003), expression={}, asymmetry=wry)
    surface = OuterSurface(assets, heads.build(assets, [labels])[0])
    corners = surface.vertices[surface.triangles[surface.head]]
    assert (surface.eyes.signed_distance(corners.mean(1)) < -0.005).any()
    on = surface.sample(1500, np.random.default_rng(0))
    assert (surface.eyes.signed_distance(on.points.numpy()) > -1e-6).all()
    for offset in (0.004, -0.004):
        distance = surface.signed_distance(on.points + on.normals * offset)
        assert (distance.abs() <= abs(offset) + 1e-6).all()


def test_the_mouth_opens(assets: HeadAssets) -> None:
    labels = replace(heads.sample(assets, 900_003), expression={})
    shut, wide = (
        OuterSurface(assets, heads.build(assets, [labels.with_expression(jawOpen=v)])[0]) for v in (0.0, 0.8)
    )
    outer, lining, _ = hidden_parts(assets)
    assert len(shut.triangles) == outer.sum()
    assert len(wide.triangles) == outer.sum() + lining.sum()
    assert not (outer & lining).any()


def test_albedo_is_that_of_the_pictures_and_hair_covers(assets: HeadAssets) -> None:
    labels = replace(heads.sample(assets, 900_003), hair="long01")
    geometry = heads.build(assets, [labels])[0]
    surface = OuterSurface(assets, geometry)
    bare = surface.sample(4000, np.random.default_rng(0), bare=True)
    assert bare.cover.max() < BARE
    assert surface.sample(500, np.random.default_rng(0)).cover.max() > BARE
    bearded = replace(labels, hair="bald", beard=0.9)
    grown = OuterSurface(assets, heads.build(assets, [bearded])[0]).sample(4000, np.random.default_rng(0))
    chin = (grown.points - heads.build(assets, [bearded])[0].landmarks["chin"]).norm(dim=1) < 0.05
    assert grown.cover[chin].mean() > BARE
    assert grown.cover.mean() < BARE
    size = 128
    picture = heads.picture(assets, heads.Layers(assets, geometry), orbit(), size, 1)
    at = heads.raster.project(bare.points, orbit(), size)
    column, row = at[:, 0].long().clamp(0, size - 1), at[:, 1].long().clamp(0, size - 1)
    depth = (bare.points - orbit()[[3, 7, 11]]).norm(dim=1)
    seen = (
        ((depth - picture.depth[row, column]).abs() < 0.003)
        & (picture.segment[row, column] == 1)
        & (bare.normals[:, 2] > 0.5)
    )
    error = (picture.albedo[row, column] - bare.albedo)[seen].abs().mean()
    assert seen.sum() > 200
    assert error < 0.03
