"""The two vectors that a generator reads, and where each label stands in them.

`z` holds the shape of the face that no label names (102 feature axes and 29 asymmetries, standardised);
`c` holds everything else (age, sex, weight, skin, 52 expressions, hair, light ...).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoinv_core.heads.assets import HeadAssets
from geoinv_core.heads.glasses import SHAPES
from geoinv_core.heads.labels import (
    ASYMMETRY_SPREAD,
    BROW_ANGLE,
    EYE_HEIGHT,
    SPREAD,
    HeadLabels,
    Light,
    hair_styles,
    tamed,
)

_SCALARS: dict[str, tuple[float, float]] = {  # name: (centre, spread) that standardise it
    "age": (38.0, 20.0),
    "male": (0.5, 0.5),
    "african": (0.33, 0.33),
    "asian": (0.33, 0.33),
    "caucasian": (0.33, 0.33),
    "weight": (0.0, 0.5),
    "muscle": (0.0, 0.5),
    "skin_tone": (0.4, 0.27),
    "beard": (0.15, 0.3),
    "gloss": (0.85, 0.2),
    "neckline": (0.22, 0.2),
}
_LIGHT: dict[str, tuple[float, float]] = {
    "direction": (0.0, 0.5),
    "key": (0.95, 0.3),
    "sky": (0.6, 0.17),
    "ground": (0.32, 0.12),
    "rim": (0.45, 0.26),
    "rim_side": (0.0, 1.0),
    "softness": (2.0, 0.6),
}
_LATE_LIGHT = {"across": (0.0, 0.13), "ahead": (0.03, 0.1)}
_FIRST_HAIR = ("afro01", "bald", "buzz")  # of the styles without a texture, those of the first layouts


def other_side(name: str) -> str:
    """The unit of an expression that a mirrored face shows for this one; the same where it has no side."""
    return name.replace("Left", "\0").replace("Right", "Left").replace("\0", "Right")


@dataclass(frozen=True)
class LabelLayout:
    """Where each label stands in `c`, and each axis in `z`; stored with a model so that it outlives the
    data."""

    expressions: list[str]
    axes: list[str]
    signed: list[bool]
    asymmetries: list[str]
    choices: dict[str, list[str]]
    """skin, hair, eyes, brow: the possible values, one number each"""
    late: dict[str, list[str]] = field(default_factory=dict)
    """values that came later (hair, glasses), at the end of c and followed by the lights of `_LATE_LIGHT`;
    empty in the layouts of older models, which know none of them"""

    @classmethod
    def of(cls, assets: HeadAssets) -> LabelLayout:
        def strip(prefix: str) -> list[str]:
            return [name.removeprefix(prefix) for name in assets.textures(prefix)]

        choices = {
            "skin": strip("skin_"),
            "hair": [*strip("hair_"), *_FIRST_HAIR],
            "eyes": strip("eye_"),
            "brow": strip("brow_"),
        }
        return cls(
            assets.expressions,
            list(assets.axes),
            [bool(n) for n, _ in assets.axes.values()],
            assets.asymmetries,
            choices,
            {
                "hair": [s for s in hair_styles(assets) if s not in choices["hair"]],
                "glasses": ["none", *SHAPES],
            },
        )

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LabelLayout:
        return cls(**data)

    @property
    def names(self) -> list[str]:
        """One name per entry of c, in order: `age`, ..., `jawOpen`, ..., `hair:long01`, ..., `light.key.0`
        ..."""
        result = [*_SCALARS, *self.expressions]
        result += [f"{kind}:{value}" for kind, values in self.choices.items() for value in values]
        result += [f"{colour}.{i}" for colour in ("hair_colour", "shirt") for i in range(3)]
        for name in _LIGHT:
            value = getattr(Light(), name)
            result += (
                [f"light.{name}.{i}" for i in range(3)] if isinstance(value, tuple) else [f"light.{name}"]
            )
        if self.late:
            result += [f"{kind}:{value}" for kind, values in self.late.items() for value in values]
            result += [f"light.{name}.{i}" for name in _LATE_LIGHT for i in range(3)]
        return result

    def values(self) -> dict[str, list[str]]:
        """Every kind of part with all values that the model knows, early and late."""
        kinds = self.choices | self.late
        return {kind: self.choices.get(kind, []) + self.late.get(kind, []) for kind in kinds}

    @property
    def z_dim(self) -> int:
        return len(self.axes) + len(self.asymmetries)

    def standard(self, name: str) -> tuple[float, float]:
        """(centre, spread): entry of c = (natural value - centre) / spread."""
        if name in _SCALARS:
            return _SCALARS[name]
        if name.startswith("light."):
            return (_LIGHT | _LATE_LIGHT)[name.split(".")[1]]
        if name.startswith(("hair_colour", "shirt")):
            return (0.35, 0.25)
        return (0.0, 0.25) if name in self.expressions else (0.0, 0.5)

    def encode(self, labels: HeadLabels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(z [z_dim], c [c_dim]), both about standard normal."""
        natural: list[float] = [getattr(labels, name) for name in _SCALARS]
        natural += [labels.expression.get(name, 0.0) for name in self.expressions]
        for kind, values in self.choices.items():
            chosen = getattr(labels, kind)
            natural += [float(value == chosen) for value in values]
        natural += [*labels.hair_colour, *labels.shirt]
        for name in _LIGHT:
            value = getattr(labels.light, name)
            natural += [*value] if isinstance(value, tuple) else [value]
        if self.late:
            for kind, values in self.late.items():
                natural += [float(value == getattr(labels, kind)) for value in values]
            for name in _LATE_LIGHT:
                natural += getattr(labels.light, name)
        c = [(v - m) / s for v, (m, s) in zip(natural, map(self.standard, self.names), strict=True)]
        z = []
        for axis, signed in zip(self.axes, self.signed, strict=True):
            value = labels.features.get(axis, 0.0)
            value -= {"eyebrows-angle": BROW_ANGLE, "eye-height2": EYE_HEIGHT}.get(axis, 0.0)
            z.append(value / (SPREAD * max(tamed(axis), 0.4) * (1.0 if signed else 0.6)))
        z += [labels.asymmetry.get(a, 0.0) / ASYMMETRY_SPREAD for a in self.asymmetries]
        return np.array(z, np.float32), np.array(c, np.float32)

    def decode(self, c: NDArray[np.float32], like: HeadLabels) -> HeadLabels:
        """The head that `c` [c_dim] describes; what c does not hold (z's axes, lashes) is `like`'s."""
        natural = {
            n: float(v) * s + m
            for n, v, (m, s) in zip(self.names, c, map(self.standard, self.names), strict=True)
        }

        def colour(name: str) -> tuple[float, float, float]:
            return (natural[f"{name}.0"], natural[f"{name}.1"], natural[f"{name}.2"])

        light: dict[str, Any] = {
            name: colour(f"light.{name}") if f"light.{name}.0" in natural else natural[f"light.{name}"]
            for name in (_LIGHT | _LATE_LIGHT if self.late else _LIGHT)
        }
        changes: dict[str, Any] = {name: natural[name] for name in _SCALARS}
        for kind, values in self.values().items():
            shares = [natural[f"{kind}:{value}"] for value in values]
            if max(shares) > 0.5:
                changes[kind] = values[int(np.argmax(shares))]
        changes |= {
            "hair_colour": colour("hair_colour"),
            "shirt": colour("shirt"),
            "light": replace(like.light, **light),
        }
        weights = {n: min(natural[n], 1.0) for n in self.expressions if natural[n] > 1e-6}
        return replace(like, **changes, expression=weights)
