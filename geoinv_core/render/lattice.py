"""`sample_grid`: raw density or distance on an aligned lattice, whole or only near the surface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as fn

from geoinv_core.render import dispatch, torch_backend
from geoinv_core.render.field import Field

BLOCK = 4
"""Fine cells per side of a coarse one."""
COARSE = 0.1
"""Share of a sparse lattice's time that its coarse cells take."""
ROWS = 64
"""Steps in x whose tables are made at once."""

OnShare = Callable[[float], None]
"""Is told the share that is done, in [0, 1); what it raises stops the work."""


def sample_grid(
    field: Field,
    resolution: int,
    backend: str = "auto",
    sparse: bool = False,
    level: float = 0.0,
    on_share: OnShare | None = None,
) -> Tensor:
    """Raw density, or signed distance, on an aligned lattice over the box.

    Args:
        resolution: points per axis, at least 2; coordinate i is -side / 2 + i * side / (resolution - 1).
        sparse: evaluate a lattice of every fourth point first, the rest only in cells where the surface at
            `level` can pass: corners lie on both sides or, for a distance, nearer than the cell is large (and
            in their neighbours). Elsewhere values are interpolated, and on the right side of `level`; what
            is thinner than a cell and touches none of these is missed.
        on_share: hears of progress.
    Returns: [B, resolution, resolution, resolution], indexed [x, y, z]; no gradient.
    """
    if resolution < 2:
        raise ValueError(f"resolution has to be at least 2, got {resolution}.")
    with torch.no_grad():
        field = field.detach()
        half = field.box_warp / 2
        axis = torch.linspace(-half, half, resolution, dtype=torch.float64).to(field.planes)
        out = field.planes.new_empty(field.batch, resolution, resolution, resolution)
        for b in range(field.batch):

            def done(share: float, before: int = b) -> None:
                if on_share is not None:
                    on_share((before + share) / field.batch)

            filler = _filler(field, b, backend)
            if sparse and resolution > 4 * BLOCK:
                _fill_sparse(field, filler, axis, out[b], level, done)
            else:
                filler.fill(axis, out[b], None, done)
        return out


class _ByTables:
    """Natively, with the first decoder layer applied to the planes once."""

    def __init__(self, field: Field, batch: int, native: ModuleType, sights: list[_Sight]) -> None:
        self.field, self.batch, self.native, self.sights = field, batch, native, sights

    def _table(self, first: int, second: int, rows: Tensor, columns: Tensor) -> Tensor:
        """What the planes that see two axes give to the hidden units, [hidden, rows, columns].

        Args:
            rows, columns: coordinates along axis `first` and, larger, axis `second`.
        """
        field, P = self.field, len(self.sights)
        total = field.w1.new_zeros(field.w1.shape[0], rows.shape[0], columns.shape[0])
        for p, sight in enumerate(self.sights):
            if {sight.u_axis, sight.v_axis} != {first, second}:
                continue
            turned = sight.v_axis > sight.u_axis
            u, v = (rows, columns) if turned else (columns, rows)
            v, u = torch.meshgrid(v * sight.v_scale, u * sight.u_scale, indexing="ij")
            found = fn.grid_sample(
                field.planes[self.batch, p : p + 1],
                torch.stack([u, v], -1)[None],
                mode="bilinear",
                padding_mode="zeros",
                align_corners=False,
            )
            part = ((field.w1 / P) @ found.flatten(2)[0]).view(-1, *u.shape)
            total += part.transpose(1, 2) if turned else part
        return total

    def fill(self, axis: Tensor, out: Tensor, mask: Tensor | None, done: OnShare) -> None:
        yz = _in_blocks(self._table(1, 2, axis, axis))
        for first in range(0, axis.shape[0], ROWS):
            done(first / axis.shape[0])
            rows = axis[first : first + ROWS]
            xy = self._table(0, 1, rows, axis) + self.field.b1[:, None, None]
            xz = _in_blocks(self._table(0, 2, rows, axis))
            tables = (xy.permute(1, 2, 0).contiguous(), xz, yz)
            self.native.fill_grid(self.field, axis, tables, out, mask, first)


def _in_blocks(table: Tensor) -> Tensor:
    """[hidden, rows, N] to [rows, blocks of sixteen, hidden, 16], which a kernel reads from end to end."""
    blocks: Tensor = fn.pad(table, (0, -table.shape[2] % 16)).unflatten(2, (-1, 16))
    return blocks.permute(1, 2, 0, 3).contiguous()


