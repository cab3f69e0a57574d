"""The camera settles on the photo: where it was drawn from is found again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from geoinv_core.encoder.network import camera_of
from geoinv_core.evaluate.inversion import rotation_error
from geoinv_core.head import Head
from geoinv_core.invert.settle import settle
from geoinv_core.model import open_model

TRUE = torch.tensor([[0.2, 0.08, 0.03, -0.3, 0.01, -0.02, 0.05]])
SPREAD = torch.tensor([[0.04, 0.04, 0.02, 0.03, 0.01, 0.01, 0.05]])


@pytest.fixture(scope="module")
def head() -> Head:
    model = open_model("default")
    generator = torch.Generator().manual_seed(3)
    k = model.generator.config
    z, c = (0.7 * torch.randn(1, n, generator=generator) for n in (k.z_dim, k.c_dim))
    return model.head_of(z, c)


def photo_of(head: Head) -> Tensor:
    """[1, 3, 256, 256] as TRUE sees the head, before a backdrop of two colours."""
    rgb, _, opacity = head.look(camera_of(TRUE)[0], 256)
    backdrop = torch.full((256, 256, 3), 0.3)
    backdrop[:, 128:] = torch.tensor([0.7, 0.6, 0.4])
    cover = torch.from_numpy(opacity)[..., None]
    picture = torch.from_numpy(rgb) - (1 - cover) * 0.82 + (1 - cover) * backdrop
    return picture.permute(2, 0, 1)[None] * 2 - 1


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_camera_of_a_photo_is_found_again(head: Head, sign: float) -> None:
    off = TRUE + sign * torch.tensor([[0.05, -0.04, 0.02, 0.02, 0.008, 0.008, 0.0]])
    found = settle(head.generator, head.plain_field, photo_of(head), off, SPREAD)
    true = camera_of(TRUE)[0]
    before, after = (rotation_error(camera_of(pose)[0], true) for pose in (off, found))
    assert before > 3.5
    assert after < 0.4 * before
    assert (found - TRUE)[0, 3:6].abs().max() < (off - TRUE)[0, 3:6].abs().max()


def test_a_dark_photo_settles_as_well(head: Head) -> None:
    off = TRUE + torch.tensor([[0.05, -0.04, 0.02, 0.02, 0.008, 0.008, 0.0]])
    dark = (photo_of(head) + 1) * 0.6 - 1
    found = settle(head.generator, head.plain_field, dark, off, SPREAD)
    true = camera_of(TRUE)[0]
    assert rotation_error(camera_of(found)[0], true) < 0.5 * rotation_error(camera_of(off)[0], true)


def test_a_camera_that_fits_stays_and_so_does_one_that_is_sure(head: Head) -> None:
    photo = photo_of(head)
    found = settle(head.generator, head.plain_field, photo, TRUE, SPREAD)
    assert rotation_error(camera_of(found)[0], camera_of(TRUE)[0]) < 0.5
    off = TRUE + 0.03
    sure = settle(head.generator, head.plain_field, photo, off, torch.full_like(SPREAD, 1e-3))
    torch.testing.assert_close(sure, off, atol=2e-3, rtol=0)


def test_a_head_out_of_the_picture_moves_nothing(head: Head) -> None:
    away = TRUE.clone()
    away[:, 4] = 3.0
    assert torch.equal(settle(head.generator, head.plain_field, photo_of(head), away, SPREAD), away)
