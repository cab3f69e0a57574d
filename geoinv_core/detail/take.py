"""From a photo and its inversion to the head's detail: all steps of the local branch in a row."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from geoinv_core.detail.bake import Texture, bake, heights
from geoinv_core.detail.evidence import gather, logit, see
from geoinv_core.detail.hair import evened, hair_of
from geoinv_core.detail.network import Detail
from geoinv_core.detail.remainder import remainder
from geoinv_core.detail.sides import Looks, Side, look, middles, sides_of
from geoinv_core.detail.tint import no_tint, recoloured, tint_of
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.render import Field


def take(
    network: Detail,
    generator: TriplaneGenerator,
    field: Field,
    photo: Tensor,
    camera: Tensor,
    mask: Tensor | None = None,
    other_hair: Field | None = None,
) -> Texture:
    """The detail of one head.

    Args:
        field: its colours without detail (`TriplaneGenerator.colour_field`).
        photo: [1, 3, S, S] sRGB in -1..1, as `camera` [1, 25] sees it.
        mask: [1, 1, R, R] how much of it shows the head, 0..1; None: all.
        other_hair: the head with hair of another colour; where given, unseen hair is evened (`detail.hair`).
    """
    sides = sides_of(field)
    looks = look(field, sides, field.planes.shape[-1])
    with torch.inference_mode():
        seen = see(generator, field, photo, camera, mask)
        tint = tint_of(seen)
        cast = replace(looks, colour=recoloured(logit(looks.colour), tint).sigmoid())
        evidence = gather(replace(seen, ours=recoloured(seen.ours, tint)), cast, camera)
        change = network([evidence])[0]
        if other_hair is not None:
            hair = hair_of(looks.colour, look(other_hair, sides, field.planes.shape[-1]).colour)
            change = evened(change, evidence.seen, hair)
        detailed = bake(field, textured(field, sides, looks, change, tint))
        change = change + remainder(see(generator, detailed, photo, camera, mask), evidence)
    return textured(field, sides, looks, change, tint)


def textured(
    field: Field, sides: list[Side], looks: Looks, change: Tensor, tint: Tensor | None = None
) -> Texture:
    """Upright changes [S, 3, R, R] shared out over the sides and laid like the planes."""
    shared = laid(change * looks.share, sides)
    tint = no_tint().to(change) if tint is None else tint
    return Texture(shared, heights(looks.points, field, sides), middles(looks, sides), tint)


def laid(change: Tensor, sides: list[Side]) -> Tensor:
    """Upright pictures [S, C, R, R] in the layout of their planes."""
    return torch.stack([s.laid(c) for s, c in zip(sides, change, strict=True)])
