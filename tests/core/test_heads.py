"""Synthetic heads: labels, geometry, pictures and their ground truth agree with each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from geoinv_core import heads
from geoinv_core.camera import orbit, project, rays
from geoinv_core.errors import GeoInvError
from geoinv_core.heads import HeadAssets, LabelLayout, raster
from geoinv_core.heads.labels import ASYMMETRY_SPREAD, HAIR_COLOURS


def drawn(assets: HeadAssets, labels: heads.HeadLabels, yaw: float = 0.0, size: int = 64) -> heads.Picture:
    return heads.draw(assets, [labels], orbit(yaw)[None, None], size, 1)[0][0]


def test_same_seed_same_head(assets: HeadAssets) -> None:
    assert heads.sample(assets, 5) == heads.sample(assets, 5)
    assert heads.sample(assets, 5) != heads.sample(assets, 6)


def test_every_sample_names_things_that_exist(assets: HeadAssets) -> None:
    layout = LabelLayout.of(assets)
    for seed in range(200):
        labels = heads.sample(assets, seed)
        assert 9 <= labels.age <= 85
        for kind, values in layout.choices.items():
            assert getattr(labels, kind) in [*values, *layout.late.get(kind, [])], kind
        assert labels.glasses in layout.late["glasses"]
        assert all(0 <= v <= 1 for v in labels.expression.values())
        assert set(labels.expression) <= set(assets.expressions)


def test_vectors_are_about_standard_normal_and_complete(assets: HeadAssets) -> None:
    layout = LabelLayout.of(assets)
    z, c = (
        np.stack(v) for v in zip(*(layout.encode(heads.sample(assets, s)) for s in range(150)), strict=True)
    )
    assert z.shape[1] == layout.z_dim == 131
    assert c.shape[1] == len(layout.names) == len(set(layout.names))
    assert abs(z.mean()) < 0.1
    assert 0.8 < z.std() < 1.2
    assert np.abs(c.mean(0)).max() < 1.8  # of glasses:none, 2 for all who wear none
    restored = LabelLayout.from_json(layout.to_json())
    assert restored == layout


def test_geometry_follows_labels(assets: HeadAssets) -> None:
    base = heads.sample(assets, 3)
    closed, opened = heads.build(
        assets, [base.with_expression(jawOpen=0.0), base.with_expression(jawOpen=1.0)]
    )
    drop = (closed.landmarks["chin"] - opened.landmarks["chin"])[1] * closed.unit_mm
    assert 10 < drop < 60  # millimetres
    assert torch.allclose(closed.landmarks["crown"], opened.landmarks["crown"], atol=1e-4)
    boy, man = heads.build(assets, [replace(base, age=10.0), replace(base, age=40.0)])
    assert boy.unit_mm < man.unit_mm  # both fill the crop; the boy is smaller


def test_weight_shows_in_the_face(assets: HeadAssets) -> None:
    base = replace(heads.sample(assets, 3), expression={}, hair="bald", beard=0.0)
    slim, usual, stout = (drawn(assets, replace(base, weight=w)).mask.sum() for w in (-1.0, 0.0, 1.0))
    assert slim < 0.99 * usual
    assert stout > 1.04 * usual


def test_frontal_crop_has_the_eyes_where_the_convention_wants_them(assets: HeadAssets) -> None:
    for geometry in heads.build(assets, [heads.sample(assets, s) for s in range(4)]):
        points = torch.stack([geometry.landmarks["eyeball_l"], geometry.landmarks["eyeball_r"]])[None]
        at, _ = project(orbit()[None], points)
        assert at[0, 0, 0] > 0.5 > at[0, 1, 0]  # the subject's left eye is on the right of the picture
        assert torch.allclose(at[0].mean(0), torch.tensor([0.5, 0.46]), atol=0.03)


def test_depth_is_along_the_ray_and_meets_the_mesh(assets: HeadAssets) -> None:
    labels = replace(heads.sample(assets, 3), hair="bald")
    picture = drawn(assets, labels, yaw=25)
    skin = heads.build(assets, [labels])[0].parts[0]
    origins, directions = rays(picture.camera[None], 64)
    solid = (picture.segment.reshape(-1) == 1).nonzero()[:, 0]
    points = origins[0, solid] + directions[0, solid] * picture.depth.reshape(-1)[solid, None]
    nearest = torch.cdist(points, skin.vertices).min(1).values
    assert nearest.median() < 0.01
    assert nearest.max() < 0.06  # no further than the longest edges


def test_normals_face_the_camera_and_masks_cover_the_depth(assets: HeadAssets) -> None:
    picture = drawn(assets, heads.sample(assets, 8), yaw=-40)
    solid = picture.segment == 1
    _, directions = rays(picture.camera[None], 64)
    facing = (picture.normal * -directions[0].view(64, 64, 3)).sum(-1)[solid]
    assert facing.min() > -0.35  # interpolated normals may turn a little beyond the outline
    assert facing.median() > 0.3
    assert torch.isfinite(picture.depth[picture.mask > 0.99]).float().mean() > 0.99
    assert torch.isinf(picture.depth[picture.mask == 0]).all()


def test_albedo_does_not_depend_on_light_and_colour_does(assets: HeadAssets) -> None:
    labels = heads.sample(assets, 12)
    dark = replace(labels, light=replace(labels.light, key=(0.1, 0.1, 0.1), sky=(0.2, 0.2, 0.2)))
    a, b = drawn(assets, labels), drawn(assets, dark)
    assert torch.allclose(a.albedo, b.albedo, atol=1e-5)
    face = a.mask > 0.99
    assert a.rgb[face].mean() > b.rgb[face].mean() + 0.1


def test_compiled_and_torch_rasterisers_agree() -> None:
    pytest.importorskip("numba", reason="the compiled rasteriser needs numba")
    g = torch.Generator().manual_seed(0)
    corners = torch.rand(300, 3, generator=g) * torch.tensor([40.0, 40.0, 1.0]) + torch.tensor(
        [-4.0, -4.0, 2.0]
    )
    triangles = torch.randint(300, (200, 3), generator=g)
    for cull in (False, True):
        compiled = raster.rasterise(corners, triangles, 32, cull)
        plain = raster._fragments_torch(corners, triangles, 32, cull)
        orders = [torch.argsort(f.triangle * 1024 + f.pixel) for f in (compiled, plain)]
        for mine, theirs in zip(compiled.keep(orders[0]), plain.keep(orders[1]), strict=True):
            assert torch.allclose(mine.double(), theirs.double(), atol=1e-3)
        values = torch.rand(300, 5, generator=g)
        assert torch.allclose(
            raster.interpolate(values, triangles, plain),
            raster._interpolate_torch(values, triangles, plain),
            atol=1e-5,
        )


def test_nearest_takes_the_front_fragment() -> None:
    f = raster.Fragments(
        torch.tensor([3, 3, 5]), torch.tensor([0, 1, 2]), torch.zeros(3, 3), torch.tensor([2.0, 1.0, 4.0])
    )
    pixel, index = raster.nearest(f, 8)
    assert pixel.tolist() == [3, 5]
    assert index.tolist() == [1, 2]


def test_asymmetry_moves_one_side(assets: HeadAssets) -> None:
    base = replace(heads.sample(assets, 3), asymmetry={})
    name = assets.asymmetries[0]
    a, b = heads.build(assets, [base, replace(base, asymmetry={name: 5 * ASYMMETRY_SPREAD})])
    assert not torch.allclose(a.parts[0].vertices, b.parts[0].vertices)


def test_missing_data_is_one_sentence(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEOINV_HEADS", raising=False)
    with pytest.raises(GeoInvError, match="GEOINV_HEADS"):
        HeadAssets.open()
    with pytest.raises(GeoInvError, match=r"heads\.npz"):
        HeadAssets.open(str(tmp_path))


def test_hair_of_every_colour_is_drawn_and_not_only_on_those_who_usually_have_it(assets: HeadAssets) -> None:
    heads_ = [heads.sample(assets, seed) for seed in range(1500)]
    colours = np.array([h.hair_colour for h in heads_])
    palette = np.array(list(HAIR_COLOURS.values())) / 255
    nearest = np.square(colours[:, None] - palette).sum(2).argmin(1)
    shares = dict(zip(HAIR_COLOURS, np.bincount(nearest, minlength=len(palette)) / len(heads_), strict=True))
    assert min(shares.values()) > 0.015, shares
    assert max(shares.values()) < 0.3, shares
    fair = np.linalg.norm(colours, axis=1) > 0.9
    dark_skinned = np.array([h.skin_tone > 0.6 for h in heads_])
    assert 0.15 < fair[dark_skinned].mean() < fair[~dark_skinned].mean()
