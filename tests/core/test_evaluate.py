"""The measures of `geoinv evaluate`, on heads whose figures are known beforehand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from geoinv_core import cli
from geoinv_core.edit import Labels
from geoinv_core.evaluate import edits, inversion, measures
from geoinv_core.evaluate.edits import EDITS, compare_edit
from geoinv_core.evaluate.generator import groups_of, kept_out
from geoinv_core.evaluate.truth import REGIONS, TrueHead, draw_truth, view_of
from geoinv_core.heads import EVALUATION_SEEDS, HeadAssets, HeadLabels, LabelLayout, Layers, build, sample
from geoinv_core.heads.surface import OuterSurface
from geoinv_core.train.expressions import balanced

SIZE = 64


class DrawnHead:
    """Stands for a head of a perfect model (or, stubborn, of one that ignores every edit)."""

    def __init__(self, assets: HeadAssets, labels: HeadLabels, stubborn: bool = False) -> None:
        self.assets, self.labels, self.stubborn = assets, labels, stubborn
        self.space = Labels(LabelLayout.of(assets))
        _, c = self.space.layout.encode(labels)
        self.inversion = SimpleNamespace(c=torch.from_numpy(c)[None])

    def look(self, camera: torch.Tensor, size: int) -> tuple[Any, Any, Any]:
        view = view_of(self.assets, Layers(self.assets, build(self.assets, [self.labels])[0]), camera, size)
        return view.rgb, view.depth, view.mask

    def edit(self, edits: dict[str, float]) -> DrawnHead:
        c = self.space.apply(self.inversion.c[0], edits)
        labels = self.space.layout.decode(c.numpy(), self.labels)
        edited = DrawnHead(self.assets, self.labels if self.stubborn else labels, self.stubborn)
        edited.inversion.c = c[None]
        return edited


@pytest.fixture(scope="module")
def true(assets: HeadAssets) -> TrueHead:
    labels = replace(sample(assets, 900_001), weight=0.0)  # it can become lighter and heavier
    return draw_truth(assets, labels, {"front": 0, "+90": 90}, SIZE)


def test_psnr_is_that_of_a_known_error() -> None:
    a = np.zeros((4, 4, 3), np.float32)
    where = np.arange(16).reshape(4, 4) < 8
    b = np.where(where[..., None], 0.1, 0.9).astype(np.float32)
    assert measures.psnr(a, b, where) == pytest.approx(20.0, abs=1e-4)


def test_regions_lie_where_their_names_say(true: TrueHead) -> None:
    region = true.views["front"].region
    rows = {
        name: np.flatnonzero((region == k).any(1)) for k, name in enumerate(REGIONS) if (region == k).any()
    }
    assert rows["face"].mean() < rows["neck"].mean()
    assert rows["neck"].max() == SIZE - 1
    face = (region == REGIONS.index("face")).mean()
    assert 0.1 < face < 0.5
    assert (region >= 0).mean() == pytest.approx((true.views["front"].mask > 0.5).mean(), abs=0.03)
    profile = true.views["+90"].region
    columns = [np.flatnonzero((profile == REGIONS.index(n)).any(0)).mean() for n in ("face", "scalp")]
    assert columns[0] < columns[1]  # seen from its left, the face looks to the left of the picture


def test_a_perfect_head_makes_every_edit_and_a_stubborn_one_none(
    assets: HeadAssets, true: TrueHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edits, "_APART", 1.5 / SIZE)  # pictures of a test are small
    layout = LabelLayout.of(assets)
    for name in EDITS:
        scores, _, _ = compare_edit(DrawnHead(assets, true.labels), true, assets, layout, name, "front")  # type: ignore[arg-type]
        assert scores["realised"] == pytest.approx(1.0, abs=0.02), name
        assert scores["psnr_after"] > 50, name
        if scores["unchanged_share"]:  # thirty years leave no pixel of some heads as it was
            assert scores["outside"] < 1, name  # of pixels that truly move by at most 2
        assert scores["apart_share"] <= scores["unchanged_share"], name
        assert scores["psnr_ignored"] < scores["psnr_after"] - 5, name
    lazy = DrawnHead(assets, true.labels, stubborn=True)
    scores, _, _ = compare_edit(lazy, true, assets, layout, "jawOpen", "front")  # type: ignore[arg-type]
    assert scores["realised"] == 0
    assert scores["psnr_after"] == scores["psnr_ignored"]
    assert scores["drop_db"] > 10
    assert 0.1 < scores["apart_share"] < scores["unchanged_share"]  # the forehead is far from the jaw
    assert scores["outside"] == scores["outside_apart"] == 0


def test_the_surface_of_a_ball_is_as_far_off_as_it_is(assets: HeadAssets, true: TrueHead) -> None:
    radius, middle = 0.2, torch.tensor([0.0, 0.03, -0.02])

    def query(_: Any, points: torch.Tensor) -> tuple[torch.Tensor, None]:
        return (points - middle).norm(dim=-1) - radius, None

    def sample_grid(_: Any, n: int) -> torch.Tensor:
        axis = torch.linspace(-0.5, 0.5, n)
        return query(
            None, torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(1, -1, 3)
        )[0].view(1, n, n, n)

    generator = SimpleNamespace(query=query, sample_grid=sample_grid, config=SimpleNamespace(box_warp=1.0))
    model = SimpleNamespace(generator=generator, device=torch.device("cpu"))
    ball = SimpleNamespace(model=model, planes=None)
    scores = measures.compare_surface(ball, true, assets)  # type: ignore[arg-type]
    # To a ball the field is the distance, so the mesh and the field have to agree.
    assert scores["on_surface_mm"] == pytest.approx(scores["completeness_mm"], rel=0.02)
    assert 3 < scores["chamfer_mm"] < 60
    assert scores["chamfer_mm"] == pytest.approx((scores["accuracy_mm"] + scores["completeness_mm"]) / 2)
    assert 5 < scores["normal_degrees"] < 60


def test_beards_and_glasses_are_seen_but_no_bare_skin(assets: HeadAssets) -> None:
    labels = replace(sample(assets, 900_001), hair="bald", beard=1.0, glasses="round")
    true = draw_truth(assets, labels, {}, SIZE)
    surface = OuterSurface(assets, true.geometry, true.layers.shader)
    seen, bare = measures._visible(true, surface)
    assert bare.any()
    parts = {part.kind: part for part in true.geometry.parts}
    for kind in ("beard", "glasses"):
        tips = parts[kind].vertices[parts[kind].triangles[-200:]].mean(1)
        nearest = seen(tips.numpy())
        assert nearest.distance.max() < 1e-6, kind
        assert not bare[nearest.triangle].any(), kind
    shaven = build(assets, [replace(labels, beard=0.0)])[0]
    bald, grown = (
        (s.sample(2000, np.random.default_rng(0), bare=True).points - shaven.landmarks["chin"]).norm(dim=1)
        for s in (OuterSurface(assets, shaven), surface)
    )
    assert (grown < 0.06).sum() < 0.6 * (bald < 0.06).sum()


def test_groups_and_parts_kept_out(assets: HeadAssets) -> None:
    labels = sample(assets, 900_001)
    unseen = {"hair": [labels.hair], "brow": ["eyebrow012"]}
    assert labels.wears(unseen)
    assert not labels.wears({"hair": ["none such"]})
    assert "parts:unseen" in groups_of(labels, unseen)
    assert not any(g.startswith("parts") for g in groups_of(labels, {}))
    assert kept_out(SimpleNamespace(meta={"kept_out": unseen})) == unseen  # type: ignore[arg-type]
    assert kept_out(SimpleNamespace(meta={})) == {}  # type: ignore[arg-type]


def test_labels_survive_the_way_through_the_vector(assets: HeadAssets) -> None:
    layout = LabelLayout.of(assets)
    for seed in range(900_000, 900_010):
        labels = sample(assets, seed)
        _, c = layout.encode(labels)
        again = layout.decode(c, labels)
        assert np.allclose(layout.encode(again)[1], c, atol=1e-5)
        assert (again.skin, again.hair, again.brow, again.lash) == (
            labels.skin,
            labels.hair,
            labels.brow,
            labels.lash,
        )
        assert again.features == labels.features


def test_the_command_prints_figures_and_writes_a_sheet(
    assets: HeadAssets, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    call = ["evaluate", "generator", "--count", "1", "--size", "32", "--heads", str(assets.folder), "--json"]
    assert cli.main([*call, "--sheet", str(tmp_path / "sheet.png")]) == 0
    out, err = capfd.readouterr()
    scores = json.loads(out)
    assert set(scores["views"]) == {"front", "+30", "-30", "+90", "-90", "back"}
    assert set(scores["edits"]) == set(EDITS)
    assert scores["summary"]["psnr"] > scores["all"]["mean_head.psnr"]
    assert scores["all"]["surface.chamfer_mm"] > 0
    assert scores["regions"]["face"]["psnr"] > 0
    assert "head 1 of 1" in err
    assert (tmp_path / "sheet.png").is_file()


def test_structural_similarity_is_the_published_one() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    r = np.random.default_rng(0)
    a = r.random((40, 40, 3))
    b = (a + r.normal(0, 0.1, a.shape)).clip(0, 1)
    grey = [x @ np.array([0.299, 0.587, 0.114]) for x in (a, b)]
    _, whole = metrics.structural_similarity(
        *grey, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, full=True
    )
    assert measures.ssim(a, b) == pytest.approx(float(whole[5:-5, 5:-5].mean()), abs=1e-6)
    assert measures.ssim(a, a) == pytest.approx(1.0)


def test_even_heads_differ_in_their_expression_alone(assets: HeadAssets) -> None:
    seed = EVALUATION_SEEDS + 1
    sampled, even = (inversion.truth_for(assets, seed, 16, even) for even in (False, True))
    assert even.labels == balanced(assets, seed)
    assert even.labels.expression != sampled.labels.expression
    assert replace(even.labels, expression={}) == replace(sampled.labels, expression={})
    for name, view in even.views.items():
        torch.testing.assert_close(view.camera, sampled.views[name].camera)


def test_inversions_are_compared_by_method(
    assets: HeadAssets, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    call = ["evaluate", "inversion", "--count", "1", "--size", "32", "--heads", str(assets.folder), "--json"]
    call += ["--methods", "mean head", "E0", "true labels", "--no-surface"]
    assert cli.main([*call, "--sheet", str(tmp_path / "sheet.png")]) == 0
    out, err = capfd.readouterr()
    rows = json.loads(out)["rows"]
    assert list(rows) == ["mean head", "true labels", "E0"]
    assert rows["true labels"]["psnr.30"] > rows["mean head"]["psnr.30"]
    assert "camera_degrees" in rows["E0"]
    assert "camera_degrees" not in rows["mean head"]
    assert "PSNR input" in err
    assert (tmp_path / "sheet.png").is_file()
    assert cli.main([*call[:2], "--heads", str(assets.folder), "--methods", "none such"]) == 1
