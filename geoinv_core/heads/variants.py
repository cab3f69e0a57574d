"""The same head once more with one thing changed: what teaches a generator which label does what.

Two pictures of one head from one camera differ only where the changed label shows, so a network that sees
both need not tell the label's effect from the differences between people.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from geoinv_core.heads.assets import HeadAssets
from geoinv_core.heads.labels import HeadLabels, random_expression, random_hair_colour, skin_for

KINDS = {"mood": 0.27, "unit": 0.25, "units": 0.13, "hair colour": 0.15, "age": 0.10, "build": 0.10}
"""What changes, with its share: a mood, one ARKit unit (both sides or one), several, the hair's colour, the
age (the skin follows), weight and muscle."""


def variant(assets: HeadAssets, labels: HeadLabels, seed: int) -> HeadLabels:
    """A random variant of a head; the same seed gives the same one."""
    r = np.random.default_rng([20264, seed])
    kind = str(r.choice(list(KINDS), p=list(KINDS.values())))
    if kind == "mood":
        return replace(labels, expression=random_expression(r, assets.expressions))
    if kind == "unit":
        return replace(labels, expression={**labels.expression, **_units(r, assets.expressions, 1)})
    if kind == "units":
        rest = {n: w for n, w in labels.expression.items() if n.startswith("eye")}
        return replace(
            labels, expression={**rest, **_units(r, assets.expressions, int(r.integers(2, 5)), 0.7)}
        )
    if kind == "hair colour":
        return replace(labels, hair_colour=random_hair_colour(r, r.random(), 0.0))
    if kind == "age":
        age = float(r.uniform(18, 85))
        skin = skin_for(r, assets, age, labels.male <= 0.5, labels.skin_tone > 0.58)
        return replace(labels, age=age, skin=skin)
    weight, muscle = r.uniform(-1, 1, 2).tolist()
    return replace(labels, weight=weight, muscle=muscle)


def _units(r: np.random.Generator, names: list[str], count: int, highest: float = 1.0) -> dict[str, float]:
    """Weights of a few random units; those with sides move on both in two of three cases."""
    chosen: dict[str, float] = {}
    for name in r.choice(names, count, replace=False):
        weight = float(r.uniform(0.25, highest))
        stem = str(name).removesuffix("Left").removesuffix("Right")
        sides = [n for n in (stem + "Left", stem + "Right") if n in names]
        chosen |= dict.fromkeys(sides if sides and r.random() < 0.67 else [str(name)], weight)
    return chosen
