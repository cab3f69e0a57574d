"""The renderer's interface and its PyTorch backend: rules, derivatives, edges, bad input."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from geoinv_core import camera
from geoinv_core.render import Field, query, render, sample_grid
from geoinv_core.render.example import ball_field, random_field
from geoinv_core.render.lookup import channels_last, plane_features
from geoinv_core.render.rays import box_limits, sphere_limits


def rays(batch: int = 1, resolution: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    cameras = torch.stack([camera.orbit(20 * b, 10 - 5 * b) for b in range(batch)])
    return camera.rays(cameras, resolution)


def test_ball_is_seen_where_it_is() -> None:
    field = replace(ball_field(32), distance_scale=0.0)
    origins = torch.tensor([[[0.0, 0.0, 2.7], [0.45, 0.0, 2.7]]])
    directions = torch.tensor([[[0.0, 0.0, -1.0], [0.0, 0.0, -1.0]]])
    out = render(field, origins, directions, 2.2, 3.2, backend="torch")
    assert out.opacity[0, 0] > 0.99
    assert out.opacity[0, 1] < 0.01
    assert abs(out.depth[0, 0] - 2.4) < 0.03


def test_query_gives_distance_and_its_gradient_twice() -> None:
    field = random_field(
        4, 5, 2, (7, 6), density="sdf", distance_scale=0.1, distance_radius=0.3, dtype=torch.float64
    )
    points = (torch.rand(1, 6, 3, dtype=torch.float64) - 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: query(field, p), (points,))
    assert torch.autograd.gradgradcheck(lambda p: query(field, p)[0], (points,))
    distance, _ = query(replace(field, distance_scale=0.0), points)
    (normal,) = torch.autograd.grad(distance.sum(), points, create_graph=True)
    assert torch.allclose(normal.norm(dim=-1), torch.ones(1, 6, dtype=torch.float64))


def test_eikonal_loss_trains_the_planes() -> None:
    field = random_field(4, 8, 0, (8, 8), density="sdf", seed=1)
    planes = field.planes.requires_grad_()
    points = (torch.rand(1, 20, 3) - 0.5).requires_grad_()
    (normal,) = torch.autograd.grad(query(field, points)[0].sum(), points, create_graph=True)
    (normal.norm(dim=-1) - 1).square().mean().backward()
    assert planes.grad is not None
    assert planes.grad.abs().sum() > 0


def by_grid_sample(planes: torch.Tensor, maps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    uvw = points.unsqueeze(0) @ maps
    grid = uvw[:, :, None, :2] if planes.dim() == 4 else uvw[:, :, None, None, :]
    return torch.nn.functional.grid_sample(planes, grid, align_corners=False).flatten(2).mean(0).t()


@pytest.mark.parametrize("size", [(5, 7), (3, 5, 7)])
def test_lookup_is_grid_sample(size: tuple[int, ...]) -> None:
    field = random_field(4, size=size, seed=2, dtype=torch.float64)
    points = (torch.rand(40, 3, dtype=torch.float64) - 0.5) * 1.4
    weights = torch.randn(40, 4, dtype=torch.float64)

    def found(look: Any, planes: torch.Tensor, *options: bool) -> tuple[torch.Tensor, ...]:
        p, q = planes.clone().requires_grad_(), points.clone().requires_grad_()
        value = look(p, field.plane_maps(), q, *options)
        return (value, *torch.autograd.grad((value * weights).sum(), (p, q)))

    expected = found(by_grid_sample, field.planes[0])
    for planes in (field.planes, channels_last(field.planes)):
        for smooth in (False, True):
            for x, y in zip(found(plane_features, planes[0], smooth), expected, strict=True):
                torch.testing.assert_close(x, y)


def test_far_and_undefined_points_read_zeros() -> None:
    field = random_field(4, size=(6, 6))
    points = torch.tensor([1e30, -1e30, torch.inf])[:, None].expand(3, 3)
    assert not plane_features(field.planes[0], field.plane_maps(), points).any()


def test_white_background_sign_and_weights() -> None:
    field = random_field(8, 8, 3, (8, 8), signed=False, white_back=True)
    origins, directions = rays()
    out = render(field, origins, directions, 2.25, 3.3, (12, 12), backend="torch", return_weights=True)
    dark = render(replace(field, white_back=False), origins, directions, 2.25, 3.3, (12, 12), backend="torch")
    assert torch.allclose(out.features, dark.features + (1 - dark.opacity)[..., None], atol=1e-6)
    signed = render(
        replace(field, white_back=False, signed=True),
        origins,
        directions,
        2.25,
        3.3,
        (12, 12),
        backend="torch",
    )
    assert torch.allclose(signed.features, dark.features * 2 - 1, atol=1e-6)
    assert out.weights is not None
    assert out.depths is not None
    assert torch.allclose(out.weights.sum(-1), out.opacity, atol=1e-6)
    assert (out.depths.diff(dim=-1) >= 0).all()


def test_depth_of_empty_rays_is_the_far_end_of_the_call() -> None:
    field = replace(random_field(4, 4, 2, (4, 4)), density="raw", w2=torch.zeros(3, 4), b2=-torch.ones(3))
    origins, directions = rays()
    out = render(field, origins, directions, 2.0, 3.0, (8, 0), "zero", backend="torch")
    assert torch.equal(out.opacity, torch.zeros(1, 36))
    assert torch.allclose(out.depth, torch.full((1, 36), 3.0))


def test_random_jitter_is_seeded() -> None:
    field = random_field(4, 4, 2, (8, 8))
    origins, directions = rays()

    def picture(seed: int) -> torch.Tensor:
        g = torch.Generator().manual_seed(seed)
        return render(field, origins, directions, 2.25, 3.3, (8, 8), "random", generator=g).features

    assert torch.equal(picture(1), picture(1))
    assert not torch.equal(picture(1), picture(2))


def test_box_and_sphere_limits() -> None:
    origins = torch.tensor([[[0.0, 0.0, 2.0], [0.0, 0.0, 2.0], [3.0, 3.0, 3.0]]])
    directions = torch.tensor([[[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])
    near, far = box_limits(origins, directions, 1.0)
    assert torch.allclose(near, torch.full((1, 3), 1.5))
    assert torch.allclose(far, torch.tensor([[2.5, 1.5, 1.5]]))
    near, far = box_limits(origins[:, 1:], directions[:, 1:], 1.0)
    assert near.isfinite().all()
    assert (far > near).all()
    wide = torch.full((1, 3), 10.0)
    near, far = sphere_limits(origins, directions, 0.5, torch.zeros(1, 3), wide)
    assert torch.allclose(near[0, 0], torch.tensor(1.5))
    assert torch.allclose(far[0, 0], torch.tensor(2.5))
    assert (far > near).all()


def test_no_rays_and_no_points() -> None:
    field = random_field(4, 4, 2, (4, 4))
    for backend in ("auto", "torch"):
        out = render(field, torch.zeros(1, 0, 3), torch.zeros(1, 0, 3), 1, 2, backend=backend)
        assert out.features.shape == (1, 0, 2)
        assert out.depth.shape == out.opacity.shape == (1, 0)


def test_float64_and_layouts() -> None:
    field = random_field(4, 4, 2, (8, 8))
    origins, directions = rays()
    plain = render(field, origins, directions, 2.25, 3.3).features
    strided = replace(field, planes=field.planes.transpose(3, 4).contiguous().transpose(3, 4))
    assert torch.allclose(render(strided, origins, directions, 2.25, 3.3).features, plain, atol=1e-6)
    spread = torch.stack([directions, directions], -1)[..., 0]
    assert torch.allclose(render(field, origins, spread, 2.25, 3.3).features, plain, atol=1e-6)
    double = render(field.to(torch.float64), origins.double(), directions.double(), 2.25, 3.3)
    assert torch.allclose(double.features.float(), plain, atol=1e-3)


def test_bad_input_is_named() -> None:
    field = random_field(4, 4, 2, (4, 4))
    origins, directions = rays()
    cases = (
        (lambda: render(field, origins[0], directions), "origins"),
        (lambda: render(field, origins, directions[:, :3], 1, 2), "differ"),
        (lambda: render(field, origins.double(), directions), "float64"),
        (lambda: render(field, origins.to("meta"), directions.to("meta"), 1, 2), "on meta"),
        (lambda: query(field, torch.zeros(1, 5, 2)), "points"),
        (lambda: query(field, torch.zeros(1, 5, 3, dtype=torch.float64)), "float64"),
        (lambda: render(field, origins, directions, 1, 2, (2, 4)), "samples"),
        (lambda: render(field, origins, directions, 1, 2, jitter="half"), "jitter"),  # type: ignore[arg-type]
        (lambda: render(field, origins, directions, 1, 2, sampling="best"), "sampling"),
        (lambda: render(field, origins, directions, 1, 2, backend="gpu"), "backend"),
        (lambda: render(field, origins, directions, 1, 2, backend="cuda"), "device"),
        (lambda: render(field, origins, directions, 1, "auto"), "near and far"),
        (lambda: render(field, origins, directions, torch.zeros(2, 2), 2), "near and far"),
        (lambda: sample_grid(field, 1), "resolution"),
        (lambda: replace(field, w1=field.w1[:, :3]), "w1"),
        (lambda: replace(field, b2=field.b2.double()), "b2"),
        (lambda: replace(field, planes=field.planes[0]), "planes"),
        (lambda: replace(field, density="fog"), "density"),  # type: ignore[arg-type]
        (
            lambda: Field(
                torch.zeros(1, 3, 4, 4, 4, dtype=torch.int32),
                *[t.int() for t in (field.axes, field.w1, field.b1, field.w2, field.b2)],
                "raw",
                field.beta.int(),
            ),
            "floating",
        ),
    )
    for call, word in cases:
        with pytest.raises(ValueError, match=word):
            call()


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_is_named_not_rendered(backend: str, bad: float) -> None:
    field = ball_field(16, features=3)
    origins, directions = rays(resolution=8)
    holed = field.planes.clone()
    holed[0, :, 5, 6:9, 6:9] = bad  # the middle alone; most rays see none of it
    hit = origins.clone()
    hit[0, 27] = bad
    near = torch.full(origins.shape[:2], 2.25)
    near[0, 27] = bad
    for planes, b1, o, start, name in (
        (holed, field.b1, origins, 2.25, "the planes hold"),
        (field.planes, field.b1, hit, 2.25, "the rays hold"),
        (field.planes, field.b1, origins, near, "the rays hold"),
        (field.planes, field.b1 * bad, hit, 2.25, "the rays and decoder hold"),
    ):
        with pytest.raises(ValueError, match=name):
            render(replace(field, planes=planes, b1=b1), o, directions, start, 3.3, backend=backend)


def test_large_numbers_are_numbers() -> None:
    """Their sum overflows, they do not."""
    field = random_field(4, 4, 2, (4, 4), density="raw", activation="none", signed=False)
    origins, directions = rays()
    huge = replace(field, b2=torch.tensor([1e3, 2e38, 2e38]), w2=field.w2 * 0)
    found = render(huge, origins, directions, 2.25, 3.3).features
    assert found.isfinite().all()
    assert not found.sum().isfinite()
