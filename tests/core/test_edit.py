"""Labels: natural numbers to codes and back, mixes, what follows from age."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from geoinv_core.edit import Labels
from geoinv_core.errors import EditError
from geoinv_core.heads import HeadAssets, LabelLayout, sample
from geoinv_core.heads.labels import HAIR_COLOURS


@pytest.fixture(scope="module")
def space(assets: HeadAssets) -> Labels:
    return Labels(LabelLayout.of(assets))


@pytest.fixture
def c(space: Labels, assets: HeadAssets) -> torch.Tensor:
    return torch.from_numpy(space.layout.encode(sample(assets, 3))[1])


def test_reading_gives_back_what_was_encoded(space: Labels, c: torch.Tensor, assets: HeadAssets) -> None:
    labels, found = sample(assets, 3), space.read(c)
    assert found["age"] == pytest.approx(labels.age, abs=1e-3)
    assert found["skin_tone"] == pytest.approx(labels.skin_tone, abs=1e-3)
    assert found["jawOpen"] == pytest.approx(labels.expression.get("jawOpen", 0.0), abs=1e-3)
    assert found["light.key.0"] == pytest.approx(labels.light.key[0], abs=1e-3)
    kinds = ("skin", "hair", "eyes", "brow", "glasses")
    assert space.choices(c) == {k: getattr(labels, k) for k in kinds}


def test_choices_are_those_that_the_model_knows(space: Labels, assets: HeadAssets) -> None:
    labels = replace(sample(assets, 3), hair="curls", glasses="square")
    found = space.choices(torch.from_numpy(space.layout.encode(labels)[1]))
    assert (found["hair"], found["glasses"]) == ("curls", "square")
    older = Labels(replace(space.layout, late={}))
    known = older.choices(torch.from_numpy(older.layout.encode(labels)[1]))
    assert set(known) == {"skin", "hair", "eyes", "brow"}
    assert known["hair"] in older.layout.choices["hair"]


def test_mixes_set_their_units_and_exact_units_win(space: Labels, c: torch.Tensor) -> None:
    found = space.read(space.apply(c, {"smile": 0.5, "mouthSmileLeft": 0.1}))
    assert found["mouthSmileRight"] == pytest.approx(0.4, abs=1e-3)
    assert found["mouthSmileLeft"] == pytest.approx(0.1, abs=1e-3)
    assert found["eyeSquintLeft"] == pytest.approx(0.15, abs=1e-3)


@pytest.mark.parametrize("mix", ["smile", "browUp", "blink"])
def test_mixes_are_read_as_they_are_set(space: Labels, c: torch.Tensor, mix: str) -> None:
    """Else a smiling head's slider would stand at no smile, and moving it up would smile less."""
    assert space.read(space.apply(c, {mix: 0.6}))[mix] == pytest.approx(0.6, abs=1e-3)


def test_an_edit_changes_only_what_it_names(space: Labels, c: torch.Tensor) -> None:
    changed = {
        name
        for name, a, b in zip(space.layout.names, c, space.apply(c, {"jawOpen": 0.9}), strict=True)
        if a != b
    }
    assert changed == {"jawOpen"}


def test_old_age_brings_its_skin_and_grey_hair(space: Labels, c: torch.Tensor) -> None:
    young = space.apply(c, {"age": 25})
    old = space.apply(young, {"age": 75})
    assert space.choices(young)["skin"].startswith("young")
    assert not space.choices(old)["skin"].startswith("young")
    assert ("dark" in space.choices(old)["skin"]) == ("dark" in space.choices(young)["skin"])
    channel = [space.index[f"hair_colour.{i}"] for i in range(3)]
    grey = torch.tensor(HAIR_COLOURS["grey"]) / 255

    def greyness(code: torch.Tensor) -> float:
        return -float(((code * space.spread + space.centre)[channel] - grey).norm())

    assert greyness(old) > greyness(young)
    skins = [space.index[f"skin:{s}"] for s in space.layout.choices["skin"]]
    assert torch.allclose(old[skins].sum(), young[skins].sum(), atol=1e-4)  # shares are moved, not made


@pytest.mark.parametrize(
    ("skin", "age", "then"),
    [
        ("middleage_lightskinned_male2", 61, "middleage_lightskinned_male2"),
        ("middleage_lightskinned_male2", 80, "middleage_lightskinned_male2"),  # there is no older one
        ("middleage_lightskinned_male2", 20, "young_lightskinned_male2"),
        ("young_lightskinned_female3", 20, "young_lightskinned_female3"),
        ("middleage_darkskinned_male", 70, "old_darkskinned_male"),
    ],
)
def test_a_head_keeps_its_skin_as_long_as_none_fits_better(
    space: Labels, c: torch.Tensor, skin: str, age: float, then: str
) -> None:
    male = 0.0 if "female" in skin else 1.0
    worn = space.apply(
        space.with_choice(c, "skin", skin), {"male": male, "age": 30 if "young" in skin else 50}
    )
    assert space.choices(worn)["skin"] == skin
    assert space.choices(space.apply(worn, {"age": age}))["skin"] == then


def test_wrong_edits_say_what_to_do(space: Labels, c: torch.Tensor) -> None:
    with pytest.raises(EditError, match="did you mean smile"):
        space.apply(c, {"smlie": 0.5})
    with pytest.raises(EditError, match="from 9 to 85"):
        space.apply(c, {"age": 200})
