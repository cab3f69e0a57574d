"""Hair takes the photo's colour where the code's is unlike it, and only there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from geoinv_core import camera as cameras
from geoinv_core.edit import HAIR_COLOUR, Labels
from geoinv_core.encoder import Encoded, camera_of
from geoinv_core.heads.skin import Skin
from geoinv_core.invert.hair import hair_coloured, hair_styled
from geoinv_core.model import Model, open_model

POSE = torch.tensor([[0.1, 0.05, 0.0, -0.25, 0.0, -0.02, 0.0]])


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model("default")


def labels_of(model: Model) -> Labels:
    assert model.label_space is not None
    return model.label_space


def read(model: Model, skin: Skin, hair: str, shades: tuple[float, float, float]) -> tuple[Encoded, Tensor]:
    """An answer that is right about a head with this hair, and its photo [1, 3, 128, 128]."""
    labels = labels_of(model)
    c = labels.with_choice(torch.zeros(len(labels.layout.names)), "hair", hair)[None]
    c[0, [labels.index[name] for name in HAIR_COLOUR]] = torch.tensor(shades)
    z = torch.zeros(1, model.generator.config.z_dim)
    marks, _ = cameras.project(camera_of(POSE), skin.landmarks(z, c))
    with torch.inference_mode():
        ws = model.generator.map(z, c)
        drawn = model.generator.draw(
            model.generator.colour_field(model.generator.planes(ws), ws), camera_of(POSE), 128, (24, 24)
        )
    outline = interpolate(drawn.opacity, size=(32, 32), mode="area").clamp(0.02, 0.98).logit()
    found = Encoded(
        z, c, c, torch.zeros_like(ws), POSE, camera_of(POSE), torch.full_like(c, 0.3),
        torch.full((1, 7), 0.03), marks, torch.full((1, 68, 2), 0.005), outline,
    )  # fmt: skip
    return found, drawn.features[:, :3] * 2 - 1 + (1 - drawn.opacity)


def asked(model: Model, found: Encoded, photo: Tensor) -> Encoded | None:
    with torch.inference_mode():
        ws = model.generator.map(found.z, found.c)
        field = model.generator.colour_field(model.generator.planes(ws), ws)
        return hair_coloured(model.generator, found, field, photo, labels_of(model))


@pytest.mark.parametrize("light", [1.0, 0.6])
def test_fair_hair_turns_brown_with_the_photo_in_any_light(model: Model, skin: Skin, light: float) -> None:
    true, photo = read(model, skin, "short02", (-0.4, -0.7, -0.9))
    at = [labels_of(model).index[name] for name in HAIR_COLOUR]
    wrong = true.c.clone()
    wrong[0, at] = torch.tensor([1.3, 1.2, 0.8])
    better = asked(model, replace(true, c=wrong), ((photo + 1) * light - 1))
    assert better is not None
    before, after = ((c - true.c)[0, at].abs() for c in (wrong, better.c))
    assert (after < 0.5 * before).all()
    rest = [i for i in range(wrong.shape[1]) if i not in at]
    assert torch.equal(better.c[:, rest], wrong[:, rest])


def test_hair_that_is_alike_stays_and_a_bald_head_has_none(model: Model, skin: Skin) -> None:
    found, photo = read(model, skin, "short02", (-0.4, -0.7, -0.9))
    assert asked(model, found, photo) is None
    bald, photo = read(model, skin, "bald", (0.0, 0.0, 0.0))
    hat = photo.clone()
    hat[:, 2, :40] = 1.0
    assert asked(model, bald, hat) is None


def styled(model: Model, found: Encoded, photo: Tensor) -> str | None:
    """The style that is tried on, None where the answer's own stays."""
    space = labels_of(model)
    with torch.inference_mode():
        ws = model.generator.map(found.z, found.c)
        field = model.generator.colour_field(model.generator.planes(ws), ws)
        other = hair_styled(model.generator, found, field, photo, space)
    return None if other is None else space.choices(other.c[0])["hair"]


def test_short_hair_becomes_the_full_hair_that_the_outline_shows(model: Model, skin: Skin) -> None:
    true, photo = read(model, skin, "curls", (0.0, 0.0, 0.0))
    assert styled(model, true, photo) is None
    space = labels_of(model)
    shorn = replace(true, c=space.with_choice(true.c[0], "hair", "buzz")[None])
    assert styled(model, shorn, photo) == "curls"
    assert styled(model, replace(shorn, outline=None), photo) is None


def test_a_style_that_would_hide_the_face_is_not_tried_on(model: Model, skin: Skin) -> None:
    """Long hair fills the outline of a head in a hood, but falls over the eye that the photo shows."""
    true, photo = read(model, skin, "bald", (0.0, 0.0, 0.0))
    hood, _ = read(model, skin, "bob02", (0.0, 0.0, 0.0))
    likely = replace(true, outline=hood.outline, logits=hood.logits)
    assert styled(model, likely, photo) != "bob02"


def test_without_landmarks_nothing_changes(model: Model, skin: Skin) -> None:
    found, photo = read(model, skin, "short02", (-0.4, -0.7, -0.9))
    assert asked(model, replace(found, landmarks=None), -photo) is None
