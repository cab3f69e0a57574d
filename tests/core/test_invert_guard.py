"""Refinement keeps the sides of a head; the encoder's doubts are measured."""

from __future__ import annotations

import pytest
import torch

from geoinv_core.camera import orbit
from geoinv_core.encoder import Encoded
from geoinv_core.encoder.confidence import doubts
from geoinv_core.encoder.network import camera_of
from geoinv_core.invert.guard import change_mm, guarded, side_depths
from tests.core.tiny import solid


def test_what_would_bend_the_sides_is_held_back() -> None:
    generator = solid(camera_target=(0.0, 0.0, 0.0))
    start = generator.w_avg.expand(1, generator.num_ws, -1).clone()
    far = start + 1.5 * torch.randn(start.shape, generator=torch.Generator().manual_seed(2))
    before = side_depths(generator, start)
    assert change_mm(generator, before, start) == 0.0
    whole = change_mm(generator, before, far)
    assert whole > 5.0
    ws, share, change = guarded(generator, start, far, allowed_mm=whole / 2)
    assert 0.0 < share < 1.0
    assert change <= whole / 2
    torch.testing.assert_close(ws, start + share * (far - start))
    same, share, change = guarded(generator, start, far, allowed_mm=1e-9)
    assert torch.equal(same, start)
    assert (share, change) == (0.0, 0.0)
    all_of_it, share, _ = guarded(generator, start, far, allowed_mm=whole + 1)
    assert share == 1.0
    torch.testing.assert_close(all_of_it, far)


def answer(yaw: float = 0.0, pitch: float = 0.0) -> Encoded:
    """An encoder's answer about a face in the middle of the crop, sure of itself."""
    pose = torch.tensor([[yaw, pitch, 0.0, 0.0, 0.0, 0.0, 0.0]]).deg2rad()
    c = torch.zeros(1, 4)
    found = Encoded(c, c, c, torch.zeros(1, 2, 3), pose, camera_of(pose), c + 0.1)
    marks = torch.full((1, 68, 2), 0.5)
    marks[0, 36:42, 0], marks[0, 42:48, 0] = 0.4, 0.6
    found.landmarks, found.landmark_spread = marks, torch.full((1, 68, 2), 0.01)
    found.outline = torch.full((1, 1, 32, 32), -5.0)
    found.outline[..., 8:24, 8:24] = 5.0
    return found


def test_doubts_carry_their_measure() -> None:
    covered = torch.zeros(1, 1, 32, 32)
    covered[..., 8:24, 8:24] = 1.0
    points = {"mouth_left": (0.5, 0.5), "nose_tip": (0.5, 0.51)}
    assert doubts(answer(), covered, points, (2.0, -3.0)) == []
    (turned,) = doubts(answer(yaw=80), covered)
    assert turned.confidence == pytest.approx(60 / 80)
    assert "80 degrees to the side" in str(turned)
    assert "confidence 75 %" in str(turned)
    (up,) = doubts(answer(), covered, None, (0.0, 58.0))  # the landmark network saw it, the encoder did not
    assert "58 degrees up or down" in str(up)
    (hardly,) = doubts(answer(), covered, points, (2.0, -3.0), 0.3)
    assert "confidence 30 %" in str(hardly)
    (cover,) = doubts(answer(), torch.zeros(1, 1, 64, 64))
    assert cover.confidence == 0.0
    assert "belong together" in str(cover)
    (apart,) = doubts(answer(), covered, {"mouth_left": (0.7, 0.9), "nose_tip": (0.3, 0.3)})
    assert apart.confidence < 0.8
    unsure = answer()
    unsure.landmark_spread = torch.full((1, 68, 2), 0.2)
    assert "clearly" in str(doubts(unsure, covered)[0])


def test_an_older_encoders_answer_is_judged_by_its_turn_alone() -> None:
    found = answer(yaw=-75)
    found.landmarks = found.landmark_spread = found.outline = None
    assert len(doubts(found, torch.zeros(1, 1, 32, 32))) == 1


def test_a_nearer_camera_has_a_shorter_focal_length() -> None:
    near = camera_of(torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.5]]))[0]
    factor = torch.tensor(-0.5).exp().item()
    torch.testing.assert_close(near, orbit(radius=2.7 * factor, focal=4.2647 * factor), atol=1e-5, rtol=0)
