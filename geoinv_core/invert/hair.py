"""Hair in the colour that the photo shows.

Detail puts the photo's hair where the photo sees it; behind, the code's own colour shows, and on real photos
that is often not the same. So where what lies above the brows looks unlike the photo, the head is made once
more with other hair, which tells what of the picture is hair and how it answers, and the hair's colour is
fitted to the photo, relative to how light and coloured the photo's face is against the drawn one.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from geoinv_core.encoder.network import Encoded
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.heads.layout import LabelLayout
from geoinv_core.render import Field

SIZE, SAMPLES = 64, (24, 24)
NAMES = ("hair_colour.0", "hair_colour.1", "hair_colour.2")
ALIKE = 0.09
"""Mean difference of colours above the brows, sRGB, below which the code's hair is good enough."""
STEP = -0.7
"""How much darker the other hair is, in standard deviations."""
HOLD = 2e-5
"""Weight of the squared change, in the encoder's own spreads, against the mean squared difference."""
UNLIKE = 0.2
"""Difference of colours, sRGB, from which on a pixel counts for less: gaps, bands, background."""
ANSWER = 0.03
"""Change of a pixel per standard deviation from which on it is hair."""
FEWEST = 40
"""Pixels of hair that tell its colour."""
_ROUNDS = 6
_BROWS, _FACE = slice(17, 27), slice(17, 60)


def hair_coloured(
    generator: TriplaneGenerator, found: Encoded, field: Field, photo: Tensor, layout: LabelLayout
) -> Encoded | None:
    """The answer with another colour of hair; None where the photo asks for none.

    Args:
        found: of a batch of one. field: colours of the head that it says. photo: [1, 3, S, S] sRGB in -1..1.
    """
    if found.landmarks is None or found.outline is None or not set(NAMES) <= set(layout.names):
        return None
    at = [layout.names.index(name) for name in NAMES]
    picture = interpolate(photo, size=(SIZE, SIZE), mode="area")[0] / 2 + 0.5
    outline = interpolate(found.outline.sigmoid(), size=(SIZE, SIZE), mode="bilinear")[0, 0]
    now, solid = _drawn(generator, field, found.camera)
    head = solid * outline
    now = now * _tone(picture, now, head, found.landmarks[0])
    above = head * _above(found.landmarks[0])
    unlike = (above * (picture - now).abs().mean(0)).sum() / above.sum().clamp_min(1)
    if float(unlike) < ALIKE:
        return None
    other = found.c.clone()
    other[:, at] += STEP
    ws = generator.map(found.z, other) + found.delta
    then, solid = _drawn(generator, generator.colour_field(generator.planes(ws), ws), found.camera)
    then = then * _tone(picture, now=then, head=head, landmarks=found.landmarks[0])
    answer = (then - now) / STEP
    hair = head * solid * (answer.mean(0) > ANSWER)
    if float(hair.sum()) < FEWEST:
        return None
    hold = HOLD / found.spread[0, at].square()
    change = torch.zeros_like(hold)
    for _ in range(_ROUNDS):
        off = picture - now - answer * change[:, None, None]
        trust = hair / (1 + off.square().sum(0) / UNLIKE**2)
        trust = trust / trust.sum()
        told = (trust * answer * (picture - now)).sum((1, 2))
        change = told / ((trust * answer.square()).sum((1, 2)) + hold)
    c = found.c.clone()
    c[:, at] += change
    return replace(found, c=c)


def _drawn(generator: TriplaneGenerator, field: Field, camera: Tensor) -> tuple[Tensor, Tensor]:
    """Colours [3, S, S] of a head, and whether there is any of it [S, S], 0..1."""
    drawn = generator.draw(field, camera, SIZE, SAMPLES)
    return drawn.features[0, :3] / drawn.opacity[0].clamp_min(0.5), drawn.opacity[0, 0]


def _places(device: torch.device) -> tuple[Tensor, Tensor]:
    """x and y of every pixel's middle, [S, S] in picture widths."""
    axis = (torch.arange(SIZE, device=device) + 0.5) / SIZE
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def _above(landmarks: Tensor) -> Tensor:
    """[S, S]: 1 above the brows of landmarks [68, 2]."""
    _, y = _places(landmarks.device)
    return (y < landmarks[_BROWS, 1].min()).float()


def _tone(picture: Tensor, now: Tensor, head: Tensor, landmarks: Tensor) -> Tensor:
    """Gain of each channel, [3, 1, 1], that makes the drawn face as light as the photo's."""
    x, y = _places(landmarks.device)
    (left, top), (right, bottom) = landmarks[_FACE].amin(0), landmarks[_FACE].amax(0)
    face = head * (x > left) * (x < right) * (y > top) * (y < bottom)
    seen, drawn = ((face * colours).sum((1, 2)) for colours in (picture, now))
    return (seen / drawn.clamp_min(1e-3))[:, None, None] if float(face.sum()) > 1 else torch.ones(3, 1, 1)
