"""Hair of the style and in the colour that the photo shows.

Detail puts the photo's hair where the photo sees it; behind, the code's own shows, and on real photos that is
often not the same. Where the drawn head fills the photo's outline badly, the likeliest other styles are tried
on. And where what lies above the brows looks unlike the photo, the head is made once more with other hair,
which tells what of the picture is hair and how it answers, and the hair's colour is fitted to the photo,
relative to how light and coloured the photo's face is against the drawn one.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from geoinv_core.edit import HAIR_COLOUR, Labels
from geoinv_core.encoder.network import Encoded
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.render import Field

SIZE, SAMPLES = 64, (24, 24)
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
FEWEST = 120
"""Pixels of hair that tell its colour; a bald head shows 40, at its brows."""
FILLED = 0.88
"""Intersection over union of the drawn head and the photo's outline, above the mouth, from which on the style
is good enough; drawn heads that are read well have .9."""
BETTER = 0.005
"""How much more another style has to fit."""
TRIED = 6
"""Styles that are tried on, the likeliest by the encoder: each takes a synthesis."""
_ROUNDS = 6
_AGAIN = 2
"""How often the colour is fitted: the answer is not quite linear."""
_MOUTH = slice(48, 68)
_FACE = slice(17, 60)
"""Landmarks from the brows to the outer lips."""


def hair_coloured(
    generator: TriplaneGenerator,
    found: Encoded,
    field: Field,
    photo: Tensor,
    space: Labels,
    mask: Tensor | None = None,
) -> Encoded | None:
    """The answer with another colour of hair; None where the photo asks for none.

    Args:
        found: of a batch of one. field: colours of the head that it says. photo: [1, 3, S, S] sRGB in -1..1.
        mask: [1, 1, R, R] how much of it shows the head, 0..1; None: all.
    """
    if found.landmarks is None or found.outline is None:
        return None
    at = [space.index[name] for name in HAIR_COLOUR]
    picture, outline, counts = _looks(photo, found.outline, mask)
    face, above = _parts(found.landmarks[0])
    now, solid = _drawn(generator, field, found.camera)
    head = solid * outline * counts
    now = now * _tone(picture, now, head * face)
    above = head * above
    unlike = (above * (picture - now).abs().mean(0)).sum() / above.sum().clamp_min(1)
    if float(unlike) < ALIKE:
        return None
    other = found.c.clone()
    other[:, at] += STEP
    ws = generator.map(found.z, other) + found.delta
    then, solid = _drawn(generator, generator.colour_field(generator.planes(ws), ws), found.camera)
    then = then * _tone(picture, then, head * face)
    answer = (then - now) / STEP
    hair = head * solid * (1 - face) * (answer.mean(0) > ANSWER)  # brows may be of another colour
    if float(hair.sum()) < FEWEST:
        return None
    hold = HOLD / found.spread[0, at].square()
    c = found.c.clone()
    for again in range(_AGAIN):
        if again:
            ws = generator.map(found.z, c) + found.delta
            now, _ = _drawn(generator, generator.colour_field(generator.planes(ws), ws), found.camera)
            now = now * _tone(picture, now, head * face)
        change = torch.zeros_like(hold)
        for _ in range(_ROUNDS):
            off = picture - now - answer * change[:, None, None]
            trust = hair / (1 + off.square().sum(0) / UNLIKE**2)
            trust = trust / trust.sum()
            told = (trust * answer * (picture - now)).sum((1, 2))
            change = told / ((trust * answer.square()).sum((1, 2)) + hold)
        c[:, at] += change
    return replace(found, c=c)


def hair_styled(
    generator: TriplaneGenerator,
    found: Encoded,
    field: Field,
    photo: Tensor,
    space: Labels,
    mask: Tensor | None = None,
) -> Encoded | None:
    """The answer with another style of hair; None where none fills the photo's outline better, or need not.

    A style also loses by what it hangs over the face that the photo does not. Arguments: see `hair_coloured`.
    """
    if found.landmarks is None or found.outline is None:
        return None
    picture, outline, counts = _looks(photo, found.outline, mask)
    face = _parts(found.landmarks[0])[0] * counts
    lowest = found.landmarks[0, _MOUTH, 1].mean()
    counts = counts * ((torch.arange(SIZE, device=photo.device) + 0.5) / SIZE < lowest)[:, None]

    def fits(field: Field) -> tuple[float, float]:
        drawn, solid = _drawn(generator, field, found.camera)
        union = (counts * torch.maximum(solid, outline)).sum().clamp_min(1)
        filled = float((counts * torch.minimum(solid, outline)).sum() / union)
        apart = (drawn * _tone(picture, drawn, solid * face) - picture).abs().mean(0)
        return filled, filled - float((face * apart).sum() / face.sum().clamp_min(1))

    filled, score = fits(field)
    if filled >= FILLED:
        return None
    worn = space.choices(found.c[0]).get("hair")
    styles = [name.partition(":")[2] for name in space.layout.names if name.startswith("hair:")]
    likely = {
        style: float(found.logits[0, space.index[f"hair:{style}"]]) for style in styles if style != worn
    }
    best = None
    least = score + BETTER
    for style in sorted(likely, key=lambda s: -likely[s])[:TRIED]:
        c = space.with_choice(found.c[0], "hair", style)[None]
        ws = generator.map(found.z, c) + found.delta
        _, score = fits(generator.colour_field(generator.planes(ws), ws))
        if score > least:
            best, least = replace(found, c=c), score
    return best


def _looks(photo: Tensor, outline: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """A photo [3, S, S] in 0..1, its head's outline by logits and how much each pixel counts, 0..1 [S, S]."""
    picture = interpolate(photo, size=(SIZE, SIZE), mode="area")[0] / 2 + 0.5
    within = interpolate(outline.sigmoid(), size=(SIZE, SIZE), mode="bilinear")[0, 0]
    if mask is None:
        return picture, within, torch.ones_like(within)
    return picture, within, interpolate(mask, size=(SIZE, SIZE), mode="bilinear")[0, 0]


def _drawn(generator: TriplaneGenerator, field: Field, camera: Tensor) -> tuple[Tensor, Tensor]:
    """Colours [3, S, S] of a head, and whether there is any of it [S, S], 0..1."""
    drawn = generator.draw(field, camera, SIZE, SAMPLES)
    return drawn.features[0, :3] / drawn.opacity[0].clamp_min(0.5), drawn.opacity[0, 0]


def _parts(landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """The face between brows and mouth, and what lies above the brows: [S, S] each, of landmarks [68, 2]."""
    axis = (torch.arange(SIZE, device=landmarks.device) + 0.5) / SIZE
    (left, top), (right, bottom) = landmarks[_FACE].amin(0), landmarks[_FACE].amax(0)
    columns, rows = (axis > left) & (axis < right), (axis > top) & (axis < bottom)
    face = (rows[:, None] & columns).float()
    above = (axis < top).float()[:, None].expand(SIZE, SIZE)
    return face, above


def _tone(picture: Tensor, drawn: Tensor, face: Tensor) -> Tensor:
    """Gain of each channel, [3, 1, 1], that makes the drawn face as light as the photo's."""
    if float(face.sum()) < 1:
        return torch.ones(3, 1, 1, device=picture.device)
    seen, own = ((face * colours).sum((1, 2), keepdim=True) for colours in (picture, drawn))
    return seen / own.clamp_min(1e-3)
