"""What a mirror does to a head's labels, its landmarks and its camera, and pictures read in both ways."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from geoinv_core import camera as cameras
from geoinv_core.camera import orbit
from geoinv_core.encoder import Encoded, Encoder, EncoderConfig, camera_of, mirror
from geoinv_core.heads import HeadAssets, HeadLabels, LabelLayout, Layers, build, picture, sample

POSE = torch.tensor([[0.3, -0.1, 0.2, -0.7, 0.03, -0.05, 0.1]])


def answer(layout: LabelLayout, c: torch.Tensor, z: torch.Tensor) -> Encoded:
    ones = torch.ones_like(c)
    return Encoded(z, c, c, torch.zeros(1, 4, 8), POSE, camera_of(POSE), ones)


def test_mirrored_landmarks_are_those_of_the_mirrored_face() -> None:
    assert sorted(mirror.LANDMARKS) == list(range(68))
    places = torch.rand(3, 68, 2)
    torch.testing.assert_close(mirror.landmarks(mirror.landmarks(places)), places)
    middle = (8, 27, 28, 29, 30, 33, 51, 57, 62, 66)
    assert all(mirror.LANDMARKS[at] == at for at in middle)
    assert mirror.LANDMARKS[36] == 45  # outer corners of the eyes
    assert mirror.LANDMARKS[41] == 46


def test_a_mirrored_camera_sees_the_mirrored_point_in_the_mirrored_place(assets: HeadAssets) -> None:
    layout = LabelLayout.of(assets)
    found = answer(layout, torch.zeros(1, len(layout.names)), torch.zeros(1, layout.z_dim))
    points = torch.randn(1, 9, 3) * 0.2
    seen, _ = cameras.project(found.camera, points)
    other, _ = cameras.project(mirror.mirrored(found, layout).camera, points * torch.tensor([-1.0, 1, 1]))
    torch.testing.assert_close(other, torch.stack([1 - seen[..., 0], seen[..., 1]], -1))


def drawn(assets: HeadAssets, labels: HeadLabels) -> torch.Tensor:
    (geometry,) = build(assets, [labels])
    return picture(assets, Layers(assets, geometry), orbit(), 96, 2, background=False).rgb


def test_a_head_with_mirrored_labels_is_drawn_mirrored(assets: HeadAssets) -> None:
    """Expressions, asymmetries and every light, each of which counts; hair and skin have no mirror image."""
    layout = LabelLayout.of(assets)
    drawing = np.random.default_rng(3)
    sides = {name: float(drawing.uniform(0, 0.8)) for name in layout.expressions if name.endswith("Left")}
    uneven = {name: float(drawing.normal()) for name in layout.asymmetries}
    light = replace(
        sample(assets, 3).light, direction=(0.6, 0.3, 0.6), across=(0.1, 0.2, 0.2), rim=0.9, rim_side=1.0
    )
    bare = {"hair": "bald", "glasses": "none", "beard": 0.0}
    labels = replace(sample(assets, 3), **bare, expression=sides, asymmetry=uneven, light=light)
    z, c = (torch.from_numpy(x)[None] for x in layout.encode(labels))
    found = mirror.mirrored(answer(layout, c, z), layout)
    other = replace(layout.decode(found.c[0].numpy(), labels), asymmetry={k: -v for k, v in uneven.items()})
    for encoded, expected in zip(layout.encode(other), (found.z[0], found.c[0]), strict=True):
        np.testing.assert_allclose(encoded, expected, atol=1e-4)
    image = drawn(assets, labels).flip(1)

    def apart(head: HeadLabels) -> float:
        return float((drawn(assets, head) - image).abs().mean())

    unlike = {
        "expression": replace(other, expression=sides),
        "asymmetry": replace(other, asymmetry=uneven),
        "key": replace(other, light=replace(other.light, direction=light.direction)),
        "across": replace(other, light=replace(other.light, across=light.across)),
        "rim": replace(other, light=replace(other.light, rim_side=light.rim_side)),
    }
    right = apart(other)
    assert {name: apart(head) > 1.02 * right for name, head in unlike.items()} == dict.fromkeys(unlike, True)
    assert right < 0.4 * apart(labels)


def test_pictures_and_their_mirror_images_are_read_alike(assets: HeadAssets) -> None:
    layout = LabelLayout.of(assets)
    torch.manual_seed(1)
    sizes = {"widths": (16, 16, 16, 32, 32), "hidden": 64, "close": 32, "occlusion": True, "cascade": True}
    encoder = Encoder(EncoderConfig.of(layout, 4, 8, **sizes)).eval()
    with torch.no_grad():
        for weight in encoder.parameters():  # many begin with zero
            weight.add_(0.02 * torch.randn_like(weight))
    image = torch.rand(2, 3, 128, 128) * 2 - 1
    with torch.inference_mode():
        alone = encoder(image)
        here, there = (
            mirror.read_both(encoder, layout, image),
            mirror.read_both(encoder, layout, image.flip(3)),
        )
    back = mirror.mirrored(there, layout)
    for name in (
        "z",
        "c",
        "pose",
        "camera",
        "spread",
        "landmarks",
        "landmark_spread",
        "outline",
        "occlusion",
    ):
        one, other = getattr(here, name), getattr(back, name)
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3, msg=name)
        assert one.shape == getattr(alone, name).shape
    assert not torch.equal(here.c, alone.c)
