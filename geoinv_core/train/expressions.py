"""Heads whose expressions are spread evenly: what an encoder needs that shall tell a wide smile from a
slight one.

Among heads as `heads.sample` makes them, a jaw is open in one of three and a unit like mouthLeft moves in one
of a hundred, mostly a little. A network trained on them says what is likely, not what it sees.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from geoinv_core.heads import HeadAssets, HeadLabels, sample

AS_SAMPLED = 0.25
"""Share of heads that keep the expression they were sampled with."""
MOVES: tuple[tuple[tuple[str, float], ...], ...] = (
    (("jawOpen", 0.45),),
    (("mouthSmile", 0.22), ("mouthFrown", 0.13), ("mouthPucker", 0.1), ("mouthFunnel", 0.08)),
    (("eyeBlink", 0.3), ("eyeWide", 0.2), ("eyeSquint", 0.15)),
    (("browInnerUp", 0.3), ("browDown", 0.2), ("browOuterUp", 0.2)),
    (("cheekSquint", 0.1), ("noseSneer", 0.1), ("cheekPuff", 0.1)),
)
"""Units (those without a side mean both) and how often each moves; one at most of a row."""
_HIGHEST = {"jawOpen": 0.9}
_OTHERS = 0.3
"""Share of heads where up to three units of all 52 move as well."""
GRIN = 0.2
"""Share of heads that bare their teeth in a smile, as people do for a photograph: three units at once, which
hardly ever move together by chance."""
_GRIN = (("mouthSmile", 0.3, 1.0), ("mouthUpperUp", 0.1, 0.8), ("mouthLowerDown", 0.1, 0.9))
_NO_GRIN = ("mouthFrown", "mouthPucker", "mouthFunnel", "mouthClose", "mouthRoll", "mouthPress", "jawOpen")


def balanced(assets: HeadAssets, seed: int) -> HeadLabels:
    """The head of `sample` with an evenly spread expression; the same seed gives the same one."""
    labels, r = sample(assets, seed), np.random.default_rng([20266, seed])
    if r.random() < AS_SAMPLED:
        return labels
    names = set(assets.expressions)
    # Gaze stays; lids and brows keep the small movements that every face has.
    weights = {n: w for n, w in labels.expression.items() if n.startswith("eyeLook") or w < 0.15}

    def put(unit: str, value: float) -> None:
        sides = [unit] if unit in names else [unit + "Left", unit + "Right"]
        lame = r.random() < 0.15  # one side does less
        for k, name in enumerate(sides if r.random() < 0.5 else sides[::-1]):
            share = r.uniform(0, 1) if lame and k else r.uniform(0.9, 1)
            weights[name] = float(min(value * share, 1.0))

    for row in MOVES:
        chance = np.array([share for _, share in row])
        at = int(r.choice(len(row) + 1, p=[*chance, 1 - chance.sum()]))
        if at < len(row):
            unit = row[at][0]
            put(unit, r.uniform(0, _HIGHEST.get(unit, 1.0)))
    if r.random() < _OTHERS:
        pool = sorted(n for n in names if "eyeLook" not in n)
        for name in r.choice(pool, int(r.integers(1, 4)), replace=False):
            weights[str(name)] = float(r.uniform(0, 0.7))
    if r.random() < GRIN:
        weights = {n: w for n, w in weights.items() if not n.startswith(_NO_GRIN)}
        for unit, low, high in _GRIN:
            put(unit, r.uniform(low, high))
        put("jawOpen", r.uniform(0, 0.2))
    return replace(labels, expression={n: w for n, w in weights.items() if w > 0})
