"""The CPU backend: tensors to addresses for the native library, and its results back.

The functions take the same `Field` and `March` as the PyTorch backend and return the same sums.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from geoinv_core.render.field import ACTIVATIONS, DENSITIES, Field
from geoinv_core.render.library import Job, Library, UnavailableError, library, threads
from geoinv_core.render.march import Gradients, March, Sums, Wanted

GRADIENT_BYTES = 150 << 20
"""All workers' own copies of the plane gradient together; more workers than fit here wait."""


class _Call:
    """A Job under construction, with the tensors it points into."""

    def __init__(self, field: Field, rows: Tensor) -> None:
        """rows: the planes as `_rows` or `_pack` give them."""
        self.job = Job()
        self.keep: list[Tensor] = [rows]
        planes = field.planes
        self.set(
            batch=planes.shape[0],
            planes=planes.shape[1],
            channels=planes.shape[2],
            channels_padded=rows.shape[-1],
            depth=planes.shape[3] if planes.dim() == 6 else 0,
            height=planes.shape[-2],
            width=planes.shape[-1],
            hidden=field.w1.shape[0],
            features=field.feature_count,
            density=DENSITIES.index(field.density),
            activation=ACTIVATIONS.index(field.activation),
            crop=int(field.crop is not None),
            crop_limit=0.0 if field.crop is None else field.box_warp / 2 - field.crop,
            distance_scale=field.distance_scale,
            distance_radius=field.distance_radius,
            entry_stride=rows.stride(0),
            plane_stride=rows.stride(1),
            texel_stride=rows.stride(2),
            plane_data=rows.data_ptr(),
            maps=field.plane_maps(),
            w1=field.w1,
            b1=field.b1,
            w2=field.w2,
            b2=field.b2,
            beta=field.beta,
        )

    def set(self, **values: Any) -> None:
        for name, value in values.items():
            if isinstance(value, Tensor):
                value = value.detach().contiguous()
                self.keep.append(value)
                value = value.data_ptr()
            setattr(self.job, name, value)

    def out(self, name: str, like: Tensor, *shape: int, zero: bool = False) -> Tensor:
        """A new tensor that the library writes."""
        tensor = like.new_zeros(shape) if zero else like.new_empty(shape)
        self.keep.append(tensor)
        setattr(self.job, name, tensor.data_ptr())
        return tensor


_packed: tuple[StorageWeakRef, tuple[object, ...], Tensor] | None = None


def _rows(planes: Tensor, lanes: int) -> Tensor | None:
    """[B, P, texels, C] over the planes' own memory, where it holds texels whole and evenly spaced."""
    if planes.shape[2] % lanes or torch.empty_like(planes, device="meta").stride() != planes.stride():
        return None  # of the second kind are expanded planes: a gradient could not lie as they do
    try:
        rows = planes.detach().movedim(2, -1).view(*planes.shape[:2], -1, planes.shape[2])
    except RuntimeError:
        return None
    return rows if rows.stride(-1) == 1 else None


