"""Heads without their glasses, as meshes are: label, photo and detail."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from geoinv_core.evaluate.inversion import photo_of
from geoinv_core.evaluate.truth import draw_truth
from geoinv_core.head import Head
from geoinv_core.heads import HeadAssets, sample
from geoinv_core.mesh.assemble import NO_GLASSES, assemble
from geoinv_core.model import open_model


def inverted(assets: HeadAssets, glasses: str) -> tuple[Head, bytes]:
    labels = replace(sample(assets, 900021), hair="buzz", beard=0.0, age=30.0, glasses=glasses)
    photo = photo_of(assets, draw_truth(assets, labels, {"front": 0.0}, 64))
    return open_model("default").invert(photo), photo


@pytest.fixture(scope="module")
def worn(assets: HeadAssets) -> Head:
    return inverted(assets, "square")[0]


def wears(head: Head) -> str:
    assert head.model.label_space is not None
    return head.model.label_space.choices(head.inversion.c[0])["glasses"]


def test_glasses_go_from_label_and_photo(assets: HeadAssets, worn: Head) -> None:
    assert wears(worn) != "none"
    assert wears(worn.bare) == "none"
    before, after = worn.inversion.photo, worn.bare.inversion.photo
    assert before is not None
    assert after is not None
    changed = np.abs(before.astype(int) - after).max(2) > 30
    assert 0.003 < changed.mean() < 0.06
    # what went was darker than what is there now
    assert before[changed].mean() < after[changed].mean() - 30
    # the same head drawn without glasses: most of what differed from it around the eyes is gone
    none, photo = inverted(assets, "none")
    assert none.inversion.photo is not None
    without = np.asarray(Image.open(io.BytesIO(photo)).convert("RGB").resize((512, 512)))
    assert without.shape == after.shape
    middle = np.s_[180:300, 130:380]
    left = np.abs(after[middle].astype(int) - none.inversion.photo[middle]).mean()
    assert left < 0.75 * np.abs(before[middle].astype(int) - none.inversion.photo[middle]).mean()


def test_labels_beside_glasses_stay_and_so_does_the_head_itself(worn: Head) -> None:
    assert worn.bare.labels == worn.labels
    assert worn.bare.inversion.detail is not None
    assert worn.bare.bare is worn.bare
    assert worn.bare is worn.bare
    edited = worn.edit({"age": 60.0})
    assert wears(edited.bare) == "none"
    assert edited.bare.labels["age"] == pytest.approx(60, abs=0.1)


def test_meshes_wear_none_and_say_so(worn: Head) -> None:
    warnings = assemble(worn, "quads", 256, shapes=False)[2]
    assert NO_GLASSES in warnings
    assert NO_GLASSES not in assemble(worn.bare, "quads", 256, shapes=False)[2]
