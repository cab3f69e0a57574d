"""Displacements fitted to the head data: the solver, the regression, a generator that begins with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample

from geoinv_core import weights
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.heads import HeadAssets, LabelLayout
from geoinv_core.train import flows
from geoinv_core.train.generator import tiny_config


def test_the_solver_finds_a_smooth_field_again() -> None:
    r = np.random.default_rng(0)
    points = r.uniform(-0.8, 0.8, (3000, 2))
    offsets = np.stack([0.05 * np.sin(3 * points[:, 1]), 0.04 * points[:, 0] * points[:, 1]], 1)
    field = flows.displacement(points, offsets, np.ones(len(points)), flows.stiffness())
    at = torch.from_numpy(points.astype(np.float32))[None, None]
    found = grid_sample(torch.from_numpy(field)[None], at, align_corners=False)[0, :, 0].T.numpy()
    assert np.abs(found - offsets).mean() < 0.001


def test_main_directions_rebuild_the_fields() -> None:
    r = np.random.default_rng(1)
    few = r.normal(size=(3, 3, 2, 6, 6)).astype(np.float32)
    fields = np.einsum("nk,kpcij->npcij", r.normal(size=(30, 3)), few).astype(np.float32) + 1
    basis, found = flows.principal(fields, 3)
    rebuilt = np.einsum("nk,kpcij->npcij", found, basis[:-1]) + basis[-1]
    np.testing.assert_allclose(rebuilt, fields, atol=1e-3)
    np.testing.assert_allclose(np.square(found).mean(0), 1, rtol=1e-3)


def test_a_generator_begins_with_the_datas_displacements(assets: HeadAssets, tmp_path: Path) -> None:
    layout = LabelLayout.of(assets)
    path = tmp_path / "start.safetensors"
    shares = flows.begin(path, assets, tiny_config(layout), None, solved=10, labelled=60, steps=60)
    assert 0.5 < shares["fields"] <= 1
    begun = weights.load(path)
    flow = begun.backbone.flow
    assert flow is not None
    opened, closed = (torch.zeros(1, len(layout.names)) for _ in range(2))
    opened[0, layout.names.index("jawOpen")] = 4.0
    w = [begun.map(torch.zeros(1, layout.z_dim), c)[:, 0] for c in (opened, closed)]
    assert float((flow.weights(w[0]) - flow.weights(w[1])).abs().max()) > 0


def test_models_without_fields_are_told(assets: HeadAssets) -> None:
    from dataclasses import replace

    config = replace(tiny_config(LabelLayout.of(assets)), flow_rank=0)
    with pytest.raises(ValueError, match="no displacement fields"):
        flows.initialise(TriplaneGenerator(config), assets, 4, 8, 2)
