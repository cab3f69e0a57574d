"""EG3D's crop and cameras from landmarks: against exact projections, and on drawn heads it has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from geoinv_core.camera import orbit, project
from geoinv_core.heads import HeadAssets
from geoinv_core.photo import EG3D, FFHQ, Framing, prepare
from geoinv_core.photo.framing import FIVE, REFERENCE, STEADY
from geoinv_core.train.reference import derive, measure

PHOTO = Path(__file__).resolve().parents[1] / "data" / "head-900003.png"
both = pytest.mark.parametrize("framing", [EG3D, FFHQ], ids=lambda f: f.name)


def shown(framing: Framing, camera: np.ndarray) -> dict[str, tuple[float, float]]:
    """The mean face's landmarks in the camera's picture, picture widths."""
    world = torch.from_numpy(np.stack([framing.world(n) for n in REFERENCE]))
    at, _ = project(torch.from_numpy(camera)[None], world[None])
    return {name: (float(x), float(y)) for name, (x, y) in zip(REFERENCE, at[0], strict=True)}


@both
@pytest.mark.parametrize(("yaw", "pitch", "roll"), [(0, 0, 0), (25, -10, 6), (-40, 15, -12)])
def test_the_camera_of_the_mean_face_is_found_again(
    framing: Framing, yaw: float, pitch: float, roll: float
) -> None:
    true = orbit(yaw, pitch, roll=roll, target=(0.0, 0.0, framing.origin[2])).double().numpy()
    found = framing.camera(shown(framing, true), guess=(yaw, pitch))
    np.testing.assert_allclose(found, true, atol=2e-3)
    np.testing.assert_allclose(
        framing.camera(shown(framing, true))[:16], true[:16], atol=0.05
    )  # with no guess
    assert np.linalg.norm(found.reshape(-1)[[3, 7, 11]]) == pytest.approx(2.7)


def test_the_crop_of_eg3d_is_a_scaled_orthographic_fit() -> None:
    """Seven pixels a unit and 300 / 700: an unturned square about the reference's origin."""
    points = {n: (100 + 30 * REFERENCE[n][0], 80 - 30 * REFERENCE[n][1]) for n in FIVE}
    centre, half = EG3D.square(points)
    np.testing.assert_allclose(centre, [100, 80], atol=1e-6)
    np.testing.assert_allclose(half, [30 * 700 / 300 / 2, 0], atol=1e-6)
    turned = {n: (100 + 30 * (c * x - s * y), 80 - 30 * (s * x + c * y)) for n, (x, y, _) in
              ((n, REFERENCE[n]) for n in FIVE) for c, s in [(np.cos(0.3), np.sin(0.3))]}  # fmt: skip
    centre, half = EG3D.square(turned)  # the roll stays in the camera
    np.testing.assert_allclose(half, [30 * 700 / 300 / 2, 0], atol=1e-6)
    with pytest.raises(ValueError, match="different places"):
        EG3D.square(dict.fromkeys(FIVE, (3.0, 3.0)))


def test_the_crop_matches_its_camera() -> None:
    """A mean face seen by EG3D's camera, cropped EG3D's way, is that camera's picture but for 3 %: the
    crop's fit knows no perspective, and eyes and mouth are nearer than the face's centroid."""
    true = orbit(target=(0.0, 0.0, EG3D.origin[2])).double().numpy()
    centre, half = EG3D.square(shown(EG3D, true))
    assert 2 * half[0] == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose(centre, shown(EG3D, true)["nose_tip"], atol=0.05)


@both
def test_a_photo_gets_a_camera_and_points_by_hand_do_too(framing: Framing) -> None:
    crop = prepare(PHOTO, size=128, framing=framing)
    camera = crop.camera()
    assert crop.landmarks is not None
    yaw = np.degrees(np.arctan2(camera[3], camera[11]))
    assert yaw == pytest.approx(crop.landmarks.yaw, abs=5)
    by_hand = prepare(PHOTO, size=128, framing=framing, points=crop.points)
    assert np.degrees(np.arctan2(by_hand.camera()[3], by_hand.camera()[11])) == pytest.approx(yaw, abs=15)


def test_the_reference_is_that_of_our_own_heads(assets: HeadAssets) -> None:
    found = derive(assets, 24)["points"]
    for name in STEADY:
        np.testing.assert_allclose(found[name], REFERENCE[name], atol=0.03)  # 3 mm


def test_cameras_on_heads_not_seen_before(assets: HeadAssets) -> None:
    found = measure(assets, 8, EG3D)
    assert found["yaw_median"] < 5
    assert found["pitch_median"] < 6
    assert found["pixels_median"] < 20
