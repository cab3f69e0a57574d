"""Form and camera from landmarks: a head is found again from where its landmarks lie."""

from __future__ import annotations

from dataclasses import replace

import torch

from geoinv_core import camera as cameras
from geoinv_core.encoder import Encoded, camera_of
from geoinv_core.evaluate.inversion import rotation_error
from geoinv_core.heads.skin import Skin
from geoinv_core.invert.form import formed

POSE = torch.tensor([[0.2, 0.08, 0.03, -0.3, 0.01, -0.02, 0.05]])
POSE_SPREAD = torch.tensor([[0.05, 0.05, 0.03, 0.04, 0.015, 0.015, 0.05]])


def answer(skin: Skin, sure: float = 0.001) -> tuple[Encoded, torch.Tensor, torch.Tensor]:
    """What an encoder says that knows the mean head, a camera that is off, and a head's landmarks; the head's
    z and c."""
    rng = torch.Generator().manual_seed(4)
    z = 0.8 * torch.randn(1, skin.layout.z_dim, generator=rng)
    c = torch.zeros(1, len(skin.layout.names))
    c[0, skin.layout.names.index("age")] = 1.5
    marks, _ = cameras.project(camera_of(POSE), skin.landmarks(z, c))
    off = POSE + torch.tensor([[0.06, -0.05, 0.02, 0.03, 0.01, 0.01, 0.0]])
    found = Encoded(
        torch.zeros_like(z), torch.zeros_like(c), torch.zeros_like(c), torch.zeros(1, 4, 8), off,
        camera_of(off), torch.ones_like(c), POSE_SPREAD, marks, torch.full((1, 68, 2), sure),
    )  # fmt: skip
    return found, z, c


def test_form_age_and_camera_are_found_again(skin: Skin) -> None:
    found, z, c = answer(skin)
    better = formed(found, skin)
    true = camera_of(POSE)[0]
    assert rotation_error(better.camera[0], true) < 0.35 * rotation_error(found.camera[0], true)
    torch.testing.assert_close(better.camera, camera_of(better.pose))
    before, after = ((skin.points(e.z, e.c) - skin.points(z, c)).norm(dim=2).mean() for e in (found, better))
    assert after < 0.8 * before  # a face says little of the back of a skull
    age = skin.layout.names.index("age")
    assert abs(float(better.c[0, age] - c[0, age])) < 0.6


def test_unsure_landmarks_move_little_and_one_that_is_far_off_is_passed_over(skin: Skin) -> None:
    found, _, _ = answer(skin)
    vague = formed(answer(skin, sure=0.5)[0], skin)
    assert (vague.pose - found.pose).abs().max() < 0.01
    assert (vague.z - found.z).abs().max() < 0.05
    assert found.landmarks is not None
    covered = found.landmarks.clone()
    covered[0, 8] += 0.3
    without, astray = formed(found, skin), formed(replace(found, landmarks=covered), skin)
    assert rotation_error(astray.camera[0], without.camera[0]) < 0.5


def test_choices_stay_and_an_encoder_without_landmarks_is_believed(skin: Skin) -> None:
    found, _, _ = answer(skin)
    chosen = [i for i, name in enumerate(skin.layout.names) if ":" in name]
    found.c[0, chosen] = torch.linspace(0, 1, len(chosen))
    with torch.inference_mode():
        better = formed(found, skin)
    torch.testing.assert_close(better.c[0, chosen], found.c[0, chosen])
    plain = replace(found, landmarks=None, landmark_spread=None)
    assert formed(plain, skin) is plain
