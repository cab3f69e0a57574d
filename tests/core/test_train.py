"""Training: shards, exact points, tiny runs that learn, resume and end in files that load."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from geoinv_core import weights
from geoinv_core.camera import FOCAL, orbit, project
from geoinv_core.encoder import Encoder, EncoderConfig, camera_of, load_encoder, pose_of, save_encoder
from geoinv_core.errors import ModelError
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.heads import EVALUATION_SEEDS, HeadAssets, LabelLayout, Layers, build, picture, sample
from geoinv_core.train import augment, crops, encoder, generator, samples
from geoinv_core.train.dataset import DEPTH, HeadSet, HeadShards, draw_all, landmark_names, random_view
from geoinv_core.train.expressions import balanced
from geoinv_core.train.run import Run
from geoinv_core.train.supervision import points_from_pictures


@pytest.fixture(scope="module")
def drawn(assets: HeadAssets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    list(draw_all(folder, str(assets.folder), 0, 12, 32, 1, ("front", "any", "wide")))
    return folder


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_shards_hold_what_they_promise(drawn: Path, assets: HeadAssets) -> None:
    heads = HeadSet(drawn, encoder.KEYS)
    assert len(heads) == 12
    assert heads.layout == LabelLayout.of(assets)
    batch = heads.batch(np.random.default_rng(0), 4)
    assert batch["rgb"].shape == (4, 3, 32, 32, 3)
    assert batch["depth"].dtype == torch.int32
    assert batch["landmarks"].shape == (4, len(landmark_names(assets)), 3)


def test_lens_views_differ_in_more_than_angle_and_keep_the_head_in_sight(assets: HeadAssets) -> None:
    labels = sample(assets, EVALUATION_SEEDS)
    layers = Layers(assets, build(assets, [labels])[0])
    face = torch.stack([layers.geometry.landmarks[n] for n in ("eye_l_out", "eye_r_out", "chin")])
    limits = generator.default_config(LabelLayout.of(assets))
    cameras = [random_view(np.random.default_rng(i), "lens") for i in range(40)]
    assert torch.equal(cameras[0], random_view(np.random.default_rng(0), "lens"))
    further = torch.stack([c[[3, 7, 11]].norm() - limits.camera_radius for c in cameras])
    focal = torch.stack([c[16] for c in cameras]) / (1 + further / limits.camera_radius)
    assert further.min() < -0.2
    assert further.max() > 0.4
    assert focal.min() < 0.85 * FOCAL
    assert focal.max() > 1.05 * FOCAL
    assert max(abs(float(c[1])) for c in cameras) > 0.1  # x of the picture's down: the camera is tilted
    least = 1.0
    for camera, off in zip(cameras[:12], further, strict=False):
        at, _ = project(camera[None], face[None])
        assert ((at > 0.05) & (at < 0.95)).all()
        p = picture(assets, layers, camera, 32, 1)
        depth = p.depth[torch.isfinite(p.depth)]
        assert DEPTH[0] < depth.min() <= depth.max() < DEPTH[0] + 65535 * DEPTH[1]
        moved, fixed = (
            ((depth > limits.ray_start + by) & (depth < limits.ray_end + by)).float().mean()
            for by in (off, 0)
        )
        assert moved > 0.95
        least = min(least, float(fixed))
    assert least < 0.8  # why the limits have to move along


def test_evaluation_seeds_are_never_mixed_in(assets: HeadAssets, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="evaluation"):
        next(draw_all(tmp_path, str(assets.folder), 899_990, 20, 32, 1, ("front",)))


def test_surface_points_project_to_the_pixels_they_came_from(drawn: Path) -> None:
    batch = HeadSet(drawn, generator.KEYS).batch(np.random.default_rng(0), 3)
    points = points_from_pictures(batch, 200, 100, 100, 10, torch.Generator().manual_seed(0))
    # Moved along the normal by its distance, every point sees one of the views' colours at that spot.
    seen = torch.zeros(3, 200)
    for view in range(3):
        at, _ = project(batch["camera"][:, view], points.surface)
        pixel = (at * 32).long().clamp(0, 31)
        colour = batch["rgb"][:, view].float()[torch.arange(3)[:, None], pixel[..., 1], pixel[..., 0]] / 255
        seen = torch.maximum(seen, 1 - (colour - points.colour[..., :3]).abs().amax(-1))
    assert (seen > 0.99).float().mean() > 0.9
    assert points.near_distance.abs().max() <= 0.04
    assert points.core.norm(dim=-1).max() < 0.15


def test_variants_share_pixels_that_both_heads_fill(assets: HeadAssets, tmp_path: Path) -> None:
    list(draw_all(tmp_path, str(assets.folder), 0, 4, 32, 1, ("front", "any", "wide"), variants=True))
    heads = HeadSet(tmp_path, generator.KEYS)
    batch = heads.batch(np.random.default_rng(0), 4)
    points = points_from_pictures(batch, 200, 100, 100, 10, torch.Generator().manual_seed(0), paired=True)
    assert points.twins == 100
    # one pixel each: from the same camera the two points lie on one ray
    first, second = points.surface[0::2, :100], points.surface[1::2, :100]
    same = torch.zeros(2, 100, dtype=torch.bool)
    for view in range(3):
        seen = [project(batch["camera"][i::2, view], p)[0] for i, p in enumerate((first, second))]
        same |= ((seen[0] - seen[1]) * 32).abs().amax(-1) < 0.5
    assert same.float().mean() > 0.95

    def cost(colour: torch.Tensor) -> float:
        terms = generator.twin_losses(points, points.distance, colour)
        return float(torch.stack(list(terms.values())).sum())

    assert cost(points.colour) == 0
    assert cost(points.colour + 0.1) < 1e-5  # an error that both share
    shifted = points.colour.clone()
    shifted[0::2] += 0.1
    assert cost(shifted) == pytest.approx(0.15, rel=1e-3)


def test_tiny_generator_learns_resumes_and_loads(drawn: Path, assets: HeadAssets, tmp_path: Path) -> None:
    settings = generator.Settings(
        batch=4, surface=256, near=128, free=128, core=16, rays=64, bfloat16=False, log_every=10
    )
    generator.train(drawn, tmp_path, 0.12, settings, tiny=True)
    first = log(tmp_path)
    assert len(first) >= 2, "the budget was too short to log twice"
    assert first[-1]["colour"] < first[0]["colour"]
    assert first[-1]["surface"] < first[0]["surface"]
    path = generator.train(drawn, tmp_path, 0.2, settings, tiny=True)
    assert log(tmp_path)[-1]["step"] > first[-1]["step"]
    generator.train(drawn, tmp_path / "again", 0.06, settings, tiny=True, start=path)
    # it begins where the other ended
    assert log(tmp_path / "again")[0]["surface"] < 0.7 * first[0]["surface"]
    model = weights.load(path)
    heads = HeadSet(drawn, generator.KEYS)
    batch = heads.batch(np.random.default_rng(0), 2)
    out = model.render(model.planes(model.map(batch["z"], batch["c"])), orbit()[None].expand(2, 25), 16)
    assert torch.isfinite(out.features).all()
    samples.draw_samples(model, assets, tmp_path / "samples", 500_000, 6, 32)
    own = HeadSet(tmp_path / "samples", encoder.KEYS).batch(np.random.default_rng(0), 6)
    assert own["rgb"].shape == (6, 1, 32, 32, 3)
    assert (own["depth"] > 0).any()
    encoder_path = encoder.train(
        drawn,
        tmp_path / "encoder",
        0.6,
        path,
        samples=tmp_path / "samples",
        settings=encoder.Settings(batch=6, rate=3e-3, bfloat16=False, through_generator=2, log_every=2),
        widths=(16, 16, 16, 32, 32),  # oneDNN corrupts memory below 16 channels (channels last, float32)
    )
    rows = log(tmp_path / "encoder")
    assert rows[-1]["pose"] < 1.5
    few = len(rows) // 3
    for term in ("c", "ibug", "outline", "occlusion", "landmarks", "g_surface"):
        begun, ended = ([row[term] for row in part] for part in (rows[:few], rows[-few:]))
        assert np.mean(ended) < np.mean(begun), term
    network, layout, _ = load_encoder(encoder_path)
    assert layout == heads.layout
    found = network(torch.zeros(1, 3, 96, 96))
    assert found.delta.shape == (1, model.num_ws, model.config.w_dim)


def test_distances_learn_to_have_slope_one(drawn: Path) -> None:
    heads = HeadSet(drawn, generator.KEYS)
    torch.manual_seed(0)
    network = TriplaneGenerator(generator.tiny_config(heads.layout))
    batch = heads.batch(np.random.default_rng(0), 4)
    points = points_from_pictures(batch, 64, 128, 64, 16, torch.Generator().manual_seed(0))
    planes = network.planes(network.map(batch["z"], batch["c"])).detach() * 3
    before = generator.eikonal(network, planes, points.near).detach()
    term = generator.losses(network, planes, points, even=128)["eikonal"]
    assert term.item() == pytest.approx(0.05 * before.item())
    assert "eikonal" not in generator.losses(network, planes, points)
    planes.requires_grad_()
    optimiser = torch.optim.Adam([planes], 0.02)
    for _ in range(30):
        optimiser.zero_grad()
        generator.eikonal(network, planes, points.near).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert generator.eikonal(network, planes, points.near) < 0.3 * before


def test_budget_and_schedule(tmp_path: Path) -> None:
    run = Run(tmp_path, minutes=1)
    assert run.schedule() < 0.1
    run.elapsed = 30
    assert 0.4 < run.schedule() < 0.6
    run.elapsed = 60
    assert run.schedule() == pytest.approx(0.02)
    assert list(run.steps()) == []


def test_pose_is_the_inverse_of_the_camera() -> None:
    yaw, pitch = torch.tensor([0.4]), torch.tensor([-0.2])
    points = torch.randn(1, 20, 3, generator=torch.Generator().manual_seed(0)) * 0.1
    view = orbit(float(yaw.rad2deg()), float(pitch.rad2deg()))[None]
    matrix = augment.jitter(
        torch.tensor([[[1.1, 0.0, 0.02], [0.0, 1.1, -0.04]]]), torch.Generator().manual_seed(1)
    )
    before, _ = project(view, points)
    after, _ = project(camera_of(pose_of(yaw, pitch, matrix)), points)
    assert torch.allclose(after, before @ matrix[:, :, :2].transpose(1, 2) + matrix[:, None, :, 2], atol=1e-5)


def test_other_lenses_pictures_become_crops_of_orbits() -> None:
    points = torch.randn(1, 20, 3, generator=torch.Generator().manual_seed(0)) * 0.1
    matrix = torch.tensor([[[1.2, 0.1, -0.12], [-0.1, 1.2, -0.08]]])
    for view, allowed in (
        (orbit(20, -10, 1.6, 4.2647 * 1.6 / 2.7), 1e-5),
        (orbit(20, -10, roll=7), 1e-5),
        (orbit(-35, 5, 3.0, 4.0, -6, (0.03, -0.02, 0.01)), 2e-3),  # turned off the middle: up to perspective
    ):
        before, _ = project(view[None], points)
        after, _ = project(camera_of(crops.crop_pose(view[None], matrix)), points)
        expected = before @ matrix[:, :, :2].transpose(1, 2) + matrix[:, None, :, 2]
        assert (after - expected).abs().max() < allowed


def test_shards_on_disk_hold_the_same_heads(assets: HeadAssets, drawn: Path, tmp_path: Path) -> None:
    keys = ("c", "mask", "depth")
    known = HeadSet(drawn, keys)
    shards = HeadShards(drawn, keys)
    assert shards.description == known.description
    batch = shards.batch(np.random.default_rng(0), 5)
    expected = known.batch(np.random.default_rng(0), 5)
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
        k: (v.shape, v.dtype) for k, v in expected.items()
    }
    by_label = {tuple(head["c"].tolist()): head for head in known.heads}
    for row in range(5):
        head = by_label[tuple(batch["c"][row].tolist())]
        assert np.array_equal(batch["mask"][row].numpy(), head["mask"])
    assert torch.equal(
        shards.batch(np.random.default_rng(3), 4)["c"], shards.batch(np.random.default_rng(3), 4)["c"]
    )


def test_expressions_are_spread_evenly(assets: HeadAssets) -> None:
    heads = [balanced(assets, seed) for seed in range(300)]
    as_sampled = [sample(assets, seed) for seed in range(300)]
    assert balanced(assets, 7) == heads[7]
    for unit, share in (("jawOpen", 0.15), ("eyeBlinkLeft", 0.12), ("mouthSmileLeft", 0.1)):
        far = np.mean([h.expression.get(unit, 0) > 0.3 for h in heads])
        assert far > share, unit
    assert [h.age for h in heads] == [h.age for h in as_sampled]  # nothing but the expression differs
    grins = [
        h
        for h in heads
        if min(h.expression.get(f"mouth{u}Left", 0) for u in ("Smile", "UpperUp", "LowerDown")) > 0.1
    ]
    assert len(grins) > 0.1 * len(heads)
    assert all(h.expression.get("mouthFrownLeft", 0) == 0 for h in grins)
    jaws = [h.expression.get("jawOpen", 0.0) for h in heads]
    assert np.std(jaws) > np.std([h.expression.get("jawOpen", 0.0) for h in as_sampled])


def test_photos_from_near_keep_their_depth(assets: HeadAssets, tmp_path: Path) -> None:
    list(draw_all(tmp_path, str(assets.folder), 40, 8, 32, 1, ("photo",), even=True))
    batch = HeadSet(tmp_path, generator.KEYS).batch(np.random.default_rng(0), 8)
    assert batch["depth_from"].abs().max() > 0.2
    points = points_from_pictures(batch, 200, 50, 50, 10, torch.Generator().manual_seed(0))
    exact = points.surface.norm(dim=-1)
    assert exact.max() < 0.7  # on the head, wherever the photographer stood
    at, normal = encoder.surface_normals(batch, 64, torch.Generator().manual_seed(1))
    assert at.norm(dim=-1).max() < 0.7
    outward = (normal * (batch["camera"][:, :1, [3, 7, 11]] - at)).sum(-1)
    assert (outward > 0).float().mean() > 0.95  # what a camera sees looks towards it


def test_an_older_encoder_goes_on_with_a_close_reading(assets: HeadAssets, tmp_path: Path) -> None:
    layout = LabelLayout.of(assets)
    sizes = {"widths": (16, 16, 16, 32, 32), "hidden": 64}
    old = Encoder(EncoderConfig.of(layout, 4, 8, **sizes))
    save_encoder(old, layout, tmp_path / "old.safetensors", {})
    loaded, _, _ = load_encoder(tmp_path / "old.safetensors")
    image = torch.zeros(2, 3, 128, 128)
    found = loaded(image)
    assert found.landmarks is None
    assert found.pose.shape == (2, 7)
    new = Encoder(EncoderConfig.of(layout, 4, 8, close=32, **sizes))
    encoder.begin_from(new, loaded.state_dict())
    new.eval()
    read = new(image)
    assert read.landmarks is not None
    assert read.landmarks.shape == (2, 68, 2)
    assert read.outline is not None
    assert read.outline.shape == (2, 1, 32, 32)
    start, stop = new.config.expressions
    assert layout.names[start:stop] == layout.expressions
    torch.testing.assert_close(read.c[:, :start], found.c[:, :start])
    with pytest.raises(ModelError, match="does not fit"):
        encoder.begin_from(Encoder(EncoderConfig.of(layout, 5, 8, close=32, **sizes)), loaded.state_dict())


def test_the_close_reading_sees_finer_than_the_rest(assets: HeadAssets) -> None:
    layout = LabelLayout.of(assets)
    sizes = {"widths": (16, 16, 16, 32, 32), "hidden": 64, "close": 32}
    torch.manual_seed(0)
    sharp = Encoder(EncoderConfig.of(layout, 4, 8, sharp=192, **sizes)).eval()
    older = {k: v for k, v in json.loads(sharp.config.to_json()).items() if k != "sharp"}
    blunt = Encoder(EncoderConfig.from_json(json.dumps(older))).eval()
    blunt.load_state_dict(sharp.state_dict())
    plain = torch.zeros(1, 3, 192, 192)
    fine = plain.clone()
    fine[..., ::2] = 0.8  # lines of one pixel, which 128 cannot show
    fine[..., 1::2] = -0.8
    with torch.inference_mode():
        change = {e: (e(fine).c - e(plain).c).abs() for e in (sharp, blunt)}
    start, stop = sharp.config.expressions
    units, rest = change[sharp][:, start:stop].max(), change[sharp][:, :start].max()
    assert units > 3 * change[blunt][:, start:stop].max()
    torch.testing.assert_close(rest, change[blunt][:, :start].max())


def test_larger_crops_show_the_same(drawn: Path) -> None:
    heads = HeadSet(drawn, encoder.KEYS)
    anchors = [heads.description["landmarks"].index(name) for name in crops.ANCHORS]
    batch = heads.batch(np.random.default_rng(0), 2)
    small, large = (
        crops.make_crops(batch, anchors, torch.Generator().manual_seed(1), size) for size in (128, 192)
    )
    assert large.image.shape == (2, 3, 192, 192)
    torch.testing.assert_close(large.pose, small.pose)
    one, other = (
        torch.nn.functional.interpolate(c.cover, size=(32, 32), mode="area") for c in (small, large)
    )
    assert (one - other).abs().mean() < 0.01


def test_resample_follows_its_matrix() -> None:
    picture = torch.zeros(1, 1, 64, 64)
    picture[0, 0, 20:24, 40:44] = 1.0
    matrix = torch.tensor([[[0.0, 1.0, 0.1], [-1.0, 0.0, 1.0]]])  # a quarter turn and a shift
    crop = augment.resample(picture, matrix, 64, "zeros")[0, 0]
    row, column = (crop > 0.5).nonzero().float().mean(0) / 64
    expected = matrix[0, :, :2] @ torch.tensor([42 / 64, 22 / 64]) + matrix[0, :, 2]
    assert float(column) + 0.5 / 64 == pytest.approx(float(expected[0]), abs=0.01)
    assert float(row) + 0.5 / 64 == pytest.approx(float(expected[1]), abs=0.01)


def test_occluders_hide_what_they_say() -> None:
    images = torch.full((40, 3, 48, 48), 2.0)  # lighter than anything that is put in front
    drawn, hidden = augment.occluders(images, torch.Generator().manual_seed(1), share=0.0, cards=0.5)
    away = hidden.flatten(1).amax(1) == 0
    assert 10 < int(away.sum()) < 30
    assert torch.equal(drawn[away], images[away])
    whole = (hidden > 0.99).expand(-1, 3, -1, -1)
    assert hidden[~away].mean() > 0.05
    assert ((drawn < 1.01) | (drawn == 2))[whole].all()
    assert torch.equal(
        drawn[(hidden == 0).expand(-1, 3, -1, -1)], images[(hidden == 0).expand(-1, 3, -1, -1)]
    )


def test_augmentation_stays_in_range_and_is_reproducible() -> None:
    images = torch.rand(6, 3, 48, 48, generator=torch.Generator().manual_seed(0))

    def run() -> torch.Tensor:
        g = torch.Generator().manual_seed(5)
        return augment.photograph(augment.occluders(images.clone(), g, share=1.0)[0], g)

    first = run()
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, run())
    assert (first - images).abs().mean() > 0.02
