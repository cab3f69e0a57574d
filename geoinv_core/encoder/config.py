"""Sizes of an encoder, and what its outputs mean."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from geoinv_core.encoder.mirror import across
from geoinv_core.heads.layout import LabelLayout

INPUT = 128
"""Side of the picture the network looks at, pixels."""
LANDMARKS = 68
"""Of the iBUG scheme, see `heads.landmarks`."""
OUTLINE = 32
"""Side of the mask that comes out, pixels."""


@dataclass(frozen=True)
class EncoderConfig:
    """Widths and sizes; the layout says what the label outputs mean."""

    z_dim: int
    c_dim: int
    num_ws: int
    w_dim: int
    choices: tuple[tuple[int, ...], ...]
    """the entries of c that exclude each other (skins, hair styles, ...)"""
    widths: tuple[int, ...] = (48, 64, 128, 256, 320)
    hidden: int = 768
    close: int = 0
    """width of the close reading; 0: none, as encoders had before there was one"""
    expressions: tuple[int, int] = (0, 0)
    """[start, stop) of the expression units in c, which the close reading tells"""
    sharp: int = INPUT
    """side of the picture that the close reading cuts mouth and eyes out of: raised brows move by a
    thirtieth of the distance of the eyes, which is a single pixel of INPUT"""
    nearer: bool = False
    """whether landmarks are looked for once more where they were found, and then tell the camera"""
    form: bool = False
    """whether the close reading tells the head's form (z and the labels before the expressions), too"""
    occlusion: bool = False
    """whether it tells where something lies in front of the head (`encoder.occlusion`)"""
    brows: tuple[int, ...] = ()
    """the entries of c that are read once more in a band around the eyes (`encoder.brows`)"""
    across: tuple[int, ...] = ()
    """for every entry of c, the one that a mirrored face shows there (`encoder.mirror`)"""
    cascade: bool = False
    """whether landmarks are found once more, more precisely (`encoder.cascade`)"""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> EncoderConfig:
        data: dict[str, Any] = json.loads(text)
        ranges = data.pop("groups", None)  # as older files have it: start and stop of each choice
        chosen = data["choices"] if ranges is None else [range(*g) for g in ranges]
        data["choices"] = tuple(tuple(g) for g in chosen)
        data["widths"] = tuple(data["widths"])
        for name in ("brows", "across"):
            data[name] = tuple(data.get(name, ()))
        data["expressions"] = tuple(data.get("expressions", (0, 0)))
        return cls(**data)

    @classmethod
    def of(cls, layout: LabelLayout, num_ws: int, w_dim: int, **sizes: Any) -> EncoderConfig:
        """The configuration for a generator with these labels and styles."""
        names = layout.names
        kinds = dict.fromkeys(name.partition(":")[0] for name in names if ":" in name)
        choices = tuple(tuple(i for i, n in enumerate(names) if n.startswith(kind + ":")) for kind in kinds)
        first = names.index(layout.expressions[0])
        units = (first, first + len(layout.expressions))
        return cls(
            layout.z_dim,
            len(names),
            num_ws,
            w_dim,
            choices,
            **sizes,
            expressions=units,
            across=across(layout),
        )
