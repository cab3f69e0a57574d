"""The CUDA kernels against their PyTorch twin: on a GPU if there is one, and always on a CPU (host_cuda)."""

import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from geoinv_core.render import (
    EG3D_AXES,
    PANOHEAD_AXES,
    Field,
    build,
    cuda_backend,
    dispatch,
    driver,
    nvrtc,
    query,
    render,
    sample_grid,
)
from geoinv_core.render.example import ball_field, random_field
from geoinv_core.render.job import UnavailableError

LIMITS = {"near": 2.25, "far": 3.3}


@pytest.fixture(params=["host"] + ["gpu"] * torch.cuda.is_available())
def device(request: pytest.FixtureRequest, host_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where tensors have to be; on "cpu", backend "cuda" then runs the kernels' source there."""
    if request.param == "gpu":
        yield "cuda"
        return
    with pretend(host_cuda, monkeypatch):
        yield "cpu"


class pretend:  # noqa: N801 - used as a function
    """A CPU takes the place of a CUDA device, also in `dispatch`."""

    def __init__(self, host_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        try:
            build.find_compiler()
        except build.BuildError as error:
            pytest.skip(str(error))
        self.nvrtc, self.cuda = host_cuda.Nvrtc(), host_cuda.Cuda()
        on = host_cuda.machine(self.nvrtc, self.cuda)
        resolve = dispatch.resolve

        def resolve_cuda(backend: str, field: Field) -> str:
            if backend != "cuda":
                return resolve(backend, field)
            cuda_backend.program(field)
            return "cuda"

        monkeypatch.setattr(cuda_backend, "machine", lambda index: on)
        monkeypatch.setattr(dispatch, "resolve", resolve_cuda)
        monkeypatch.setattr(cuda_backend, "_programs", {})

    def __enter__(self) -> "pretend":
        return self

    def __exit__(self, *_error: object) -> None:
        cuda_backend._programs.clear()


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOINV_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _small_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_backend, "CHUNK_SAMPLES", 28 * 64)  # several launches even here


@pytest.mark.parametrize("sampling", ["importance", "uniform", "sphere", "disparity"])
def test_twin(sampling: str, device: str, twins: Any) -> None:
    field = random_field(16, 24, 9, (24, 24), batch=2, sharpness=2.0, **twins.RULES["sdf"]).to(device)
    origins, directions = (t.to(device) for t in twins.rays(2, 49))
    options = {**LIMITS, "samples": (16, 12), "sampling": sampling}
    twins.compare(field, origins, directions, options, backend="cuda")


@pytest.mark.parametrize("rules", ["softplus", "raw", "panohead"])
def test_twin_rules(rules: str, device: str, twins: Any) -> None:
    field = random_field(16, 24, 9, (24, 24), batch=2, sharpness=2.0, **twins.RULES[rules]).to(device)
    origins, directions = (t.to(device) for t in twins.rays(2, 37))
    twins.compare(field, origins, directions, {**LIMITS, "samples": (9, 7)}, backend="cuda")


@pytest.mark.parametrize(("size", "axes"), [((5, 9), EG3D_AXES), ((3, 6, 5), PANOHEAD_AXES)])
@pytest.mark.parametrize("jitter", ["zero", "random"])
def test_twin_odd_sizes(size: tuple[int, ...], axes: Any, jitter: str, device: str, twins: Any) -> None:
    field = random_field(5, 7, 3, size, batch=2, axes=axes, sharpness=2.0).to(device)
    origins, directions = (t.to(device) for t in twins.rays(2, 37))
    draws: Any = jitter
    if jitter == "random":
        g = torch.Generator().manual_seed(0)
        draws = torch.rand(2, 37, 11, generator=g), torch.rand(2, 37, 7, generator=g)
    twins.compare(field, origins, directions, {"samples": (11, 7), "jitter": draws}, backend="cuda")


def test_twin_of_the_usual_shape_exact_and_not(device: str, twins: Any) -> None:
    field = replace(ball_field(64), beta=torch.tensor(0.01)).to(device)
    origins, directions = (t.to(device) for t in twins.rays(1, 49))
    for exact in (True, False):
        options = {**LIMITS, "samples": (24, 24), "exact": exact}
        twins.compare(field, origins, directions, options, backend="cuda")
    # planes as a synthesis network leaves them are read without a copy
    lying = field.planes.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    twins.compare(replace(field, planes=lying), origins, directions, options, backend="cuda")


def test_weights_and_depths(device: str, twins: Any) -> None:
    field = random_field(16, 24, 9, (24, 24), sharpness=2.0, **twins.RULES["sdf"]).to(device)
    origins, directions = (t.to(device) for t in twins.rays(1, 20))
    a, b = (
        render(field, origins, directions, samples=(12, 12), return_weights=True, backend=k, **LIMITS)
        for k in ("torch", "cuda")
    )
    assert a.weights is not None
    assert b.weights is not None
    assert a.depths is not None
    assert b.depths is not None
    assert torch.allclose(a.weights, b.weights, atol=2e-4)
    assert torch.allclose(a.depths, b.depths, atol=2e-4)


def test_query_twin_and_gradients(device: str, twins: Any) -> None:
    field = random_field(16, 24, 9, (24, 24), batch=2, **twins.RULES["sdf"]).to(device)
    points = (torch.rand(2, 150, 3) * 1.2 - 0.6).to(device)
    found = []
    for backend in ("torch", "cuda"):
        leaves: dict[str, Any] = {k: getattr(field, k).clone().requires_grad_() for k in twins.TENSORS[:5]}
        raw, features = query(replace(field, **leaves), points, backend=backend)
        scale = torch.arange(150.0, device=device)[None, :, None]
        loss = (raw * scale).mean() + features.square().mean()
        found.append((raw.detach(), features.detach(), *torch.autograd.grad(loss, list(leaves.values()))))
    for x, y in zip(*found, strict=True):
        assert (x - y).norm() <= 1e-4 * x.norm() + 1e-6
    wanted = cuda_backend.Wanted(planes=False, decoder=False, beta=False, rays=True)
    g = torch.randn(2, 150).to(device), torch.randn(2, 150, 9).to(device)
    moved = points.clone().requires_grad_()
    raw, features = query(field, moved, backend="torch")
    (expected,) = torch.autograd.grad((raw[..., 0] * g[0]).sum() + (features * g[1]).sum(), moved)
    got = cuda_backend.query_back(field, points, *g, wanted).origins
    assert got is not None
    assert (got - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize("sparse", [False, True])
def test_grid_twin(sparse: bool, device: str) -> None:
    field = ball_field(32, 16, 24, 9).to(device)
    for N in (6, 19):
        expected = sample_grid(field, N, backend="torch", sparse=sparse)
        found = sample_grid(field, N, backend="cuda", sparse=sparse)
        assert (found - expected).abs().max() < 1e-4


def test_nothing_to_do(device: str, twins: Any) -> None:
    field = random_field(16, 24, 9, (24, 24), **twins.RULES["sdf"]).to(device)
    none = torch.zeros(1, 0, 3, device=device)
    assert render(field, none, none, 1, 2, backend="cuda").features.shape == (1, 0, 9)
    assert query(field, none, backend="cuda")[0].shape == (1, 0, 1)
    # no sample counts: nothing is listed, everything is empty
    empty = replace(field, distance_radius=-5.0)
    origins, directions = (t.to(device) for t in twins.rays(1, 36))
    out = render(empty, origins, directions, backend="cuda", **LIMITS)
    assert not out.opacity.any()
    assert torch.equal(out.features, torch.full_like(out.features, -1.0))


def test_bad_numbers_do_no_harm(device: str, twins: Any) -> None:
    field = random_field(16, 24, 9, (24, 24), **twins.RULES["sdf"]).to(device)
    origins, directions = (t.to(device) for t in twins.rays(1, 36))
    for bad in (torch.nan, torch.inf, -torch.inf, 1e38):
        broken = origins.clone()
        broken[:, 3] = bad
        planes = field.planes.clone()
        planes[0, 1, :, 5, :] = bad
        for f, o in ((field, broken), (replace(field, planes=planes), origins)):
            leaf = f.planes.clone().requires_grad_()
            near = torch.full(origins.shape[:2], 2.25, device=device)
            from geoinv_core.render import ops
            from geoinv_core.render.march import March

            job = March(o, directions, near, near + 1, None, None, 12, 12)
            sums = ops.march(replace(f, planes=leaf), job, "cuda")
            torch.autograd.grad(sums.total.sum(), leaf)  # no address outside, no endless loop
    out = query(field, torch.full((1, 40, 3), 1e30, device=device), backend="cuda")[1]
    assert out.isfinite().all()


def test_bad_numbers_are_named(device: str, twins: Any) -> None:
    field = random_field(16, 24, 9, (24, 24), **twins.RULES["softplus"]).to(device)
    origins, directions = (t.to(device) for t in twins.rays(1, 36))
    holed = field.planes.clone()
    holed[0, 0, 3, 12, 12] = torch.nan
    far = origins.clone()
    far[0, 3, 1] = torch.inf
    for f, o, name in (
        (replace(field, planes=holed), origins, "the planes hold"),
        (field, far, "the rays hold"),
        (replace(field, b1=field.b1 * torch.nan), far, "the rays and decoder hold"),
    ):
        with pytest.raises(ValueError, match=name):
            render(f, o, directions, backend="cuda", **LIMITS)


ARCHS = (75, 80, 86, 89, 90, 100, 120)
DECODERS = {"gi_raw", "gi_colours", "gi_decode_back", "gi_query", "gi_query_back"}
OTHERS = {"gi_draw", "gi_march", "gi_list", "gi_march_back", "gi_grid"}


def test_every_arch_compiles(record_property: Any) -> None:
    """The bundled model's shape, without a GPU; registers and spills go to the report (-rP shows them)."""
    compiler = nvrtc.load(torch.version.cuda)
    shape = cuda_backend.Shape(32, 64, 6, 3, 2, density=1, activation=0)
    options = [*shape.options(), "--ptxas-options=-v"]
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda arch: compiler.compile(arch, options), ARCHS))
    for arch, (cubin, log) in zip(ARCHS, made, strict=True):
        assert cubin.startswith(b"\x7fELF")
        used = kernel_use(log)
        assert set(used) == DECODERS | OTHERS
        for name, (registers, spilled) in used.items():
            text = f"{registers} registers, {spilled} bytes spilled"
            print(f"sm_{arch} {name}: {text}")
            record_property(f"sm_{arch} {name}", text)
            assert registers <= 192, name  # two blocks of 128 threads have room on every arch
            assert spilled <= (0 if name in DECODERS else 32), name


