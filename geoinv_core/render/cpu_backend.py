"""The CPU backend: tensors to addresses for the native library, and its results back.

The functions take the same `Field` and `March` as the PyTorch backend and return the same sums.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geoinv_core.render.field import Field
from geoinv_core.render.job import Call, as_planes, pack, rows_of
from geoinv_core.render.library import Library, library, threads
from geoinv_core.render.march import Gradients, March, Sums, Wanted
from geoinv_core.render.merge import merged

GRADIENT_BYTES = 150 << 20
"""All workers' own copies of the plane gradient together; more workers than fit here wait."""


def _prepare(field: Field, merge: bool = False) -> tuple[Library, Call]:
    """merge: for values, not for gradients, which belong to single planes."""
    lib = library(field.planes.dtype)
    B, P, C = field.planes.shape[:3]

    def repack(source: Tensor, result: Tensor) -> None:
        # the march guesses where nothing is seen, and would not meet what lies there
        if not source.sum().isfinite() and not source.isfinite().all():
            raise ValueError("The picture cannot be trusted: the planes hold NaN or inf.")
        lib.repack("pack", source, result, B * P, C, result.shape[-1])

    rows = pack(field.planes, lib.lanes, repack)
    if merge and rows.data_ptr() != field.planes.data_ptr():  # else nothing is kept from call to call
        field, rows = merged(field, rows)
    return lib, Call(field, rows)


def render(field: Field, march: March) -> Sums:
    """See `march.Sums`. Raises UnavailableError."""
    lib, call = _prepare(field, merge=True)
    sums = call.sums(march, field.feature_count)
    if march.origins.shape[1]:
        lib.run("render", call.job, lib.count("tiles", call.job))
    return sums


class _PlaneGradient:
    """One buffer per worker, laid out as the planes that the library reads; summed at the end."""

    def __init__(self, field: Field, call: Call, lib: Library, wanted: bool) -> None:
        self.planes, self.lib = field.planes, lib
        self.direct = rows_of(field.planes, lib.lanes) is not None
        rows = call.keep[0]
        workers = threads()
        if wanted:
            workers = max(1, min(workers, GRADIENT_BYTES // (rows.numel() * rows.element_size())))
            self.buffers = [
                torch.zeros_like(self.planes) if self.direct else rows.new_zeros(rows.shape)
                for _ in range(workers)
            ]
            self.slots: list[int | None] = [b.data_ptr() for b in self.buffers]
        else:
            self.buffers, self.slots = [], [None] * workers

    def collect(self) -> Tensor | None:
        if not self.buffers:
            return None
        first, *rest = self.buffers
        for other in rest:
            first += other
        if self.direct:
            return first
        B, P, C = self.planes.shape[:3]
        if first.shape[-1] == C:
            return as_planes(first, self.planes)
        result = first.new_empty(self.planes.shape)
        self.lib.repack("unpack", first, result, B * P, C, first.shape[-1])
        return result


def render_back(field: Field, march: March, g: Sums, wanted: Wanted) -> Gradients:
    """Gradients of the sums by the inputs; samples are computed again. Raises UnavailableError."""
    lib, call = _prepare(field)
    call.set_march(march)
    call.set(g_total=g.total, g_depth_sum=g.depth, g_opacity=g.opacity)
    found = call.gradients(field, wanted, origins=march.origins, directions=march.directions)
    planes = _PlaneGradient(field, call, lib, wanted.planes)
    if march.origins.shape[1]:
        lib.run("render_back", call.job, lib.count("tiles", call.job), planes.slots)
    found.planes = planes.collect()
    return found


def query(field: Field, points: Tensor, features: bool) -> tuple[Tensor, Tensor]:
    """Raw values [B, N] and features [B, N, F] (empty when not asked for). Raises UnavailableError."""
    lib, call = _prepare(field, merge=True)
    found = call.values(points, field.feature_count if features else None)
    if points.shape[1]:
        lib.run("query", call.job, lib.count("slabs", call.job))
    return found


def query_back(field: Field, points: Tensor, g_raw: Tensor, g_features: Tensor, wanted: Wanted) -> Gradients:
    """Gradients of `query` with features. Raises UnavailableError."""
    lib, call = _prepare(field)
    call.set(rays=points.shape[1], origins=points, g_raw=g_raw, g_features=g_features)
    found = call.gradients(field, wanted, origins=points)
    planes = _PlaneGradient(field, call, lib, wanted.planes)
    if points.shape[1]:
        lib.run("query_back", call.job, lib.count("slabs", call.job), planes.slots)
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
    """Write one entry's lattice from its tables (see `lattice`). Raises UnavailableError.

    Args:
        axis: [N]; tables: XY [X, N, hidden], XZ and YZ [X or N, blocks, hidden, 16], in blocks of sixteen z;
            grid: [N, N, N], of which x from `first` to first + X is written;
        mask: None, or uint8 [N, N, ceil(N / 8)], the runs of eight to write.
    """
    lib, call = library(grid.dtype), Call.of_grid(field, axis, tables, grid, mask, first)
    lib.run("grid", call.job, tables[0].shape[0])
