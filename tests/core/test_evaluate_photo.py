"""A real photo in its variants: what is made of it, how landmarks are compared, and the sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geoinv_core import model as models
from geoinv_core.evaluate import photos
from geoinv_core.evaluate.photos import distance, table, variants

PHOTO = Path(__file__).resolve().parents[1] / "data" / "head-900003.png"


def test_variants_differ_and_keep_what_they_should() -> None:
    photo = Image.open(PHOTO).convert("RGB")
    made = variants(photo)
    assert len(made) == 9
    whole = np.asarray(photo, int)
    assert np.array_equal(np.asarray(made["mirrored"], int)[:, ::-1], whole)
    grey = np.asarray(made["grey"], int)
    assert (grey.max(2) == grey.min(2)).all()
    assert made["25 %"].width == photo.width // 4
    assert np.asarray(made["dark"], int).mean() < 0.5 * whole.mean()
    covered = (np.asarray(made["half covered"], int) != whole).any(2)
    assert 0.02 < covered.mean() < 0.5
    assert covered.any(0).nonzero()[0].min() > 0.3 * photo.width  # one half only


def test_distances_count_in_eyes() -> None:
    eyes = np.array([[60.0, 50.0], [40.0, 50.0], [58.0, 80.0], [42.0, 80.0]])
    assert distance(eyes, eyes, mesh=False) == 0.0
    assert distance(eyes + np.array([2.0, 0.0]), eyes, mesh=False) == pytest.approx(0.1)


@pytest.mark.skipif(not models.BUNDLED.is_file(), reason="the bundled model is not in this checkout")
def test_a_sheet_is_made_and_refusals_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    photo = Image.open(PHOTO).convert("RGB")
    blank = Image.new("RGB", photo.size, (90, 120, 160))
    monkeypatch.setattr(photos, "variants", lambda _: {"as it is": photo, "blank": blank})
    report = photos.evaluate_photo(models.open_model("default", "cpu"), PHOTO)
    found = report.scores["variants"]
    assert 0 < found["as it is"]["apart"] < 0.5
    assert "face" in found["blank"]["error"]
    assert report.scores["of"] == 2
    assert report.sheet.height > 200
    assert "as it is" in table(report.scores)
