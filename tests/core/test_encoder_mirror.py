"""What a mirror does to landmarks and labels, and parts of an encoder that read a picture both ways."""

from __future__ import annotations

import torch

from geoinv_core.encoder import Encoder, EncoderConfig, mirror
from geoinv_core.encoder.cascade import Cascade
from geoinv_core.heads import HeadAssets, LabelLayout
from geoinv_core.train.brows import entries


def test_mirrored_landmarks_are_those_of_the_mirrored_face() -> None:
    assert sorted(mirror.LANDMARKS) == list(range(68))
    places = torch.rand(3, 68, 2)
    torch.testing.assert_close(mirror.landmarks(mirror.landmarks(places)), places)
    middle = (8, 27, 28, 29, 30, 33, 51, 57, 62, 66)
    assert all(mirror.LANDMARKS[at] == at for at in middle)
    assert mirror.LANDMARKS[36] == 45  # outer corners of the eyes
    assert mirror.LANDMARKS[41] == 46


def test_sides_are_exchanged_and_all_else_stays(assets: HeadAssets) -> None:
    layout = LabelLayout.of(assets)
    there, names = mirror.across(layout), layout.names
    assert [there[i] for i in there] == list(range(len(names)))
    assert names[there[names.index("jawLeft")]] == "jawRight"
    moved = {name for i, name in enumerate(names) if there[i] != i}
    assert moved == {name for name in layout.expressions if name.endswith(("Left", "Right"))}


def shaken(network: torch.nn.Module) -> None:
    """Weights that begin with zero say something, too."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn_like(weight))


def test_landmarks_of_the_mirrored_picture_are_the_mirrored_ones() -> None:
    torch.manual_seed(0)
    cascade = Cascade().eval()
    shaken(cascade)
    image, places = torch.rand(2, 3, 96, 96), torch.rand(2, 68, 2)
    with torch.inference_mode():
        found, spread = cascade.settled(image, places)
        other, other_spread = cascade.settled(image.flip(3), mirror.landmarks(places))
    assert (found - places).abs().max() > 1e-3
    torch.testing.assert_close(mirror.landmarks(other), found)
    torch.testing.assert_close(other_spread[:, list(mirror.LANDMARKS)], spread)


def test_brows_of_the_mirrored_picture_are_the_exchanged_ones(assets: HeadAssets) -> None:
    layout = LabelLayout.of(assets)
    torch.manual_seed(1)
    read = entries(layout)
    sizes = {"widths": (16, 16, 16, 32, 32), "hidden": 64, "close": 32, "cascade": True, "brows": read}
    encoder = Encoder(EncoderConfig.of(layout, 4, 8, **sizes)).eval()
    assert encoder.brows is not None
    shaken(encoder.brows)
    image = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.inference_mode():
        found = encoder(image)
        found.landmarks = found.landmarks + 0.2 * torch.rand(1, 68, 2)
        other = encoder(image)
        encoder._read_brows(image, found)
        other.landmarks = mirror.landmarks(found.landmarks)
        encoder._read_brows(image.flip(3), other)
    there = [mirror.across(layout)[i] for i in read]
    torch.testing.assert_close(found.c[:, there], other.c[:, list(read)], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.spread[:, there], other.spread[:, list(read)], atol=1e-5, rtol=1e-4)
