"""Figures of meshes: held-out heads through the bundled model."""

import math

import numpy as np

from geoinv_core.evaluate.measures import mean_of
from geoinv_core.evaluate.mesh import evaluate_mesh
from geoinv_core.heads import HeadAssets
from geoinv_core.model import open_model


def test_a_held_out_head_is_measured(assets: HeadAssets) -> None:
    told: list[str] = []
    seeds = [900_000, 900_002]
    found = evaluate_mesh(
        open_model("default"), assets, seeds, 256, keys=False, on_head=lambda done, text: told.append(text)
    )
    rows = found["heads"]
    assert list(rows) == [str(seed) for seed in seeds]
    assert len(told) == len(seeds)
    assert found["mean"] == mean_of(rows.values())
    for name, mean in found["mean"].items():
        assert math.isfinite(mean), name
        assert found["smallest"][name] <= mean <= found["largest"][name], name
    assert found["largest"]["crossed_percent"] <= 0.1
    assert found["largest"]["skin_mm"] < 0.6
    for row in rows.values():
        # the photo's own light is known to the model only roughly, its pixels exactly
        assert row["psnr.relit"] > row["psnr.old_light"] > 15
        assert np.isclose(row["truth_mm.worse"], row["truth_mm.template"] - row["truth_mm.field"])
