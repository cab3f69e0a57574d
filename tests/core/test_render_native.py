"""The CPU library against its PyTorch twin: values, gradients, lattices, random cases, doing without it."""

import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from geoinv_core import camera
from geoinv_core.render import (
    EG3D_AXES,
    PANOHEAD_AXES,
    build,
    dispatch,
    lattice,
    library,
    query,
    render,
    sample_grid,
)
from geoinv_core.render.example import ball_field, random_field
from geoinv_core.render.job import forget_planes
from tests.fuzz import renderer as fuzz

RULES = ("softplus", "sdf", "raw", "panohead")


@pytest.fixture(scope="module", autouse=True)
def _native() -> None:
    try:
        build.find_compiler()
    except build.BuildError as error:
        pytest.skip(str(error))
    build.build()
    library.forget()
    assert library.library(torch.float32).lanes in (1, 8, 16)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("sampling", ["importance", "uniform", "sphere", "disparity"])
def test_twin(rules: str, sampling: str, twins: Any) -> None:
    field = random_field(16, 24, 9, (24, 24), batch=2, sharpness=2.0, **twins.RULES[rules])
    origins, directions = twins.rays(2, 49)
    twins.compare(
        field, origins, directions, {"near": 2.25, "far": 3.3, "samples": (16, 12), "sampling": sampling}
    )


@pytest.mark.parametrize("size", [(5, 9), (3, 6, 5)])
@pytest.mark.parametrize("axes", [EG3D_AXES, PANOHEAD_AXES])
@pytest.mark.parametrize("jitter", ["zero", "random"])
def test_twin_odd_sizes(size: tuple[int, ...], axes: Any, jitter: str, twins: Any) -> None:
    field = random_field(5, 7, 3, size, batch=2, axes=axes, sharpness=2.0)
    origins, directions = twins.rays(2, 37)
    draws: Any = jitter
    if jitter == "random":
        g = torch.Generator().manual_seed(0)
        draws = torch.rand(2, 37, 11, generator=g), torch.rand(2, 37, 7, generator=g)
    twins.compare(field, origins, directions, {"samples": (11, 7), "jitter": draws})


def test_a_hole_where_nothing_is_seen_is_named() -> None:
    field = ball_field(128)
    field.planes[0, 0, 3, 1, 1] = torch.nan
    origins, directions = camera.rays(camera.orbit(0, 0)[None], 24)
    with pytest.raises(ValueError, match="the planes hold NaN or inf"):
        render(field, origins, directions, 2.25, 3.3, backend="cpu")