class _ByPoints:
    """Point by point, for any device, axes and tri-grids."""

    def __init__(self, field: Field, batch: int, native: ModuleType | None) -> None:
        planes = field.planes[batch : batch + 1]
        if planes.is_inference():
            with torch.inference_mode(False):
                planes = planes.clone()  # their rows can be kept from call to call, see `job.pack`
        self.field = replace(field, planes=planes)
        self.native = native

    def fill(self, axis: Tensor, out: Tensor, mask: Tensor | None, done: OnShare) -> None:
        N = axis.shape[0]
        y, z = torch.meshgrid(axis, axis, indexing="ij")
        for i in range(N):
            done(i / N)
            points = torch.stack([axis[i].expand_as(y), y, z], -1)
            wanted = None if mask is None else mask[i].repeat_interleave(8, 1)[:, :N].bool()
            points = points.reshape(1, -1, 3) if wanted is None else points[wanted].unsqueeze(0)
            if self.native is not None:
                raw, _ = self.native.query(self.field, points, False)
            else:
                raw = torch_backend.query_raw(self.field, points)
            if wanted is None:
                out[i] = raw.view(N, N)
            else:
                out[i][wanted] = raw[0]


class _Sight(NamedTuple):
    """The world axes that a plane's u and v run along, and their scales."""

    u_axis: int
    v_axis: int
    u_scale: float
    v_scale: float


def _sights(field: Field) -> list[_Sight] | None:
    """Of every plane; None where axes mix, and of tri-grids, whose six tables cost more than points do."""
    if field.planes.dim() != 5:
        return None
    sights = []
    for m in field.plane_maps().tolist():
        found = []
        for k in (0, 1):
            used = [(i, m[i][k]) for i in range(3) if abs(m[i][k]) > 1e-9]
            if len(used) != 1:
                return None
            found.append(used[0])
        (u_axis, u_scale), (v_axis, v_scale) = found
        if u_axis == v_axis:
            return None
        sights.append(_Sight(u_axis, v_axis, u_scale, v_scale))
    return sights


def _filler(field: Field, batch: int, backend: str) -> _ByTables | _ByPoints:
    chosen = dispatch.resolve(backend, field)
    native = None if chosen == "torch" else dispatch.native(chosen)
    sights = _sights(field)
    if native is not None and sights is not None:
        return _ByTables(field, batch, native, sights)
    return _ByPoints(field, batch, native)


def _fill_sparse(
    field: Field, filler: _ByTables | _ByPoints, axis: Tensor, out: Tensor, level: float, done: OnShare
) -> None:
    N = axis.shape[0]
    picks = torch.unique(torch.cat([torch.arange(0, N, BLOCK), torch.tensor([N - 1])])).to(axis.device)
    K = len(picks)
    coarse = out.new_empty(K, K, K)
    filler.fill(axis[picks], coarse, None, lambda share: done(share * COARSE))
    inside = (coarse > level).to(coarse)[None, None]
    most, least = fn.max_pool3d(inside, 2, 1), 1 - fn.max_pool3d(1 - inside, 2, 1)
    active = most != least
    if field.density == "sdf":
        reach = (axis[1] - axis[0]) * BLOCK * 3**0.5
        active |= -fn.max_pool3d(-(coarse - level).abs()[None, None], 2, 1) < reach
    # [K - 1] cells per axis, and their neighbours
    active = fn.max_pool3d(active.to(coarse), 3, 1, 1)[0, 0] > 0
    # every point belongs to the cell that starts at or before it; cells share faces, which neighbours cover
    cell = (torch.bucketize(torch.arange(N, device=axis.device), picks, right=True) - 1).clamp_max(K - 2)
    blocks = fn.pad(active[:, :, cell], (0, -N % 8)).unflatten(2, (-1, 8)).any(-1).to(torch.uint8)
    mask = blocks[cell][:, cell].contiguous()
    fraction = ((axis - axis[picks][cell]) / (axis[picks][cell + 1] - axis[picks][cell])).clamp(0, 1)
    first = torch.lerp(coarse[cell], coarse[cell + 1], fraction[:, None, None])
    for rows in range(0, N, ROWS):  # not whole: the neighbours' values take twice the room of the result
        part = first[rows : rows + ROWS]
        second = torch.lerp(part[:, cell], part[:, cell + 1], fraction[:, None])
        torch.lerp(second[:, :, cell], second[:, :, cell + 1], fraction, out=out[rows : rows + ROWS])
    filler.fill(axis, out, mask, lambda share: done(COARSE + share * (1 - COARSE)))
