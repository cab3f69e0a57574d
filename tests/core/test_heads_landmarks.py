"""The 68 landmarks lie where the iBUG scheme wants them, and move with the face."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from geoinv_core import heads
from geoinv_core.heads import HeadAssets
from geoinv_core.heads.landmarks import IBUG, ibug

PAIRS = (
    *((k, 16 - k) for k in range(8)),
    *((17 + k, 26 - k) for k in range(5)),
    *((31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),
    *((48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)),
)


def test_they_are_distinct_vertices_in_mirrored_pairs(assets: HeadAssets) -> None:
    assert len(set(IBUG)) == 68
    assert np.isin(IBUG, assets.arrays["base_id"]).all()
    rest = assets.rest[np.searchsorted(assets.arrays["base_id"], IBUG)]
    right, left = (rest[[pair[k] for pair in PAIRS]] for k in (0, 1))
    assert torch.allclose(right * torch.tensor([-1.0, 1, 1]), left, atol=0.01)
    middle = sorted(set(range(68)) - {k for pair in PAIRS for k in pair})
    assert middle == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]
    assert rest[middle, 0].abs().max() < 0.01


def test_they_lie_in_the_order_of_the_face_and_agree_with_the_others(assets: HeadAssets) -> None:
    usual = replace(heads.sample(assets, 900_001), weight=0.0)  # a stout jaw is wider below the ears
    geometry = heads.build(assets, [usual.with_expression(jawOpen=0.5)])[0]
    p = ibug(assets, geometry)
    heights = [float(p[list(part)].mean(0)[1]) for part in ((19, 24), (36, 45), (33,), (51,), (57,), (8,))]
    assert heights == sorted(heights, reverse=True)
    assert (p[37:39, 1].mean() - p[40:42, 1].mean()) > 0
    assert p[:9, 0].diff().min() > 0  # from the subject's right, which is -x, to the chin
    for k, name in ((48, "mouth_r"), (54, "mouth_l"), (36, "eye_r_out"), (42, "eye_l_in"), (27, "nasion")):
        assert torch.allclose(p[k], geometry.landmarks[name], atol=1e-5), name
    assert p[62, 1] - p[66, 1] == pytest.approx(float((p[62] - p[66]).norm()), rel=0.5)


def test_the_lower_lip_goes_down_with_the_jaw(assets: HeadAssets) -> None:
    labels = heads.sample(assets, 900_001)
    shut, wide = (
        ibug(assets, g)
        for g in heads.build(
            assets, [labels.with_expression(jawOpen=0.0), labels.with_expression(jawOpen=1.0)]
        )
    )
    assert (shut - wide)[66, 1] > 0.02
    assert (shut - wide)[27].norm() < 1e-4