def kernel_use(log: str) -> dict[str, tuple[int, int]]:
    """Registers and spilled bytes by kernel, from what ptxas -v says."""
    found = {}
    for part in log.split("Compiling entry function")[1:]:
        name = re.search(r"'(\w+)'", part)
        registers = re.search(r"Used (\d+) registers", part)
        spilled = re.search(r"(\d+) bytes spill stores", part)
        assert name
        assert registers
        assert spilled
        found[name[1]] = int(registers[1]), int(spilled[1])
    return found


# ---- the machinery, without a GPU ------------------------------------------------------------------


def test_cubins_are_kept_and_replaced_when_damaged(
    host_cuda: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GEOINV_CACHE", str(tmp_path))
    field = random_field(4, 3, 1, (4, 4))
    points = torch.zeros(1, 3, 3)
    with pretend(host_cuda, monkeypatch) as first:
        expected = query(field, points, backend="cuda")[0]
        assert len(first.nvrtc.compiled) == 1
        assert "--gpu-architecture=sm_75" in first.nvrtc.compiled[0]
    (kept,) = (tmp_path / "render" / "cuda").iterdir()
    assert kept.name.endswith("-sm75-nvrtc12.8.cubin")
    with pretend(host_cuda, monkeypatch) as second:
        assert torch.equal(query(field, points, backend="cuda")[0], expected)
        assert second.nvrtc.compiled == []
        query(random_field(4, 3, 2, (4, 4)), points, backend="cuda")
        assert len(second.nvrtc.compiled) == 1  # another shape is another program
    kept.write_bytes(b"half a file")
    with pretend(host_cuda, monkeypatch) as third:
        assert torch.equal(query(field, points, backend="cuda")[0], expected)
        assert len(third.nvrtc.compiled) == 1
    assert kept.read_bytes().startswith(b"\x7fELF")
    assert not list(tmp_path.rglob("*.part"))


def test_a_cache_that_cannot_be_written(
    host_cuda: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GEOINV_CACHE", str(tmp_path / "file"))
    with pretend(host_cuda, monkeypatch):
        query(random_field(4, 3, 1, (4, 4)), torch.zeros(1, 3, 3), backend="cuda")


def fall_back(field: Field, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is said when backend "auto" meets this field on a CUDA device, and cannot."""
    monkeypatch.setattr(dispatch, "_told", set())
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert dispatch.resolve("auto", field.to("meta").map(lambda t: OnCuda(t))) == "torch"
    (record,) = caplog.records
    return record.message


class OnCuda(torch.Tensor):
    """A tensor that says it lies on a CUDA device."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", 0)


def test_why_not(
    host_cuda: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("GEOINV_CACHE", str(tmp_path))
    field = random_field(4, 3, 1, (4, 4))
    told = "Rendering runs in PyTorch, about ten times slower: "
    for how, why in (
        ({"archs": (90,)}, "the CUDA compiler 12.8 does not know sm_75"),
        ({"compiler": "kernels.cu(3): error: no"}, "the CUDA compiler failed (kernels.cu(3): error: no)"),
        (
            {"driver": "cuModuleLoadData"},
            "the CUDA driver could not load the renderer (out of luck, error 209)",
        ),
        ({"shared": 1000}, "the decoder is too large for the GPU's shared memory"),
    ):
        libraries = host_cuda.Nvrtc(), host_cuda.Cuda()
        if "compiler" in how:
            libraries[0].fails = how["compiler"]
        if "driver" in how:
            libraries[1].fails[how["driver"]] = 209
        on = host_cuda.machine(*libraries)
        if "archs" in how:
            on.compiler.archs = how["archs"]
        on = replace(on, shared=how.get("shared", on.shared))
        monkeypatch.setattr(cuda_backend, "machine", lambda index, on=on: on)
        monkeypatch.setattr(cuda_backend, "_programs", {})
        assert fall_back(field, caplog, monkeypatch) == f"{told}{why}."
        with pytest.raises(UnavailableError):
            cuda_backend.program(field)
    with pytest.raises(UnavailableError, match="float64"):
        cuda_backend.program(field.to(torch.float64))
    with pytest.raises(UnavailableError, match="128 channels"):
        cuda_backend.program(random_field(130, 3, 1, (2, 2)))


def test_without_driver_or_compiler(monkeypatch: pytest.MonkeyPatch, host_cuda: Any) -> None:
    def missing(name: str) -> None:
        raise OSError("no such file")

    monkeypatch.setattr(driver.ctypes, "CDLL", missing)
    driver.load.cache_clear()
    nvrtc.load.cache_clear()
    with pytest.raises(UnavailableError, match=r"driver's .* does not load"):
        driver.load()
    with pytest.raises(UnavailableError, match=r"NVRTC.* was not found"):
        nvrtc.load("12.8")
    monkeypatch.undo()
    driver.load.cache_clear()
    nvrtc.load.cache_clear()
    cuda = host_cuda.Cuda()
    cuda.fails["cuInit"] = 100
    with pytest.raises(driver.DriverError, match=r"could not start .out of luck, error 100"):
        driver.Driver(cuda)


def test_a_launch_that_fails_is_an_error(
    host_cuda: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GEOINV_CACHE", str(tmp_path))
    with pretend(host_cuda, monkeypatch) as machine:
        machine.cuda.fails["cuLaunchKernel"] = 700
        with pytest.raises(driver.DriverError, match=r"start a kernel .out of luck, error 700"):
            query(random_field(4, 3, 1, (4, 4)), torch.zeros(1, 3, 3), backend="cuda")


def test_report_says_what_a_machine_has(host_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert dispatch.report()[0] == "cuda: not in this PyTorch"
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert dispatch.report()[0] == "cuda: no device"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    on = host_cuda.machine(host_cuda.Nvrtc(), host_cuda.Cuda())
    monkeypatch.setattr(cuda_backend, "machine", lambda index: on)
    assert dispatch.report()[0] == "cuda: NVRTC 12.8 for sm_75"

    def broken(index: int) -> None:
        raise UnavailableError("it is missing")

    monkeypatch.setattr(cuda_backend, "machine", broken)
    assert dispatch.report()[0] == "cuda: no, it is missing"
