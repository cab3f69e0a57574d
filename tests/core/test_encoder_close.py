"""The close reading: squares of a picture, and landmarks that look nearer."""

from dataclasses import replace

import torch

from geoinv_core.encoder import Encoder, EncoderConfig
from geoinv_core.encoder.close import NearerLook, cut, patches
from geoinv_core.encoder.config import INPUT, LANDMARKS

SIZES = EncoderConfig(5, 9, 4, 16, ((7, 8),), (16, 16, 16, 32, 32), 64, 32, (2, 7))


def ramps(side: int) -> torch.Tensor:
    """[1, 2, S, S]: x and y of every pixel's middle, in picture widths."""
    at = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x, y])[None]


def test_a_square_shows_what_lies_there() -> None:
    centres = torch.tensor([[[0.5, 0.25], [0.6, 0.7]]])
    found = cut(ramps(64), centres, 0.2, 8)
    assert found.shape == (1, 2, 2, 8, 8)
    torch.testing.assert_close(found.mean((3, 4)), centres)
    across = found[0, 0, 0, 0]
    torch.testing.assert_close(across, 0.5 + 0.2 * ((torch.arange(8) + 0.5) / 8 - 0.5))
    torch.testing.assert_close(cut(ramps(64), centres, 0.0, 1)[..., 0, 0], centres)


def test_mouth_and_eyes_are_cut_out_where_they_are() -> None:
    landmarks = torch.full((1, LANDMARKS, 2), 0.5)
    landmarks[:, 48:] = torch.tensor([0.5, 0.7])
    landmarks[:, 36:42] = torch.tensor([0.35, 0.4])
    landmarks[:, 42:48] = torch.tensor([0.65, 0.4])
    middles = [p.mean((2, 3))[0].tolist() for p in patches(ramps(192), landmarks)]
    for found, (x, y) in zip(middles, [(0.5, 0.7), (0.35, 0.375), (0.65, 0.375)], strict=True):
        torch.testing.assert_close(torch.tensor(found), torch.tensor([x, y]))


def test_landmarks_move_by_what_is_around_them_and_by_nothing_at_first() -> None:
    torch.manual_seed(0)
    nearer = NearerLook(4, 6)
    image, maps = torch.rand(2, 3, 64, 64), [torch.rand(2, 4, 16, 16), torch.rand(2, 6, 8, 8)]
    places = torch.rand(2, LANDMARKS, 2) * 0.6 + 0.2
    assert not nearer(image, maps, places).any()
    torch.nn.init.normal_(nearer.moves)
    before = nearer(image, maps, places)
    image[0, :, :, :20] = 0
    changed = (nearer(image, maps, places) - before).abs().amax(2) > 0
    near = places[..., 0] < 20 / 64 + 0.04
    assert not changed[1].any()
    assert changed[0, near[0]].all()
    assert not changed[0, places[0, :, 0] > 20 / 64 + 0.08].any()


def test_an_encoder_without_the_nearer_look_still_reads() -> None:
    torch.manual_seed(0)
    plain = Encoder(SIZES).eval()
    nearer = Encoder(
        EncoderConfig.from_json(SIZES.to_json().replace('"nearer": false', '"nearer": true'))
    ).eval()
    missing = nearer.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing
    assert all(name.startswith(("close.nearer.", "close.turn.")) for name in missing)
    picture = torch.rand(1, 3, INPUT, INPUT)
    with torch.inference_mode():
        a, b = plain(picture), nearer(picture)
    torch.testing.assert_close(a.pose, b.pose)
    torch.testing.assert_close(a.landmarks, b.landmarks)


def test_the_close_reading_tells_the_form_once_it_has_learned() -> None:
    torch.manual_seed(0)
    plain = Encoder(SIZES).eval()
    forming = Encoder(replace(SIZES, form=True)).eval()
    missing = forming.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing
    assert all(name.startswith("close.form.") for name in missing)
    picture = torch.rand(1, 3, INPUT, INPUT)
    with torch.inference_mode():
        before = plain(picture)
        torch.testing.assert_close(forming(picture).z, before.z)
        assert forming.close is not None
        assert forming.close.form is not None
        forming.close.form[-1].bias.copy_(torch.arange(7.0))
        after = forming(picture)
    torch.testing.assert_close(after.z - before.z, torch.arange(5.0)[None])
    torch.testing.assert_close((after.c - before.c)[:, :2], torch.tensor([[5.0, 6.0]]))
    torch.testing.assert_close(after.c[:, 2:], before.c[:, 2:])
