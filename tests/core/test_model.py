"""The bundled model: what it says of itself, a photo to a head, the head's promises."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import geoinv_core as gi
from geoinv_core import model as models
from geoinv_core.encoder import load_encoder, save_encoder
from geoinv_core.errors import EditError, GeoInvError, ModelError, PhotoError
from geoinv_core.mesh import assemble, raw
from geoinv_core.mesh.lattice import field_query
from geoinv_core.progress import STAGES, Progress
from tests.core import lattice

PHOTO = Path(__file__).resolve().parents[1] / "data" / "head-900003.png"
pytestmark = pytest.mark.skipif(
    not models.BUNDLED.is_file(), reason="the bundled model is not in this checkout"
)


@pytest.fixture(scope="module")
def head() -> gi.Head:
    return gi.open_model("default", device="cpu").invert(PHOTO)


def test_the_model_is_free_and_describes_its_labels(head: gi.Head) -> None:
    assert head.model.licence == "CC0-1.0"
    low, high, neutral = head.model.labels["age"]
    assert low < neutral < high
    assert {"smile", "jawOpen", "weight", "male"} <= set(head.model.labels)
    assert gi.open_model("default", device="cpu") is head.model  # loaded once


def test_inversion_reads_the_head(head: gi.Head) -> None:
    assert head.inversion.photo is not None
    assert head.inversion.photo.shape == (models.CROP, models.CROP, 3)
    assert head.labels["male"] < 0.5  # the picture shows a woman with light skin
    assert head.labels["skin_tone"] < 0.5
    seen = np.asarray(head.render(camera=head.camera, size=64), np.float32) / 255
    crop = np.asarray(head.inversion.photo[4::8, 4::8], np.float32) / 255
    mean = np.asarray(head.model.mean_head().render(camera=head.camera, size=64), np.float32) / 255
    _, _, opacity = head.look(head.camera, 64)
    inside = opacity > 0.5
    assert np.square(seen - crop)[inside].mean() < np.square(mean - crop)[inside].mean()


def test_edits_make_new_heads_and_leave_the_old_one(head: gi.Head) -> None:
    before = head.inversion.w_plus.clone()
    opened = head.edit({"jawOpen": 1.0})
    assert opened.labels["jawOpen"] == pytest.approx(1.0, abs=1e-3)
    assert torch.equal(head.inversion.w_plus, before)
    assert np.asarray(head.render(size=64)).tobytes() != np.asarray(opened.render(size=64)).tobytes()
    with pytest.raises(EditError):
        head.edit({"jawOpen": 2.0})


def test_opening_the_jaw_moves_the_jaw_and_not_the_forehead(head: gi.Head) -> None:
    opened = head.edit({"jawOpen": 1.0})
    change = np.abs(
        np.asarray(head.render(size=64), np.int16) - np.asarray(opened.render(size=64), np.int16)
    ).sum(2)
    lower, upper = change[32:52, 20:44].mean(), change[4:20, 20:44].mean()
    assert lower > 2 * upper


def test_a_saved_head_is_the_same_head(head: gi.Head, tmp_path: Path) -> None:
    stages: list[str] = []

    def watch(p: Progress) -> None:
        stages.append(p.stage)
        assert 0 <= p.fraction <= 1

    folder = head.edit({"smile": 0.5}).save(tmp_path / "Kopf é", texture=128, on_progress=watch)
    assert set(stages) <= set(STAGES)
    assert stages == sorted(stages, key=STAGES.index)
    loaded = gi.load_head(folder, device="cpu")
    assert loaded.labels == head.edit({"smile": 0.5}).labels
    assert torch.allclose(loaded.camera, head.camera)
    assert loaded.original is not None
    assert torch.equal(loaded.original.inversion.w_plus, head.inversion.w_plus)


def test_cancelling_leaves_nothing(head: gi.Head, tmp_path: Path) -> None:
    def stop(p: Progress) -> None:
        if p.stage == "texture":
            raise gi.Cancelled

    with pytest.raises(gi.Cancelled):
        head.save(tmp_path / "head", texture=128, on_progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_refinement_brings_the_drawing_closer_to_the_photo(head: gi.Head) -> None:
    """What detail leaves of the difference is little either way, so few steps show without it only."""
    assert head.inversion.photo is not None
    refined = head.model.invert(PHOTO, refine=8)
    crop = np.asarray(head.inversion.photo[4::8, 4::8], np.float32) / 255

    def error(h: gi.Head) -> float:
        rgb, _, opacity = h.look(h.camera, 64)
        return float(np.abs(rgb - crop)[opacity > 0.9].mean())

    def plain(h: gi.Head) -> gi.Head:
        return gi.Head(h.model, replace(h.inversion, detail=None))

    assert error(plain(refined)) < 0.9 * error(plain(head))
    assert error(refined) < 1.05 * error(head)
    assert refined.timings["refine"] > 0


def test_wrong_models_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model at"):
        gi.open_model(tmp_path / "nothing.safetensors")
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(models.BUNDLED.read_bytes())
    encoder, layout, _ = load_encoder(models.BUNDLED.with_name("default.encoder.safetensors"))
    beside = tmp_path / "alone.encoder.safetensors"
    save_encoder(encoder, layout, beside, {"generator": "another"})
    alone.touch()
    with pytest.raises(ModelError, match="another generator"):
        models._open("alone", alone, torch.device("cpu"), "auto")
    beside.write_bytes(beside.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="damaged"):
        load_encoder(beside)


def test_the_encoders_answer_can_be_ignored(head: gi.Head) -> None:
    assert head.inversion.photo is not None
    blind = head.model.invert(PHOTO, refine=6, blind=True, space="w")
    assert torch.equal(
        blind.inversion.w_plus, blind.inversion.w_plus[:, :1].expand_as(blind.inversion.w_plus)
    )
    assert blind.timings["refine"] > 0
    assert not any("encoder" in note for note in blind.warnings)


def test_a_photo_without_a_face_is_refused(head: gi.Head, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (200, 200), (90, 120, 160)).save(tmp_path / "sky.png")
    with pytest.raises(PhotoError, match="face"):
        head.model.invert(tmp_path / "sky.png")


@pytest.mark.parametrize("size", [0, 20000])
def test_impossible_textures_leave_nothing(head: gi.Head, tmp_path: Path, size: int) -> None:
    with pytest.raises(GeoInvError, match="between 64 and 8192"):
        head.save(tmp_path / "head", texture=size)
    assert not list(tmp_path.iterdir())


def test_quads_are_not_laid_on_what_is_no_head(
    head: gi.Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(field: Callable[[np.ndarray], np.ndarray]) -> None:
        monkeypatch.setattr(assemble, "field_query", lambda *_: lambda p: field(p).astype(np.float32))

    shown(lambda p: np.sin(p.astype(np.float64) * 1e6).sum(1))
    with pytest.raises(GeoInvError, match="is noise"):
        head.save(tmp_path / "head", texture=64, shapes=False)
    assert not list(tmp_path.iterdir())
    own = field_query(head.plain_field)
    shown(lambda p: np.minimum(own(p), np.maximum(0.32 - p[:, 0], np.abs(p[:, 1:]).max(1) - 0.3)))
    folder = head.save(tmp_path / "head", texture=64, shapes=False)
    about = json.loads((folder / "head.json").read_text(encoding="utf-8"))
    assert any("two separate objects" in warning for warning in about["warnings"])


def test_fields_without_a_head_leave_nothing_and_two_heads_are_told(
    head: gi.Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw, "RESOLUTION", 96)

    def shown(field: Callable[[np.ndarray], np.ndarray]) -> None:
        monkeypatch.setattr(raw, "field_lattice", lambda f, n, *_: lattice.dense(field, n, f.box_warp))

    def ball(p: np.ndarray, x: float, radius: float) -> np.ndarray:
        return np.linalg.norm(p - np.float32([x, 0.1, 0]), axis=1) - radius

    for field, why in (
        (lambda p: np.ones(len(p)), "is empty"),
        (lambda p: np.full(len(p), np.nan), "not finite"),
        (lambda p: np.sin(p * 1e6).sum(1), "is noise"),
    ):
        shown(field)
        with pytest.raises(GeoInvError, match=why):
            head.save(tmp_path / "head", topology="raw", texture=64)
        assert not list(tmp_path.iterdir())
    shown(lambda p: np.minimum(ball(p, -0.25, 0.2), ball(p, 0.25, 0.18)))
    folder = head.save(tmp_path / "head", topology="raw", texture=64)
    about = json.loads((folder / "head.json").read_text(encoding="utf-8"))
    assert any("two separate objects" in warning for warning in about["warnings"])