def _pack(planes: Tensor, lib: Library) -> Tensor:
    """[B, P, texels, channels padded to the lanes], without a copy where `_rows` needs none.

    The last result is kept as long as its planes live unchanged, for turntables and chunks of points.
    Unchanged is what autograd's version counter says; writing through `.data` escapes both.
    """
    global _packed
    B, P, C = planes.shape[:3]
    padded = -(-C // lib.lanes) * lib.lanes
    if planes.numel() // C * padded // B >= 1 << 31:
        raise UnavailableError("these planes are too large for the CPU library")
    rows = _rows(planes, lib.lanes)
    if rows is not None:
        return rows
    known = not planes.is_inference()
    key = (planes.data_ptr(), planes._version, planes.shape, planes.stride(), padded) if known else ()
    kept = _packed
    if known and kept is not None and kept[1] == key and not kept[0].expired():
        return kept[2]
    source = planes.detach().contiguous()
    result = source.new_empty(B, P, source[0, 0, 0].numel(), padded)
    lib.repack("pack", source, result, B * P, C, padded)
    if known:
        _packed = (StorageWeakRef(planes.untyped_storage()), key, result)
    return result


def forget_planes() -> None:
    """Let go of the repacked planes that are kept for the next call."""
    global _packed
    _packed = None


def _prepare(field: Field) -> tuple[Library, _Call]:
    lib = library(field.planes.dtype)
    return lib, _Call(field, _pack(field.planes, lib))


def _set_march(call: _Call, march: March) -> None:
    R = march.origins.shape[1]
    side = math.isqrt(R)
    call.set(
        rays=R,
        image_width=side if side * side == R and R > 1 else 0,
        coarse=march.coarse,
        fine=march.fine,
        disparity=int(march.disparity),
        jitter=march.jitter,
        skip=march.skip,
        origins=march.origins,
        directions=march.directions,
        near=march.near,
        far=march.far,
    )
    if march.u_coarse is not None:
        call.set(u_coarse=march.u_coarse)
    if march.u_fine is not None:
        call.set(u_fine=march.u_fine)


def render(field: Field, march: March) -> Sums:
    """See `march.Sums`. Raises UnavailableError."""
    lib, call = _prepare(field)
    B, R = march.origins.shape[:2]
    _set_march(call, march)
    like, n = march.origins, march.coarse + march.fine
    total = call.out("total", like, B, R, field.feature_count)
    depth, opacity = call.out("depth_sum", like, B, R), call.out("opacity", like, B, R)
    extent = call.out("range", like, B, R, 2)
    weights = call.out("weights", like, B, R, n - 1) if march.keep else like.new_empty(0)
    depths = call.out("depths", like, B, R, n) if march.keep else like.new_empty(0)
    if R:
        lib.run("render", call.job, lib.count("tiles", call.job))
    return Sums(total, depth, opacity, extent, weights, depths)


class _PlaneGradient:
    """One buffer per worker, laid out as the planes that the library reads; summed at the end."""

    def __init__(self, field: Field, call: _Call, lib: Library, wanted: bool) -> None:
        self.planes, self.lib, self.padded = field.planes, lib, call.job.channels_padded
        self.direct = _rows(field.planes, lib.lanes) is not None
        size = self.planes.numel() // self.planes.shape[2] * self.padded
        workers = threads()
        if wanted:
            workers = max(1, min(workers, GRADIENT_BYTES // (size * self.planes.element_size())))
            self.buffers = [
                torch.zeros_like(self.planes) if self.direct else self.planes.new_zeros(size)
                for _ in range(workers)
            ]
            self.slots: list[int | None] = [b.data_ptr() for b in self.buffers]
        else:
            self.buffers, self.slots = [], [None] * workers

    def collect(self) -> Tensor:
        first, *rest = self.buffers
        for other in rest:
            first += other
        if self.direct:
            return first
        B, P, C = self.planes.shape[:3]
        if self.padded == C:  # handed back as it lies: the strides say the rest
            return first.view(B, P, *self.planes.shape[3:], C).movedim(-1, 2)
        result = first.new_empty(self.planes.shape)
        self.lib.repack("unpack", first, result, B * P, C, self.padded)
        return result


def _weight_gradients(call: _Call, field: Field, wanted: bool) -> dict[str, Tensor]:
    names = ("w1", "b1", "w2", "b2")
    if not wanted:
        return {}
    return {
        name: call.out(f"g_{name}", v, *v.shape, zero=True) for name in names for v in (getattr(field, name),)
    }


def render_back(field: Field, march: March, g: Sums, wanted: Wanted) -> Gradients:
    """Gradients of the sums by the inputs; samples are computed again. Raises UnavailableError."""
    lib, call = _prepare(field)
    _set_march(call, march)
    call.set(g_total=g.total, g_depth_sum=g.depth, g_opacity=g.opacity)
    found = Gradients(**_weight_gradients(call, field, wanted.decoder))
    if wanted.beta:
        found.beta = call.out("g_beta", field.beta, zero=True)
    if wanted.rays:
        like = march.origins
        found.origins = call.out("g_origins", like, *like.shape)
        found.directions = call.out("g_directions", like, *like.shape)
    planes = _PlaneGradient(field, call, lib, wanted.planes)
    if march.origins.shape[1]:
        lib.run("render_back", call.job, lib.count("tiles", call.job), planes.slots)
    if wanted.planes:
        found.planes = planes.collect()
    return found


def query(field: Field, points: Tensor, features: bool) -> tuple[Tensor, Tensor]:
    """Raw values [B, N] and features [B, N, F] (empty when not asked for). Raises UnavailableError."""
    lib, call = _prepare(field)
    B, N = points.shape[:2]
    call.set(rays=N, origins=points)
    raw = call.out("raw", points, B, N)
    values = (
        call.out("feature_values", points, B, N, field.feature_count) if features else points.new_empty(0)
    )
    if N:
        lib.run("query", call.job, lib.count("slabs", call.job))
    return raw, values


def query_back(field: Field, points: Tensor, g_raw: Tensor, g_features: Tensor, wanted: Wanted) -> Gradients:
    """Gradients of `query` with features. Raises UnavailableError."""
    lib, call = _prepare(field)
    call.set(rays=points.shape[1], origins=points, g_raw=g_raw, g_features=g_features)
    found = Gradients(**_weight_gradients(call, field, wanted.decoder))
    if wanted.rays:
        found.origins = call.out("g_origins", points, *points.shape)
    planes = _PlaneGradient(field, call, lib, wanted.planes)
    if points.shape[1]:
        lib.run("query_back", call.job, lib.count("slabs", call.job), planes.slots)
    if wanted.planes:
        found.planes = planes.collect()
    return found


def fill_grid(
    field: Field,
    batch: int,
    axis: Tensor,
    tables: tuple[Tensor, Tensor, Tensor],
    grid: Tensor,
    mask: Tensor | None,
) -> None:
    """Write one entry's lattice from its tables (see `lattice`). Raises UnavailableError.

    Args:
        axis: [N]; tables: XY [N, N, hidden], XZ and YZ [N, hidden, N padded to 8]; grid: [N, N, N], written;
        mask: None, or uint8 [N, N, ceil(N / 8)], the runs of eight to write.
    """
    lib = library(grid.dtype)
    call = _Call(field, axis.new_empty(1, 1, 1, field.planes.shape[2]))  # tables are read instead of planes
    call.set(resolution=axis.shape[0], axis=axis, table_xy=tables[0], table_xz=tables[1], table_yz=tables[2])
    if mask is not None:
        call.set(mask=mask)
    call.job.grid = grid.data_ptr()
    lib.run("grid", call.job, axis.shape[0])
