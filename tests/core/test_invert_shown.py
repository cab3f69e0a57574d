"""What lies in front of a head is told, and neither form nor colour is taken from there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from geoinv_core import camera as cameras
from geoinv_core.encoder.network import Encoded, camera_of
from geoinv_core.evaluate.inversion import rotation_error
from geoinv_core.head import Head, Inversion, load_head
from geoinv_core.heads.skin import Skin
from geoinv_core.invert.form import formed
from geoinv_core.invert.hair import hair_coloured
from geoinv_core.invert.settle import settle
from geoinv_core.invert.shown import filled, looked_up, shown, silhouette
from geoinv_core.mesh.photo_view import photo_view
from geoinv_core.model import Model, open_model

POSE = torch.tensor([[0.05, 0.05, 0.0, -0.3, 0.0, 0.0, 0.0]])
SPREAD = torch.tensor([[0.05, 0.05, 0.03, 0.04, 0.015, 0.015, 0.05]])


def half() -> Tensor:
    """Of a photo whose right half hides the head."""
    mask = torch.ones(1, 1, 32, 32)
    mask[..., 16:] = 0
    return mask


def answer(occlusion: Tensor | None) -> Encoded:
    outline = torch.full((1, 1, 32, 32), -9.0)
    outline[..., 4:28, 4:28] = 9.0
    c = torch.zeros(1, 4)
    return Encoded(
        torch.zeros(1, 3), c, c, torch.zeros(1, 4, 8), POSE, camera_of(POSE), c, outline=outline,
        occlusion=occlusion,
    )  # fmt: skip


def test_small_and_unsure_covers_count_for_nothing() -> None:
    assert shown(answer(None)) == (None, 0.0)
    logits = torch.full((1, 1, 32, 32), -5.0)
    logits[..., 10:12, 10:12] = 5.0
    assert shown(answer(logits)) == (None, 0.0)  # a speck
    beside = torch.full((1, 1, 32, 32), -5.0)
    beside[..., :3] = 5.0
    assert shown(answer(beside)) == (None, 0.0)  # the background
    assert shown(answer(torch.zeros(1, 1, 32, 32))) == (None, 0.0)  # as likely as not


def test_a_large_cover_is_told_with_its_border() -> None:
    logits = torch.full((1, 1, 32, 32), -5.0)
    logits[..., 16:] = 5.0
    mask, share = shown(answer(logits))
    assert share == pytest.approx(0.5, abs=0.01)
    assert mask is not None
    assert mask[..., 15:].max() < 0.01
    assert mask[..., :15].min() > 0.99
    at = looked_up(mask, torch.tensor([[0.2, 0.5], [0.8, 0.5], [1.3, 0.5]]))
    torch.testing.assert_close(at, torch.tensor([1.0, 0.0, 0.0]), atol=0.01, rtol=0)
    assert looked_up(None, torch.zeros(2, 68, 2)).shape == (2, 68)


def test_colours_come_from_within_the_silhouette_only() -> None:
    found = answer(None)
    inside = silhouette(found, None)
    assert inside is not None
    assert inside[..., 8:24, 8:24].min() == 1
    assert inside[..., :2, :].max() == 0
    masked = silhouette(found, half())
    assert masked is not None
    assert torch.equal(masked, inside * half())
    assert silhouette(replace(found, outline=None), None) is None


def test_guessed_landmarks_say_nothing_of_form_and_camera(skin: Skin) -> None:
    z, c = torch.zeros(1, skin.layout.z_dim), torch.zeros(1, len(skin.layout.names))
    marks, _ = cameras.project(camera_of(POSE), skin.landmarks(z, c))
    astray = marks.clone()
    astray[marks[..., 0] > 0.55] *= torch.tensor([0.8, 1.0])  # as if the face ended at the cover
    found = Encoded(
        z, c, c, torch.zeros(1, 4, 8), POSE, camera_of(POSE), torch.ones_like(c), SPREAD, astray,
        torch.full((1, 68, 2), 0.005),
    )  # fmt: skip
    off, kept = formed(found, skin), formed(found, skin, half())
    assert rotation_error(off.camera[0], found.camera[0]) > 4
    assert rotation_error(kept.camera[0], found.camera[0]) < 1


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model("default")


def photographed(model: Model, mask: Tensor | None) -> tuple[Head, Tensor]:
    """The mean head and its photo [1, 3, 128, 128], grey under the mask: like skin and hair."""
    head = model.mean_head()
    rgb, _, _ = head.look(camera_of(POSE)[0], 128)
    if mask is not None:
        rgb[:, 64:] = 0.43
    photo = (rgb * 255).round().astype(np.uint8)
    now = head.inversion
    made = Inversion(now.w_plus, now.z, now.c, camera_of(POSE)[0], photo, None, mask)
    return Head(model, made), torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 127.5 - 1


def test_no_colour_is_taken_from_what_lies_in_front(model: Model, tmp_path: Path) -> None:
    assert model.detail is not None
    covered, photo = photographed(model, half())
    naive = replace(covered, inversion=replace(covered.inversion, mask=None))
    before = covered.look(covered.camera, 128)[0]
    with_mask, without = (
        np.abs(head.detailed(model.detail, photo).look(head.camera, 128)[0] - before)[40:90, 70:90].mean()
        for head in (covered, naive)
    )
    assert without > 0.08
    assert with_mask < 0.2 * without
    view, all_of_it = (photo_view(head, head.field) for head in (covered, naive))
    assert view is not None
    assert all_of_it is not None
    assert view.mask[:, 100:].max() == 0
    assert all_of_it.mask[:, 100:].max() > 0.9
    folder = covered.save(tmp_path / "head", topology="raw", texture=256, shapes=False)
    mask = load_head(folder, "cpu").inversion.mask
    assert mask is not None
    assert torch.equal(mask, half())


def test_camera_and_hair_look_past_what_lies_in_front(model: Model) -> None:
    head, photo = photographed(model, half())
    field = head.plain_field
    off = POSE + torch.tensor([[0.05, -0.04, 0.02, 0.02, 0.008, 0.008, 0.0]])
    found = [settle(head.generator, field, photo, off, SPREAD, mask) for mask in (None, half())]
    plain, masked = (rotation_error(camera_of(pose)[0], camera_of(POSE)[0]) for pose in found)
    assert masked < 0.8 * plain
    assert model.label_space is not None
    now, space = head.inversion, model.label_space
    marks = torch.full((1, 68, 2), 0.5)
    marks[0, 17:60] = torch.rand(43, 2, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    answered = Encoded(
        now.z, now.c, now.c, torch.zeros_like(now.w_plus), POSE, camera_of(POSE), torch.ones_like(now.c),
        SPREAD, marks, None, torch.full((1, 1, 32, 32), 9.0),
    )  # fmt: skip
    with torch.inference_mode():
        assert hair_coloured(head.generator, answered, field, photo, space, half()) is None
        assert hair_coloured(head.generator, answered, field, photo, space) is not None


def test_what_is_hidden_is_filled_with_the_head_as_it_is_known(model: Model) -> None:
    head, photo = photographed(model, half())
    _, bare = photographed(model, None)
    found = filled(head.generator, head.plain_field, head.camera[None], photo, half())
    assert torch.equal(found[..., :60], photo[..., :60])
    solid = torch.from_numpy(head.look(head.camera, 128)[2] > 0.99)
    solid[:, :70] = False
    assert solid.sum() > 1000
    assert (found - bare)[0][:, solid].abs().mean() < 0.02 < (photo - bare)[0][:, solid].abs().mean()
