"""Labels as people set them, and what an edit of them means for a generator's code.

A labelled head is (z, c, w_plus); an edit changes c and moves w_plus by what the mapping says the change is
worth: w_plus' = w_plus + map(z, c') - map(z, c). Whatever the encoder found beyond the labels stays.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import torch
from torch import Tensor

from geoinv_core.errors import EditError
from geoinv_core.heads.labels import HAIR_COLOURS
from geoinv_core.heads.layout import LabelLayout

RANGES: dict[str, tuple[float, float]] = {
    "age": (9, 85),
    "male": (0, 1),
    "weight": (-1, 1),
    "muscle": (-1, 1),
    "skin_tone": (0, 1),
    "beard": (0, 1),
    "african": (0, 1),
    "asian": (0, 1),
    "caucasian": (0, 1),
    "gloss": (0.5, 1.2),
    "neckline": (-0.1, 0.55),
}
MIXES: dict[str, dict[str, float]] = {
    "smile": {"mouthSmile": 0.8, "cheekSquint": 0.5, "eyeSquint": 0.3},
    "laugh": {"mouthSmile": 0.8, "cheekSquint": 0.5, "eyeSquint": 0.3, "jawOpen": 0.28, "mouthUpperUp": 0.35},
    "browUp": {"browInnerUp": 0.8, "browOuterUp": 0.8},
    "browDown": {"browDown": 0.8},
    "blink": {"eyeBlink": 1.0},
    "frown": {"mouthFrown": 0.7, "browInnerUp": 0.6},
    "pucker": {"mouthPucker": 0.8},
}
"""Named mixes of ARKit units; a unit without a side means both sides. A mix of 0.8 sets 0.8 of these
weights."""

HAIR_COLOUR = ("hair_colour.0", "hair_colour.1", "hair_colour.2")
"""Labels: red, green, blue."""


class Labels:
    """The labels of one kind of model: names, ranges, and the way from natural numbers to c and back."""

    def __init__(self, layout: LabelLayout) -> None:
        self.layout = layout
        self.index = {name: i for i, name in enumerate(layout.names)}
        standard = [layout.standard(name) for name in layout.names]
        self.centre = torch.tensor([m for m, _ in standard])
        self.spread = torch.tensor([s for _, s in standard])

    def with_movement_of(self, c: Tensor, other: Tensor) -> Tensor:
        """Labels c [c_dim] with what moves the skin, expression and weight, as in `other`."""
        units = [self.index[name] for name in (*self.layout.expressions, "weight") if name in self.index]
        result = c.clone()
        result[units] = other[units]
        return result

    def ranges(self) -> dict[str, tuple[float, float, float]]:
        """Every label that can be set: (lowest, highest, neutral)."""
        result = {
            name: (*RANGES[name], self.layout.standard(name)[0]) for name in RANGES if name in self.index
        }
        result |= dict.fromkeys((*MIXES, *self.layout.expressions), (0.0, 1.0, 0.0))
        return result

    def read(self, c: Tensor) -> dict[str, float]:
        """Natural values of c [C], within their ranges: labels, ARKit weights, light, shares of mixes."""
        natural = (c.detach().cpu() * self.spread + self.centre).tolist()
        values = dict(zip(self.layout.names, natural, strict=True))
        result = {}
        for name, value in values.items():
            if name in RANGES:
                low, high = RANGES[name]
                result[name] = round(min(max(value, low), high), 4)
            elif name in self.layout.expressions:
                result[name] = round(min(max(value, 0.0), 1.0), 4)
            elif name.startswith("light."):
                result[name] = round(value, 4)
        return result | {mix: self._amount(mix, result) for mix in MIXES}

    def _amount(self, mix: str, units: Mapping[str, float]) -> float:
        """How far a mix is set: the mean over its units, each against its share."""
        shares = [units[name] / weight for unit, weight in MIXES[mix].items() for name in self._sides(unit)]
        return round(min(sum(shares) / len(shares), 1.0), 4)

    def _sides(self, unit: str) -> list[str]:
        return [unit] if unit in self.index else [unit + "Left", unit + "Right"]

    def hair_colour(self, c: Tensor) -> Tensor:
        """sRGB [3] of c [C], 0..1 but for what an encoder overdoes; black where the model knows none."""
        if HAIR_COLOUR[0] not in self.index:
            return torch.zeros(3)
        at = [self.index[name] for name in HAIR_COLOUR]
        return c.detach().cpu()[at] * self.spread[at] + self.centre[at]

    def choices(self, c: Tensor) -> dict[str, str]:
        """The likeliest skin, hair, eyes, brow and, where the model knows them, glasses of c [C]."""
        natural = (c.detach().cpu() * self.spread + self.centre).tolist()
        return {
            kind: max(values, key=lambda v, kind=kind: natural[self.index[f"{kind}:{v}"]])  # type: ignore[misc]
            for kind, values in self.layout.values().items()
        }

    def with_choice(self, c: Tensor, kind: str, value: str) -> Tensor:
        """The labels c [C] with one skin, hair, ... chosen."""
        result = c.clone()
        for other in self.layout.values()[kind]:
            at = self.index[f"{kind}:{other}"]
            result[at] = (float(other == value) - float(self.centre[at])) / float(self.spread[at])
        return result

    def check(self, edits: Mapping[str, float]) -> None:
        """Raises EditError for an unknown name or a value that is no number in range."""
        ranges = self.ranges()
        for name, value in edits.items():
            if name not in ranges and not (name.startswith("light.") and name in self.index):
                near = difflib.get_close_matches(name, ranges, 1)
                hint = f"did you mean {near[0]}?" if near else "`geoinv info default` lists them."
                raise EditError(f"{name} cannot be set because this model has no such label; {hint}")
            low, high, _ = ranges.get(name, (-10.0, 10.0, 0.0))
            if not isinstance(value, int | float) or not low <= value <= high:
                raise EditError(
                    f"{name} cannot be {value} because it runs from {low:g} to {high:g}; "
                    "choose a value between."
                )

    def apply(self, c: Tensor, edits: Mapping[str, float]) -> Tensor:
        """The labels after an edit.

        Args:
            c: [C] standardised. edits: name to natural value; mixes are spelt out, and age and sex bring skin
                and hair colour along, as they do in the heads the model has seen.
        Returns: [C]. Raises EditError (see `check`).
        """
        self.check(edits)
        before = c * self.spread.to(c) + self.centre.to(c)
        after = before.clone()
        for name, value in self._spelt_out(edits).items():
            after[self.index[name]] = value
        if "age" in edits or "male" in edits:
            self._follow(before, after)
        # Untouched entries keep their exact value.
        return torch.where(after == before, c, (after - self.centre.to(c)) / self.spread.to(c))

    def _spelt_out(self, edits: Mapping[str, float]) -> dict[str, float]:
        single: dict[str, float] = {}
        for mix in (name for name in edits if name in MIXES):
            for unit, weight in MIXES[mix].items():
                for name in self._sides(unit):
                    single[name] = max(single.get(name, 0.0), weight * edits[mix])
        return single | {name: value for name, value in edits.items() if name not in MIXES}  # exact units win

    def _follow(self, before: Tensor, after: Tensor) -> None:
        """Skin and hair colour follow age and sex, in place on natural values."""
        age, male = float(after[self.index["age"]]), float(after[self.index["male"]])
        stage = "young" if age < 38 else "middleage" if age < 62 else "old"
        sex = "_male" if male > 0.5 else "_female"
        skins = self.layout.choices["skin"]
        shares = {skin: float(before[self.index[f"skin:{skin}"]].clamp_min(0)) for skin in skins}
        for skin in skins:
            after[self.index[f"skin:{skin}"]] = 0.0
        for skin, share in shares.items():
            after[self.index[f"skin:{_counterpart(skin, stage, sex, skins)}"]] += share
        greying = max(0.0, min(1.0, (age - 42) / 35)) - max(
            0.0, min(1.0, (float(before[self.index["age"]]) - 42) / 35)
        )
        if greying > 0:
            grey = torch.tensor(HAIR_COLOURS["grey"]).to(after) / 255
            at = [self.index[name] for name in HAIR_COLOUR]
            after[at] = after[at] + (grey - after[at]) * greying


def _counterpart(skin: str, stage: str, sex: str, skins: list[str]) -> str:
    """The skin most like this one for the wanted sex and stage: tone comes first, then sex, then age, and of
    equals this one itself, or else its namesake."""
    order = {
        "young": ["young", "middleage"],
        "middleage": ["middleage", "young"],
        "old": ["old", "middleage"],
    }[stage]

    def unlike(other: str) -> tuple[bool, bool, int, bool, bool]:
        years = next((i for i, s in enumerate(order) if other.startswith(s)), len(order))
        tone, sexes = ("dark" in other) != ("dark" in skin), not other.rstrip("23").endswith(sex)
        return tone, sexes, years, other != skin, other[-1] != skin[-1]

    return min(skins, key=unlike)
