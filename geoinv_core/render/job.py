"""What native code is handed: plain numbers and addresses (native/job.h), from a field and its rays."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from ctypes import c_double, c_int32, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from geoinv_core.render.field import ACTIVATIONS, DENSITIES, Field
from geoinv_core.render.march import Gradients, March, Sums, Wanted


class UnavailableError(RuntimeError):
    """A backend cannot run here, or not for this field; the text says why in one line."""


class Job(ctypes.Structure):
    """native/job.h, field by field. Addresses are of contiguous tensors that the caller keeps alive."""

    _fields_ = (
        *(
            (name, c_int32)
            for name in ("batch", "planes", "channels", "channels_padded", "depth", "height", "width")
        ),
        *((name, c_int32) for name in ("hidden", "features", "density", "activation", "crop")),
        *((name, c_double) for name in ("crop_limit", "distance_scale", "distance_radius")),
        *((name, c_int64) for name in ("entry_stride", "plane_stride", "texel_stride")),
        *((name, c_void_p) for name in ("plane_data", "maps", "w1", "b1", "w2", "b2", "beta")),
        ("rays", c_int64),
        *((name, c_int32) for name in ("image_width", "coarse", "fine", "disparity")),
        *((name, c_double) for name in ("jitter", "skip")),
        *((name, c_void_p) for name in ("origins", "directions", "near", "far", "u_coarse", "u_fine")),
        *((name, c_void_p) for name in ("total", "depth_sum", "opacity", "range", "weights", "depths")),
        *((name, c_void_p) for name in ("raw", "feature_values")),
        *((name, c_void_p) for name in ("g_total", "g_depth_sum", "g_opacity", "g_raw", "g_features")),
        *((name, c_void_p) for name in ("g_planes", "g_w1", "g_b1", "g_w2", "g_b2", "g_beta")),
        *((name, c_void_p) for name in ("g_origins", "g_directions")),
        *((name, c_int32) for name in ("resolution", "first_row", "row_count")),
        *((name, c_void_p) for name in ("axis", "table_xy", "table_xz", "table_yz", "mask", "grid")),
    )


class Call:
    """A Job under construction, with the tensors it points into."""

    def __init__(self, field: Field, rows: Tensor) -> None:
        """rows: the planes as `rows_of` or `pack` give them."""
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
        """A new tensor that native code writes."""
        tensor = like.new_zeros(shape) if zero else like.new_empty(shape)
        self.keep.append(tensor)
        setattr(self.job, name, tensor.data_ptr())
        return tensor

    def set_march(self, march: March) -> None:
        R = march.origins.shape[1]
        side = math.isqrt(R)
        self.set(
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
            self.set(u_coarse=march.u_coarse)
        if march.u_fine is not None:
            self.set(u_fine=march.u_fine)

    @staticmethod
    def of_grid(
        field: Field,
        axis: Tensor,
        tables: tuple[Tensor, Tensor, Tensor],
        grid: Tensor,
        mask: Tensor | None,
        first: int,
    ) -> Call:
        """See `cpu_backend.fill_grid`."""
        no_planes = axis.new_empty(1, 1, 1, field.planes.shape[2])  # tables are read instead
        call = Call(field, no_planes)
        call.set(resolution=axis.shape[0], first_row=first, row_count=tables[0].shape[0], axis=axis)
        call.set(table_xy=tables[0], table_xz=tables[1], table_yz=tables[2])
        if mask is not None:
            call.set(mask=mask)
        call.job.grid = grid.data_ptr()
        return call

    def sums(self, march: March, features: int) -> Sums:
        """Sets the march; room for what `render` returns."""
        self.set_march(march)
        like, n = march.origins, march.coarse + march.fine
        rays = like.shape[:2]
        return Sums(
            self.out("total", like, *rays, features, zero=True),
            self.out("depth_sum", like, *rays),
            self.out("opacity", like, *rays),
            self.out("range", like, *rays, 2),
            self.out("weights", like, *rays, n - 1) if march.keep else like.new_empty(0),
            self.out("depths", like, *rays, n) if march.keep else like.new_empty(0),
        )

    def values(self, points: Tensor, features: int | None) -> tuple[Tensor, Tensor]:
        """Sets the points; room for what `query` returns, without features where there are None."""
        self.set(rays=points.shape[1], origins=points)
        raw = self.out("raw", points, *points.shape[:2])
        if features is None:
            return raw, points.new_empty(0)
        return raw, self.out("feature_values", points, *points.shape[:2], features)

    def gradients(self, field: Field, wanted: Wanted, **rays: Tensor) -> Gradients:
        """Zeros, where native code puts all gradients that are wanted but the planes'.

        Args:
            rays: origins and, unless they are mere points, directions.
        """
        names = ("w1", "b1", "w2", "b2") * wanted.decoder + ("beta",) * wanted.beta
        inputs = {name: getattr(field, name) for name in names} | (rays if wanted.rays else {})
        return Gradients(
            **{name: self.out(f"g_{name}", value, *value.shape, zero=True) for name, value in inputs.items()}
        )


def rows_of(planes: Tensor, lanes: int) -> Tensor | None:
    """[B, P, texels, C] over the planes' own memory, where it holds texels whole and evenly spaced.

    Args:
        lanes: numbers that are read together; C has to be a multiple.
    """
    if planes.shape[2] % lanes or torch.empty_like(planes, device="meta").stride() != planes.stride():
        return None  # of the second kind are expanded planes: a gradient could not lie as they do
    try:
        rows = planes.detach().movedim(2, -1).view(*planes.shape[:2], -1, planes.shape[2])
    except RuntimeError:
        return None
    return rows if rows.stride(-1) == 1 else None


_packed: tuple[StorageWeakRef, tuple[object, ...], Tensor] | None = None


def pack(planes: Tensor, lanes: int, repack: Callable[[Tensor, Tensor], None]) -> Tensor:
    """[B, P, texels, channels padded to the lanes], without a copy where `rows_of` needs none.

    The last result is kept as long as its planes live unchanged, for turntables and chunks of points.
    Unchanged is what autograd's version counter says; writing through `.data` escapes both.
    Args:
        repack: copies from contiguous planes to such rows; the padding becomes zero.
    Raises: UnavailableError for planes that 32 bits cannot count.
    """
    global _packed
    B, P, C = planes.shape[:3]
    padded = -(-C // lanes) * lanes
    if planes.numel() // C * padded >= 1 << 31:
        raise UnavailableError("these planes are too large for native code")
    rows = rows_of(planes, lanes)
    if rows is not None:
        return rows
    known = not planes.is_inference()
    key = (planes.data_ptr(), planes._version, planes.shape, planes.stride(), padded) if known else ()
    kept = _packed
    if known and kept is not None and kept[1] == key and not kept[0].expired():
        return kept[2]
    source = planes.detach().contiguous()
    result = source.new_empty(B, P, source[0, 0, 0].numel(), padded)
    repack(source, result)
    if known:
        _packed = (StorageWeakRef(planes.untyped_storage()), key, result)
    return result


def forget_planes() -> None:
    """Let go of the repacked planes that are kept for the next call."""
    global _packed
    _packed = None


def as_planes(rows: Tensor, planes: Tensor) -> Tensor:
    """Rows [B, P, texels, padded] in the shape of the planes; a view, whose strides say the rest."""
    B, P, C = planes.shape[:3]
    return rows.view(B, P, *planes.shape[3:], -1).movedim(-1, 2)[:, :, :C]