@pytest.mark.parametrize("most", [0, 8, 16])
def test_older_processors(most: int, twins: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variant of the library that this processor can run."""
    monkeypatch.setattr(library, "MOST_LANES", most)
    library.forget()
    try:
        assert library.library(torch.float32).lanes <= max(most, 1)
        field = random_field(10, 21, 9, (11, 24), batch=2, sharpness=2.0, **twins.RULES["sdf"])
        origins, directions = twins.rays(2, 37)
        options = {"near": 2.25, "far": 3.3, "samples": (9, 8)}
        twins.compare(field, origins, directions, options)
        twins.compare(replace(field, crop=0.2), origins, directions, options)
    finally:
        library.forget()


@pytest.mark.parametrize("rules", RULES)
def test_gradients_of_the_shared_maths_in_float64(rules: str, twins: Any) -> None:
    field = random_field(3, 4, 2, (5, 4), sharpness=2.0, dtype=torch.float64, **twins.RULES[rules])
    origins, directions = twins.rays(1, 5, torch.float64)
    inputs = [getattr(field, k).detach().clone().requires_grad_() for k in twins.TENSORS]
    inputs += [origins.clone().requires_grad_(), directions.clone().requires_grad_()]

    def call(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        changed: dict[str, Any] = dict(zip(twins.TENSORS, tensors[:6], strict=True))
        forget_planes()  # gradcheck moves its inputs through .data, which the version counter does not see
        out = render(
            replace(field, **changed), tensors[6], tensors[7], 2.3, 3.2, (6, 0), backend="cpu", exact=True
        )
        return out.features, out.depth, out.opacity

    assert torch.autograd.gradcheck(call, inputs)


def test_weights_and_depths(twins: Any) -> None:
    field = random_field(8, 8, 4, (16, 16), sharpness=2.0)
    origins, directions = twins.rays(1, 20)
    a, b = (
        render(field, origins, directions, 2.25, 3.3, (12, 12), return_weights=True, backend=k)
        for k in ("torch", "cpu")
    )
    assert a.weights is not None
    assert b.weights is not None
    assert a.depths is not None
    assert b.depths is not None
    assert torch.allclose(a.weights, b.weights, atol=2e-4)
    assert torch.allclose(a.depths, b.depths, atol=2e-4)


def test_leaving_out_the_unseen_changes_nothing_visible(twins: Any) -> None:
    field = replace(ball_field(64), beta=torch.tensor(0.002))
    origins, directions = twins.rays(1, 400)
    exact, quick = (
        render(field, origins, directions, 2.25, 3.3, backend="cpu", exact=e) for e in (True, False)
    )
    assert (exact.features - quick.features).abs().max() < 1e-4
    assert (exact.depth - quick.depth)[exact.opacity > 0.01].abs().max() < 1e-4


@pytest.mark.parametrize("density", ["softplus", "raw"])
@pytest.mark.parametrize("samples", [(48, 48), (47, 0), (5, 9)])
def test_stretches_that_are_not_looked_at_hold_nothing(
    density: Any, samples: tuple[int, int], twins: Any
) -> None:
    """Smooth fields of clouds in empty space, whose empty samples can be told from their neighbours."""
    ball = ball_field(64, features=4)
    clouds = replace(ball, density=density, w2=ball.w2 * torch.tensor([60.0, 1, 1, 1, 1])[:, None])
    origins, directions = twins.rays(1, 900)
    middle = query(clouds, origins + 2.7 * directions)[0].median()
    clouds = replace(clouds, b2=clouds.b2 - torch.tensor([float(middle) + 12, 0, 0, 0, 0]))
    exact, quick = (
        render(clouds, origins, directions, 2.25, 3.3, samples, backend="cpu", exact=e) for e in (True, False)
    )
    assert 0.1 < exact.opacity.mean() < 0.9
    assert (exact.features - quick.features).abs().max() < 1e-4
    assert (exact.opacity - quick.opacity).abs().max() < 1e-4


def test_query_twin_and_gradients(twins: Any) -> None:
    field = random_field(12, 16, 6, (16, 16), batch=2, **twins.RULES["sdf"])
    points = torch.rand(2, 50, 3) * 1.2 - 0.6
    found = []
    for backend in ("torch", "cpu"):
        leaves: dict[str, Any] = {k: getattr(field, k).clone().requires_grad_() for k in twins.TENSORS[:5]}
        raw, features = query(replace(field, **leaves), points, backend=backend)
        loss = (raw * torch.arange(50.0)[None, :, None]).mean() + features.square().mean()
        found.append((raw.detach(), features.detach(), *torch.autograd.grad(loss, list(leaves.values()))))
    for x, y in zip(*found, strict=True):
        assert (x - y).norm() <= 1e-4 * x.norm() + 1e-6


@pytest.mark.parametrize("rules", ["softplus", "sdf"])
@pytest.mark.parametrize("axes", [EG3D_AXES, PANOHEAD_AXES])
@pytest.mark.parametrize("size", [(20, 20), (3, 16, 20), (2, 20, 16)])
def test_grid_twin(rules: str, axes: Any, size: tuple[int, ...], twins: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(lattice, "ROWS", 9)
    field = random_field(8, 11, 2, size, batch=2, axes=axes, **twins.RULES[rules])
    field = replace(field, axes=field.axes * torch.tensor([1.0, -1.0, -1.0])[:, None])
    for N in (2, 13, 24):
        dense = sample_grid(field, N, backend="torch")
        assert (sample_grid(field, N, backend="cpu") - dense).abs().max() < 2e-4
    axis = torch.linspace(-0.5, 0.5, 24)
    points = torch.stack([axis[3], axis[20], axis[11]]).view(1, 1, 3).expand(2, 1, 3)
    assert torch.allclose(query(field, points)[0][:, 0, 0], dense[:, 3, 20, 11], atol=1e-4)


def test_grid_of_odd_fields() -> None:
    turned = random_field(8, 10, 2, (20, 20))
    angle = torch.tensor(0.3)
    turn = torch.eye(3)
    turn[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    for field in (replace(turned, axes=turned.axes @ turn), random_field(8, 10, 2, (3, 9, 9))):
        found = [sample_grid(field, 9, backend=b) for b in ("torch", "cpu")]
        assert (found[0] - found[1]).abs().max() < 2e-4


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_sparse_grid_has_the_same_surface(backend: str) -> None:
    field = ball_field(64, 8, 16, 3)
    N = 45
    dense, sparse = (sample_grid(field, N, backend=backend, sparse=s) for s in (False, True))
    assert torch.equal(dense > 0, sparse > 0)
    near = dense.abs() < 2 / N
    assert (dense - sparse)[near].abs().max() < 1e-5
    assert ((dense - sparse).abs() > 1e-5).any()  # it did leave something out


def test_random_cases() -> None:
    """A few of tests/fuzz/renderer.py, values and gradients."""
    for number in range(40):
        assert not any(fuzz.check(number)[1]), number


def test_operators_are_well_formed(twins: Any) -> None:
    field = random_field(4, 4, 2, (6, 6))
    tensors = [
        getattr(field, f.name) for f in fields(field) if isinstance(getattr(field, f.name), torch.Tensor)
    ]
    assert len(tensors) == 7
    for t in tensors:
        t.requires_grad_(t is not field.axes)
    origins, directions = twins.rays(1, 5)
    near = torch.full((1, 5), 2.25)
    from geoinv_core.render import ops
    from geoinv_core.render.march import March

    job = March(origins, directions, near, near + 1, None, None, 6, 4)
    arguments = (
        field.planes,
        field.axes,
        field.w1,
        field.b1,
        field.w2,
        field.b2,
        field.beta,
        origins,
        directions,
        near,
        near + 1,
        None,
        None,
        ops._settings(field, job, "cpu"),
    )
    torch.library.opcheck(ops._march_op, arguments, test_utils=("test_schema", "test_faketensor"))


def test_many_threads_agree_with_one(twins: Any) -> None:
    field = random_field(8, 8, 4, (24, 24), batch=2, sharpness=2.0)
    origins, directions = twins.rays(2, 900)
    count = torch.get_num_threads()
    found = []
    try:
        for workers in (1, 3):
            torch.set_num_threads(workers)
            found.append(twins.values(field, origins, directions, {"near": 2.25, "far": 3.3}, "cpu"))
    finally:
        torch.set_num_threads(count)
    for x, y in zip(found[0][0], found[1][0], strict=True):
        assert torch.equal(x, y)
    for x, y in zip(found[0][1], found[1][1], strict=True):
        # sums of many terms in another order
        assert (x - y).norm() <= 1e-4 * x.norm() + 1e-6


def test_changed_planes_are_seen() -> None:
    field = random_field(5, 7, 3, (9, 9))
    points = torch.rand(1, 9, 3) - 0.5
    first = query(field, points, backend="cpu")[0]
    assert torch.equal(query(field, points, backend="cpu")[0], first)
    field.planes.mul_(0.5)
    changed = query(field, points, backend="cpu")[0]
    assert torch.allclose(changed, query(field, points, backend="torch")[0], atol=1e-4)
    assert not torch.equal(changed, first)
    for seed in range(4):  # memory that is given back and used again is not mistaken for the old planes
        other = random_field(5, 7, 3, (9, 9), seed=seed)
        found = query(other, points, backend="cpu")[0]
        assert torch.allclose(found, query(other, points, backend="torch")[0], atol=1e-4)
        del other


def test_without_the_library(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, twins: Any
) -> None:
    field = random_field(4, 4, 2, (6, 6))
    origins, directions = twins.rays(1, 5)
    wanted = render(field, origins, directions, 2.25, 3.3, backend="torch").features
    monkeypatch.setattr(library, "_load", lambda: "it is missing")
    monkeypatch.setattr(dispatch, "_told", set())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert torch.equal(render(field, origins, directions, 2.25, 3.3).features, wanted)
        assert torch.equal(sample_grid(field, 4), sample_grid(field, 4, backend="torch"))
    assert [r.message for r in caplog.records] == [
        "Rendering runs in PyTorch, about ten times slower: it is missing."
    ]
    with pytest.raises(library.UnavailableError, match="it is missing"):
        render(field, origins, directions, 2.25, 3.3, backend="cpu")
    assert any("it is missing" in line for line in dispatch.report())


def test_build_says_why_it_cannot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GEOINV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build.main() == 0
    assert "no C++ compiler" in capsys.readouterr().out
    monkeypatch.delenv("CXX")
    (tmp_path / "file").write_text("")
    with pytest.raises(build.BuildError, match="cannot be written"):
        build.build(tmp_path / "file" / "below")
    assert not (tmp_path / "cache").exists()
