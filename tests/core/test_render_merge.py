"""Planes that read the same coordinates become one, and nothing else changes."""

import pytest
import torch

from geoinv_core.render import EG3D_AXES, PANOHEAD_AXES, torch_backend
from geoinv_core.render.example import Axes, random_field
from geoinv_core.render.field import Field
from geoinv_core.render.job import as_planes
from geoinv_core.render.merge import merged, readings


def rows_of(field: Field) -> torch.Tensor:
    return field.planes.movedim(2, -1).flatten(2, -2).contiguous()


@pytest.mark.parametrize(
    ("size", "axes", "reads"),
    [
        ((8, 8), EG3D_AXES, [(0, False), (1, False), (1, True)]),
        ((2, 8, 8), EG3D_AXES, [(0, False), (1, False), (1, True)]),
        ((6, 8), EG3D_AXES, [(0, False), (1, False), (2, False)]),
        ((8, 8), PANOHEAD_AXES, [(0, False), (1, False), (2, False)]),
        ((6, 8), (EG3D_AXES[0], EG3D_AXES[0], EG3D_AXES[2]), [(0, False), (0, False), (2, False)]),
    ],
)
def test_the_field_stays_the_same(size: tuple[int, ...], axes: Axes, reads: list[tuple[int, bool]]) -> None:
    field = random_field(4, 6, 3, size, batch=2, axes=axes, dtype=torch.float64)
    assert readings(field) == reads
    fewer, rows = merged(field, rows_of(field))
    count = len({at for at, _ in reads})
    assert fewer.planes.shape[1] == rows.shape[1] == count
    found = Field(**{**vars(fewer), "planes": as_planes(rows, fewer.planes).contiguous()})
    points = (
        torch.rand(2, 50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 1.1 - 0.55
    )
    for ours, theirs in zip(
        torch_backend.query(found, points), torch_backend.query(field, points), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_result_is_kept_for_its_rows_alone() -> None:
    field = random_field(4, 6, 3, (8, 8))
    rows = rows_of(field)
    first = merged(field, rows)[1]
    assert merged(field, rows)[1] is first
    other = merged(field, rows + 1)[1]
    torch.testing.assert_close(other[:, 0], first[:, 0] + 1)
    torch.testing.assert_close(other[:, 1], first[:, 1] + 2)
