"""The CUDA backend: the kernels for one shape of field, and tensors to addresses for their launches.

The functions take the same `Field` and `March` as the PyTorch backend and return the same sums. All work is
queued on PyTorch's current stream. A kernel's order of additions is not fixed, so last digits may differ from
run to run.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_int32, c_int64, c_void_p
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from geoinv_core.render import driver as drivers
from geoinv_core.render import nvrtc
from geoinv_core.render.field import ACTIVATIONS, DENSITIES, Field
from geoinv_core.render.job import Call, Job, UnavailableError, as_planes, pack, rows_of
from geoinv_core.render.march import Gradients, March, Sums, Wanted

CHUNK_SAMPLES = 1 << 22
"""Samples of one round of launches; each needs 20 bytes of room, 28 on the way back."""
QUAD = 4
"""Channels that are fetched together, as float4."""


class Launch(ctypes.Structure):
    """native/device.cuh, field by field."""

    _fields_ = (
        ("first", c_int64),
        *((name, c_int32) for name in ("slots", "per_entry", "from_", "count")),
        *((name, c_void_p) for name in ("z", "raw", "coefficient", "through", "gradient")),
        *((name, c_void_p) for name in ("order", "list", "listed")),
    )


@dataclass(frozen=True)
class Machine:
    """A device and the two libraries that reach it."""

    driver: drivers.Driver
    compiler: nvrtc.Compiler
    context: int
    arch: int
    processors: int
    shared: int
    """bytes of shared memory that a block may have"""
    stream: Callable[[], int]
    """address of PyTorch's current stream"""


@lru_cache(16)
def machine(index: int) -> Machine:
    """The machine of CUDA device `index`. Raises UnavailableError."""
    driver, compiler = drivers.load(), nvrtc.load(torch.version.cuda)
    try:
        context = driver.primary_context(index)
        major, minor, processors, shared = (
            driver.attribute(index, k)
            for k in (drivers.MAJOR, drivers.MINOR, drivers.PROCESSORS, drivers.SHARED)
        )
    except drivers.DriverError as error:
        raise UnavailableError(str(error)) from error

    def stream() -> int:
        return int(torch.cuda.current_stream(index).cuda_stream)

    return Machine(driver, compiler, context, 10 * major + minor, processors, shared, stream)


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


