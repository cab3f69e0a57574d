"""Displacements fitted to the head data: the solver, the regression, a generator that begins with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample

from geoinv_core import weights
from geoinv_core.generator import GeneratorConfig, TriplaneGenerator
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
    config = tiny_config(LabelLayout.of(assets))
    flat, deep = tmp_path / "flat.safetensors", tmp_path / "deep.safetensors"
    shares = flows.begin(flat, assets, replace(config, plane_depth=1), None, 30, 300, 300)
    assert 0.5 < shares["fields"] <= 1
    # as a tri-grid its fields are fitted slice by slice to the weights that its mapping knows already
    flows.begin(deep, assets, config, flat, 30, 300, 300)
    first, second = weights.load(flat).state_dict(), weights.load(deep).state_dict()
    torch.testing.assert_close(first["backbone.mapping.fc0.weight"], second["backbone.mapping.fc0.weight"])
    front, back = second["backbone.flow.fields"][:, 0].unbind(1)
    assert float((front - back).abs().max()) > 0.01


def test_fields_are_refitted_to_the_weights_that_a_mapping_gives(
    assets: HeadAssets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Displacements that are mixed from the mapping's own weights are found again."""
    torch.manual_seed(0)
    layout = LabelLayout.of(assets)
    generator = TriplaneGenerator(tiny_config(layout)).requires_grad_(False)
    flow = generator.backbone.flow
    assert flow is not None
    flow.weights.weight.normal_()
    true = 0.1 * torch.randn_like(flow.fields)

    def mixed(assets: HeadAssets, mean: flows.MeanHead, seeds: range, depth: int) -> tuple[None, np.ndarray]:
        codes = [layout.encode(labels) for labels, _ in flows.heads_of(assets, seeds)]
        z, c = (torch.from_numpy(np.stack(x)) for x in zip(*codes, strict=True))
        weights = flow.weights(generator.map(z, c)[:, 0])
        return None, torch.einsum("br,rpdkij->bpdkij", weights, true).numpy()

    monkeypatch.setattr(flows, "solve_heads", mixed)
    assert flows.refit(generator, assets, 30)["fields"] > 0.95
    assert float((flow.fields - true).norm() / true.norm()) < 0.1


def test_the_mapping_learns_weights_that_labels_tell() -> None:
    torch.manual_seed(0)
    config = GeneratorConfig(
        z_dim=6, c_dim=8, w_dim=32, mapping_lr_mult=1.0, mapping_linear=True, normalize_z=False,
        normalize_c=False, channels=((4, 8),), plane_channels=4, noise=False, flow_rank=4,
    )  # fmt: skip
    z, c = torch.randn(600, 6), torch.randn(600, 8)
    goal = torch.cat([z, c], 1) @ torch.randn(14, 3) / 4
    explained = flows.fit_mapping(TriplaneGenerator(config), z, c, goal, torch.tensor([4.0, 2.0, 1.0]), 300)
    assert explained > 0.9


def test_models_without_fields_are_told(assets: HeadAssets) -> None:
    config = replace(tiny_config(LabelLayout.of(assets)), flow_rank=0)
    with pytest.raises(ValueError, match="no displacement fields"):
        flows.initialise(TriplaneGenerator(config), assets, 4, 8, 2)
