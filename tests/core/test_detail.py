"""The local branch: detail in the field, its visibility, its way under edits, files, and a tiny training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from geoinv_core import render, weights
from geoinv_core.camera import orbit
from geoinv_core.detail import Detail, DetailConfig, bake, carried, gather, load_detail, save_detail, sides_of
from geoinv_core.detail.bake import lookup, read
from geoinv_core.detail.carry import carried_lookup, followed, origins
from geoinv_core.detail.evidence import see
from geoinv_core.detail.hair import evened, hair_of
from geoinv_core.detail.sides import look
from geoinv_core.detail.take import take, textured
from geoinv_core.detail.tint import no_tint
from geoinv_core.encoder import Encoder, EncoderConfig, save_encoder
from geoinv_core.errors import ModelError
from geoinv_core.generator import TriplaneGenerator, channel_table
from geoinv_core.head import load_head
from geoinv_core.heads import HeadAssets, LabelLayout
from geoinv_core.model import Model, open_model
from geoinv_core.train import detail as training
from geoinv_core.train.dataset import draw_all
from geoinv_core.train.generator import tiny_config
from geoinv_core.train.release import release_detail
from geoinv_core.weights.header import BUNDLED, encoder_beside
from tests.core.tiny import plain

SMALL = DetailConfig(features=8, picture_widths=(8, 16), side_widths=(16, 24))


def opened(network: Detail) -> Detail:
    """With a last layer that says something: as if trained, but to nothing sensible."""
    torch.manual_seed(5)
    with torch.no_grad():
        network.fuse.last.weight.normal_(0, 0.2)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model() -> Model:
    """The bundled model with a local branch that is loud and means nothing."""
    return replace(open_model("default", "cpu"), detail=opened(Detail(SMALL)))


@pytest.mark.parametrize("depth", [1, 3])
def test_baked_detail_changes_colour_alone_and_by_what_it_says(depth: int) -> None:
    _, _, field = plain(plane_depth=depth)
    sides = sides_of(field)
    assert [s.name for s in sides] == ["front", "back", "left", "right"]
    looks = look(field, sides, field.planes.shape[-1])
    torch.manual_seed(0)
    change = torch.randn(4, 3, *field.planes.shape[-2:])
    texture = textured(field, sides, looks, change)
    points = torch.rand(1, 4000, 3) - 0.5
    raw, colour = render.query(field, points)
    raw_after, after = render.query(bake(field, texture), points)
    assert torch.equal(raw, raw_after)
    assert (after - colour).abs().max() > 0.05
    nothing = replace(texture, change=torch.zeros_like(texture.change))
    raw_zero, zero = render.query(bake(field, nothing), points)
    assert torch.equal(raw, raw_zero)
    assert (zero - colour).abs().max() < 1e-5
    if depth == 1:  # elsewhere than on the surface a tri-grid fades differently than a texture does
        # a gate of eight texels is not as steep, and fades at the border; well off its middle neither matters
        clear = (points[0].abs().amax(1) < 0.4) & (
            (points[0][:, [2, 0]] - texture.middle[[0, 2]]).abs().amin(1) > 0.13
        )
        base = torch.logit((colour[0, :, :3] + 0.001) / 1.002)
        wanted = torch.sigmoid(base + read(texture.change, lookup(field, texture.middle, points[0])))
        assert int(clear.sum()) > 500
        assert ((wanted * 1.002 - 0.001) - after[0, :, :3])[clear].abs().max() < 1e-3


def test_front_and_back_keep_their_own_detail() -> None:
    _, _, field = plain()
    sides = sides_of(field)
    looks = look(field, sides, field.planes.shape[-1])
    change = torch.zeros(4, 3, *field.planes.shape[-2:])
    change[0, 0] = 2.0  # the front redder
    texture = textured(field, sides, looks, change)
    middle = float(texture.middle[0])
    points = (torch.rand(1, 4000, 3) - 0.5) * 0.8
    _, before = render.query(field, points)
    _, after = render.query(bake(field, texture), points)
    moved = (after - before)[0, :, 0]
    ahead = points[0, :, 2] > middle + 0.13
    behind = points[0, :, 2] < middle - 0.13
    assert moved[ahead].max() > 0.05
    assert moved[behind].abs().max() < 1e-3 < moved[ahead].max()


def test_a_field_without_such_colours_is_refused() -> None:
    _, _, field = plain()
    texture = textured(field, sides_of(field), look(field, sides_of(field), 8), torch.zeros(4, 3, 8, 8))
    with pytest.raises(ValueError, match="sigmoid"):
        bake(replace(field, activation="none"), texture)


def test_what_the_head_hides_is_not_seen_though_it_is_in_the_frame(model: Model) -> None:
    head = model.mean_head()
    field = head.plain_field
    sides = sides_of(field)
    looks = look(field, sides, 128)
    photo = torch.zeros(1, 3, 128, 128)
    front = gather(see(model.generator, field, photo, orbit()[None]), looks, orbit()[None])
    solid_texels = [(looks.share[i] > 0.9) for i in range(4)]
    framed = (front.at[0].abs() < 1).all(1, keepdim=True)
    seen = [front.seen[0, i][solid_texels[i] & framed[i]] for i in range(4)]
    assert seen[0].median() > 0.8  # most of the front
    assert len(seen[1]) > 100
    assert seen[1].max() < 0.05  # nothing of the back, although it projects into the picture
    aside = gather(see(model.generator, field, photo, orbit(yaw=60)[None]), looks, orbit(yaw=60)[None])
    left, right = (aside.seen[0, i][solid_texels[i]].mean() for i in (2, 3))
    assert left > 3 * right
    mirrored = aside.seen[1, 3][solid_texels[3]].mean()  # the hidden ear's mirror image is seen
    assert mirrored > 3 * right


@pytest.mark.parametrize("depth", [1])
def test_detail_flows_like_the_planes(depth: int) -> None:
    R = 32
    generator, ws, field = plain(plane_depth=depth, flow_rank=3, channels=channel_table(R, 32, 4))
    flow = generator.backbone.flow
    assert flow is not None
    torch.manual_seed(1)
    flow.weights.weight.normal_(0, 1.5)
    flow.fields.mul_(0.2)
    now = ws + 0.8 * torch.randn_like(ws)
    content = torch.nn.functional.interpolate(torch.randn(1, 3, 4, 4), (R, R), mode="bicubic")
    planes = content[:, None].expand(1, 3, 3, R, R)
    planes = planes if depth == 1 else planes[:, :, :, None].expand(1, 3, 3, depth, R, R)
    was, new = flow(planes, ws[:, 0])[0], flow(planes, now[:, 0])[0]
    sides = sides_of(field)
    looks = look(field, sides, R)

    def texture_of(planes: torch.Tensor) -> torch.Tensor:
        flat = planes if depth == 1 else planes[:, :, depth // 2]
        return torch.stack([flat[s.plane] for s in sides])

    middle = (2 * (depth // 2) + 1) / depth - 1  # of the slice that is compared
    texture = textured(field, sides, looks, torch.zeros(4, 3, R, R))
    texture = replace(texture, change=texture_of(was), height=torch.full((4, R, R), middle))
    moved = carried(generator, sides, texture, ws, now).change[..., 6:-6, 6:-6]
    wanted = texture_of(new)[..., 6:-6, 6:-6]
    stayed = texture.change[..., 6:-6, 6:-6]
    assert (stayed - wanted).abs().mean() > 0.03, "the flow has to move something for this to be a test"
    assert (moved - wanted).abs().mean() < 0.2 * (stayed - wanted).abs().mean()
    at = torch.rand(50, 2) - 0.5
    a, b = origins(generator, ws)[0], origins(generator, now)[0]
    there = followed(b, a, at, torch.zeros(50))
    back = followed(a, b, there, torch.zeros(50))
    assert (back - at).abs().quantile(0.9) < 0.005
    where = lookup(field, texture.middle, torch.rand(20, 3) - 0.5)
    same = carried_lookup(generator, sides, where, torch.zeros(4, 20), ws, ws)
    assert (same.at - where.at).abs().max() < 1e-5


def test_an_untrained_network_says_nothing_and_what_differs_widely_is_taken_all_the_same(
    model: Model,
) -> None:
    """A drawn head as its own photo: as it is, a little redder, with dark hair over its brow."""
    head, camera = model.mean_head(), orbit()[None]
    network = Detail(DetailConfig()).eval()
    drawn = model.generator.draw(head.plain_field, camera, 128, (24, 24))
    own = drawn.features[:, :3] + (1 - drawn.opacity) * 0.9
    redder, fringed = own.clone(), own.clone()
    redder[:, 0] *= 1.03
    rows, columns = slice(34, 46), slice(50, 78)
    assert drawn.opacity[0, 0, rows, columns].min() > 0.99
    fringed[:, :, rows, columns] = torch.tensor([0.25, 0.16, 0.1])[:, None, None]
    found = []
    for photo in (own, redder, fringed):
        texture = head.detailed(network, photo * 2 - 1).inversion.detail
        assert texture is not None
        assert texture.change.shape == (4, 3, 128, 128)
        found.append(texture)
    assert found[0].change.abs().max() < 1e-3
    assert found[1].change.abs().max() < 0.05
    assert found[2].change[1].abs().max() < 1e-3  # nothing behind
    after = model.generator.draw(bake(head.plain_field, found[2]), camera, 128, (24, 24)).features[:, :3]
    apart = [(x - fringed)[:, :, 37:43, 54:74].abs().mean() for x in (own, after)]
    assert apart[1] < 0.25 * apart[0]
    beside = torch.zeros_like(drawn.opacity)  # a photo that shows nothing of the head
    blank = take(network, model.generator, head.plain_field, fringed * 2 - 1, camera, beside)
    assert blank.change.abs().max() < 1e-3


def test_heads_keep_detail_in_views_edits_and_files(model: Model, tmp_path: Path) -> None:
    assert model.detail is not None
    torch.manual_seed(2)
    photo = torch.nn.functional.interpolate(torch.rand(1, 3, 16, 16), (128, 128)) * 2 - 1
    coarse = model.mean_head()
    crop = ((photo[0].permute(1, 2, 0) + 1) * 127.5).byte().numpy()
    coarse = replace(coarse, inversion=replace(coarse.inversion, photo=crop))
    head = coarse.detailed(model.detail, photo)
    view = orbit(yaw=20)
    (a, depth_a, _), (b, depth_b, _) = coarse.look(view, 64), head.look(view, 64)
    assert np.abs(a - b).max() > 0.1
    assert np.array_equal(depth_a, depth_b)
    edited = head.edit({"jawOpen": 0.8})
    assert np.array_equal(edited.look(view, 64)[1], coarse.edit({"jawOpen": 0.8}).look(view, 64)[1])
    assert np.abs(edited.look(view, 64)[0] - coarse.edit({"jawOpen": 0.8}).look(view, 64)[0]).max() > 0.1
    folder = edited.save(tmp_path / "head", texture=64, shapes=False)
    again = load_head(folder, "cpu")
    assert np.abs(again.look(view, 64)[0] - edited.look(view, 64)[0]).max() < 0.01
    assert again.original is not None
    assert np.abs(again.original.look(view, 64)[0] - b).max() < 0.01
    parts = load_file(folder / "latent.safetensors")
    del parts["detail.tint"]  # as heads of older versions are
    save_file(parts, folder / "latent.safetensors")
    older = load_head(folder, "cpu").inversion.detail
    assert older is not None
    assert torch.equal(older.tint, no_tint())


def test_unseen_hair_changes_like_the_seen_and_skin_does_not() -> None:
    torch.manual_seed(0)
    change = torch.randn(4, 3, 32, 32) * 0.1
    hair = torch.zeros(4, 1, 32, 32)
    hair[:, :, :16] = 1
    seen = torch.zeros(2, 4, 1, 32, 32)
    seen[0, 0] = 1  # the front
    change[0, :, :16] += torch.tensor([0.5, 0.2, -0.4])[:, None, None]
    found = evened(change, seen, hair)
    mean = change[0, :, :16].mean((1, 2))
    torch.testing.assert_close(found[1, :, :16], mean[:, None, None].expand(3, 16, 32))
    assert torch.equal(found[:, :, 16:], change[:, :, 16:])
    torch.testing.assert_close(found[0], change[0])
    assert torch.equal(evened(change, 0 * seen, hair), change)  # nothing to learn from
    light, dark = torch.full((1, 3, 2, 2), 0.6), torch.full((1, 3, 2, 2), 0.6)
    dark[..., 0] = 0.4
    assert hair_of(light, dark)[0, 0, 0].tolist() == [1.0, 0.0]


def test_files_round_trip_and_say_what_is_wrong(tmp_path: Path, model: Model) -> None:
    network = opened(Detail(SMALL))
    path = tmp_path / "m.detail.safetensors"
    save_detail(network, path, {"generator": "somebody else's"}, half=True)
    again, meta = load_detail(path)
    assert again.config == SMALL
    assert meta == {"generator": "somebody else's"}
    assert all(
        torch.allclose(a, b, atol=1e-3) for a, b in zip(again.parameters(), network.parameters(), strict=True)
    )
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="damaged"):
        load_detail(path)
    with pytest.raises(ModelError, match="no detail network"):
        load_detail(encoder_beside(BUNDLED))
    with pytest.raises(ModelError, match="missing"):
        load_detail(tmp_path / "none.safetensors")


def test_another_generators_detail_is_refused(tmp_path: Path) -> None:
    for source in (BUNDLED, encoder_beside(BUNDLED)):
        (tmp_path / source.name).symlink_to(source)
    save_detail(Detail(SMALL), tmp_path / "default.detail.safetensors", {"generator": "another"})
    with pytest.raises(ModelError, match="another generator"):
        open_model(tmp_path / BUNDLED.name, "cpu")


def test_tiny_training_learns_resumes_and_is_released(assets: HeadAssets, tmp_path: Path) -> None:
    list(draw_all(tmp_path, str(assets.folder), 0, 2, 64, 1, ("front", "wide"), variants=True))
    layout = LabelLayout.of(assets)
    torch.manual_seed(0)
    generator = TriplaneGenerator(tiny_config(layout))  # untrained, a ball: it will do for a head
    config = EncoderConfig.of(layout, generator.num_ws, 32, widths=(16, 16, 16, 32, 32), hidden=64)
    files = tmp_path / "m.safetensors", tmp_path / "m.encoder.safetensors"
    weights.save(generator, files[0], {"layout": layout.to_json()})
    save_encoder(Encoder(config).eval(), layout, files[1], {})
    settings = training.Settings(batch=2, rays=128, fresh=4, log_every=4, rate=4e-3)
    run = tmp_path / "run"
    training.train(tmp_path, run, 0.15, *files, settings=settings, tiny=True)
    training.train(tmp_path, run, 0.25, *files, settings=settings, tiny=True)
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert len(rows) >= 3, "the budget was too short to log thrice"
    assert rows[-1]["db.input"] > rows[0]["db.input"] + 0.5
    for term in ("input", "turned", "edited"):
        assert rows[-1][term] < rows[0][term]
    assert rows[-1]["step"] > rows[0]["step"]
    network, meta = load_detail(run / "detail.safetensors")
    assert meta["steps"] > 0
    assert network.config.sides == ("front", "back", "left", "right")
    release_detail(run, files[0], {"by": "a test"})
    assert open_model(files[0], "cpu").detail is not None
    weights.save(plain()[0], tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="not trained on"):
        release_detail(run, tmp_path / "other.safetensors", {})


def test_heads_with_other_labels_are_refused(assets: HeadAssets, tmp_path: Path) -> None:
    list(draw_all(tmp_path, str(assets.folder), 0, 1, 32, 1, ("front",)))
    about = json.loads((tmp_path / "dataset.json").read_text())
    about["layout"]["expressions"] = about["layout"]["expressions"][:-1]
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    layout = LabelLayout.of(assets)
    config = EncoderConfig.of(layout, 6, 32, widths=(16, 16, 16, 32, 32), hidden=64)
    save_encoder(Encoder(config), layout, tmp_path / "m.encoder.safetensors", {})
    weights.save(TriplaneGenerator(tiny_config(layout)), tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match="other labels"):
        training.train(
            tmp_path, tmp_path / "run", 0.1, tmp_path / "m.safetensors", tmp_path / "m.encoder.safetensors"
        )