@dataclass(frozen=True)
class Shape:
    """What the kernels are compiled for."""

    channels: int
    hidden: int
    features: int
    planes: int
    dims: int
    density: int
    activation: int

    @staticmethod
    def of(field: Field) -> Shape:
        return Shape(
            field.planes.shape[2],
            field.w1.shape[0],
            field.feature_count,
            field.planes.shape[1],
            field.planes.dim() - 3,
            DENSITIES.index(field.density),
            ACTIVATIONS.index(field.activation),
        )

    def options(self) -> list[str]:
        return [f"-DGI_{name.upper()}={value}" for name, value in vars(self).items()]

    # Bytes of shared memory, as device.cuh and scatter.cuh lay it out.

    def _rows(self, floats: int) -> int:
        return 32 * (floats if floats // 4 % 2 else floats + 4)

    @property
    def weights(self) -> int:
        inputs, outputs = _up(self.channels, 4), _up(self.features + 1, 4)
        return 4 * (self.hidden * (inputs + outputs) + _up(self.hidden, 4) + outputs)

    @property
    def slab(self) -> int:
        return 4 * (self._rows(_up(self.channels, 4)) + 2 * 32 * self.planes * (1 << self.dims))

    @property
    def back(self) -> int:
        return 4 * (self._rows(_up(self.features + 1, 4)) + 32 * 8 + 32 * 3 + 64)


class Program:
    """Kernels for one shape of field on one device."""

    def __init__(self, on: Machine, shape: Shape) -> None:
        """Raises UnavailableError."""
        if shape.channels > 128:
            raise UnavailableError(f"the CUDA renderer takes up to 128 channels, not {shape.channels}")
        self.on, self.shape = on, shape
        self._functions: dict[str, int] = {}
        self._allowed: dict[str, int] = {}
        for decoder in (True, False):  # fails here and not in the middle of a backward pass
            self.warps_back(decoder)
        cubin, path = on.compiler.cubin(on.arch, shape.options())
        try:
            with on.driver.current(on.context):
                try:
                    self._module = on.driver.load(cubin)
                except drivers.DriverError:  # a damaged file in the cache
                    if not path.exists():
                        raise
                    self._module = on.driver.load(on.compiler.fresh_cubin(on.arch, shape.options()))
        except drivers.DriverError as error:
            raise UnavailableError(str(error)) from error

    def _warps(self, fixed: int, each: int) -> tuple[int, int]:
        """Warps of a block, and its shared memory. Raises UnavailableError where not even one fits."""
        for warps in (4, 2, 1):
            if fixed + warps * each <= self.on.shared:
                return warps, fixed + warps * each
        raise UnavailableError("the decoder is too large for the GPU's shared memory")

    def warps(self) -> tuple[int, int]:
        return self._warps(self.shape.weights, self.shape.slab)

    def warps_back(self, decoder: bool) -> tuple[int, int]:
        return self._warps(self.shape.weights * (2 if decoder else 1), self.shape.slab + self.shape.back)

    def launch(
        self, name: str, grid: tuple[int, int, int], threads: int, shared: int, job: Job, at: Launch
    ) -> None:
        driver = self.on.driver
        with driver.current(self.on.context):
            function = self._functions.get(name)
            if function is None:
                function = self._functions[name] = driver.function(self._module, f"gi_{name}")
            if shared > self._allowed.get(name, 48 << 10):
                driver.allow_shared(function, shared)
                self._allowed[name] = shared
            driver.launch(function, grid, threads, shared, self.on.stream(), (job, at))

    def over_samples(self, name: str, count: int | None, job: Job, at: Launch) -> None:
        """A kernel that decodes `count` samples (None: as many as are listed)."""
        warps, shared = self.warps()
        self._persistent(name, count, warps, shared, job, at)

    def back_over_samples(self, name: str, count: int | None, job: Job, at: Launch) -> None:
        warps, shared = self.warps_back(bool(job.g_w1))
        self._persistent(name, count, warps, shared, job, at)

    def _persistent(
        self, name: str, count: int | None, warps: int, shared: int, job: Job, at: Launch
    ) -> None:
        blocks = self.on.processors * 4  # each goes on until all samples are done
        if count is not None:
            blocks = min(blocks, -(-count // (32 * warps)))
        self.launch(name, (blocks, 1, 1), 32 * warps, shared, job, at)

    def over_rays(self, name: str, job: Job, at: Launch) -> None:
        self.launch(name, (-(-at.slots // 64), 1, 1), 64, 0, job, at)


_programs: dict[tuple[int, Shape], Program | str] = {}


def program(field: Field) -> Program:
    """The kernels for a field, compiled at first use. Raises UnavailableError, the same one each time."""
    if field.planes.dtype != torch.float32:
        raise UnavailableError(f"the CUDA renderer does not compute in {field.planes.dtype}")
    key = (field.planes.device.index or 0, Shape.of(field))
    if key not in _programs:
        try:
            _programs[key] = Program(machine(key[0]), key[1])
        except UnavailableError as error:
            _programs[key] = str(error)
    found = _programs[key]
    if isinstance(found, str):
        raise UnavailableError(found)
    return found


def forget() -> None:
    """Look for driver, compiler and devices again at the next use."""
    _programs.clear()
    machine.cache_clear()


def _repack(source: Tensor, result: Tensor) -> None:
    channels = source.shape[2]
    result[..., :channels] = source.flatten(3).transpose(2, 3)
    result[..., channels:] = 0


def _call(field: Field) -> Call:
    planes = field.planes
    if planes.data_ptr() % 16 and rows_of(planes, QUAD) is not None:
        planes = planes.clone()  # a view that begins between two float4
    return Call(field, pack(planes, QUAD, _repack))


class _PlaneGradient:
    """Laid out as the planes that the kernels read."""

    def __init__(self, field: Field, call: Call, wanted: bool) -> None:
        self.planes = field.planes
        self.direct = rows_of(field.planes, QUAD) is not None
        self.buffer: Tensor | None = None
        if wanted:
            rows = call.keep[0]
            self.buffer = torch.zeros_like(self.planes) if self.direct else rows.new_zeros(rows.shape)
            call.job.g_planes = self.buffer.data_ptr()

    def collect(self) -> Tensor | None:
        return self.buffer if self.direct or self.buffer is None else as_planes(self.buffer, self.planes)


class _Room:
    """What the kernels of one round need, for as many slots as the largest round has."""

    def __init__(self, march: March, like: Tensor, back: bool) -> None:
        B, R = march.origins.shape[:2]
        self.samples = march.coarse + march.fine
        width = int(R**0.5 + 0.5)
        if width * width == R and R > 1:  # tiles of 8 x 4, see ray_of
            self.per_entry = -(-width // 8) * -(-width // 4) * 32
        else:
            self.per_entry = _up(R, 32)
        self.total = B * self.per_entry
        self.slots = min(self.total, max(32, CHUNK_SAMPLES // self.samples // 32 * 32))
        arrays = 5 if back else 3
        self.numbers = like.new_empty(arrays, self.samples * self.slots)
        self.integers = torch.empty(2, self.samples * self.slots, dtype=torch.int32, device=like.device)
        self.listed = torch.zeros(1, dtype=torch.int32, device=like.device)

    def rounds(self) -> list[Launch]:
        """Launches that together cover every ray; one after the other in the same room."""
        found = []
        for first in range(0, self.total, self.slots):
            at = Launch(first, min(self.slots, self.total - first), self.per_entry)
            for k, name in enumerate(("z", "raw", "coefficient", "through", "gradient")):
                if k < len(self.numbers):
                    setattr(at, name, self.numbers[k].data_ptr())
            at.order, at.list = (row.data_ptr() for row in self.integers)
            at.listed = self.listed.data_ptr()
            found.append(at)
        return found


def _sorted(march: March) -> March:
    """One thread draws the fine samples of a ray, in order."""
    return march if march.u_fine is None else replace(march, u_fine=march.u_fine.sort(-1).values)


def _march(kernels: Program, room: _Room, march: March, job: Job, at: Launch) -> None:
    """Depths, raw values and shares of one round, and the list of samples that count."""
    at.from_, at.count = 0, march.coarse
    kernels.over_samples("raw", at.count * at.slots, job, at)
    if march.fine:
        kernels.over_rays("draw", job, at)
        at.from_, at.count = march.coarse, march.fine
        kernels.over_samples("raw", at.count * at.slots, job, at)
    kernels.over_rays("march", job, at)
    room.listed.zero_()
    bricks = at.slots // 4 * -(-room.samples // 8)
    kernels.launch("list", (-(-bricks // 4), 1, 1), 128, 0, job, at)


def render(field: Field, march: March) -> Sums:
    """See `march.Sums`. Raises UnavailableError."""
    kernels, call = program(field), _call(field)
    sums = call.sums(_sorted(march), field.feature_count)
    if march.origins.shape[1]:
        room = _Room(march, march.origins, back=False)
        for at in room.rounds():
            _march(kernels, room, march, call.job, at)
            if field.feature_count:
                kernels.over_samples("colours", None, call.job, at)
    return sums


def render_back(field: Field, march: March, g: Sums, wanted: Wanted) -> Gradients:
    """Gradients of the sums by the inputs; samples are computed again. Raises UnavailableError."""
    kernels, call = program(field), _call(field)
    call.set_march(_sorted(march))
    call.set(g_total=g.total, g_depth_sum=g.depth, g_opacity=g.opacity)
    found = call.gradients(field, wanted, origins=march.origins, directions=march.directions)
    planes = _PlaneGradient(field, call, wanted.planes)
    if march.origins.shape[1]:
        room = _Room(march, march.origins, back=True)
        for at in room.rounds():
            _march(kernels, room, march, call.job, at)
            if field.feature_count:
                kernels.over_samples("colours", None, call.job, at)
            kernels.over_rays("march_back", call.job, at)
            if wanted.planes or wanted.decoder or wanted.rays:
                kernels.back_over_samples("decode_back", None, call.job, at)
    found.planes = planes.collect()
    return found


def query(field: Field, points: Tensor, features: bool) -> tuple[Tensor, Tensor]:
    """Raw values [B, N] and features [B, N, F] (empty when not asked for). Raises UnavailableError."""
    kernels, call = program(field), _call(field)
    found = call.values(points, field.feature_count if features else None)
    if points.shape[1]:
        kernels.over_samples("query", found[0].numel(), call.job, Launch())
    return found


def query_back(field: Field, points: Tensor, g_raw: Tensor, g_features: Tensor, wanted: Wanted) -> Gradients:
    """Gradients of `query` with features. Raises UnavailableError."""
    kernels, call = program(field), _call(field)
    call.set(rays=points.shape[1], origins=points, g_raw=g_raw, g_features=g_features)
    found = call.gradients(field, wanted, origins=points)
    planes = _PlaneGradient(field, call, wanted.planes)
    if points.shape[1]:
        kernels.back_over_samples("query_back", g_raw.numel(), call.job, Launch())
    found.planes = planes.collect()
    return found


def fill_grid(
    field: Field,
    axis: Tensor,
    tables: tuple[Tensor, Tensor, Tensor],
    grid: Tensor,
    mask: Tensor | None,
    first: int = 0,
) -> None:
    """Write one entry's lattice from its tables, as `cpu_backend.fill_grid`. Raises UnavailableError."""
    kernels, call = program(field), Call.of_grid(field, axis, tables, grid, mask, first)
    rows, N = tables[0].shape[:2]
    kernels.launch("grid", (-(-rows // 4), -(-N // 4), -(-N // 64)), 64, 0, call.job, Launch())
