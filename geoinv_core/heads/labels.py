"""What is said about a head: its labels, and how they are sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoinv_core.heads.assets import HeadAssets
from geoinv_core.heads.glasses import SHAPES
from geoinv_core.heads.grown import STYLES

EVALUATION_SEEDS = 900_000  # seeds from here on are never trained on

HAIR_COLOURS = {
    "black": (24, 20, 19),
    "darkbrown": (48, 35, 28),
    "brown": (84, 58, 42),
    "chestnut": (112, 70, 46),
    "auburn": (124, 54, 32),
    "red": (172, 84, 42),
    "darkblond": (150, 116, 78),
    "blond": (206, 172, 120),
    "grey": (132, 128, 124),
    "white": (186, 183, 178),
}
# sRGB of hair without and with much pheomelanin (red), evenly spaced from dark to fair.
_PLAIN_HAIR = ((24, 20, 19), (50, 36, 28), (86, 60, 43), (146, 113, 77), (204, 170, 119), (228, 210, 174))
_RED_HAIR = ((38, 20, 16), (84, 36, 25), (128, 56, 32), (172, 84, 42), (208, 134, 80), (228, 186, 142))
PAINTED_HAIR = ("bald", "buzz")  # styles without a mesh
FEMALE_BROWS = (1, 2, 5, 6, 7, 9, 11, 12)
MALE_BROWS = (1, 2, 3, 4, 8, 9)
# Axes that distort quickly, with the share of the usual spread they get; prefixes of axis names.
_TAMED = {
    0.6: ("ear-shape", "neck-double", "head-age", "nose-curve", "eye-epicanthus"),
    0.4: ("nose-trans", "mouth-trans", "eye-push", "eye-trans", "chin-jaw", "head-angle"),
}
SPREAD, ASYMMETRY_SPREAD = 0.15, 0.10
BROW_ANGLE, EYE_HEIGHT = 0.32, 0.15  # the mean brow of the data reads as angry


@dataclass(frozen=True)
class Light:
    """Linear light in world axes: a key light, a sky-to-ground ambient, a rim light from behind."""

    direction: tuple[float, float, float] = (0.3, 0.4, 0.866)
    key: tuple[float, float, float] = (1.0, 1.0, 1.0)
    sky: tuple[float, float, float] = (0.55, 0.55, 0.55)
    ground: tuple[float, float, float] = (0.25, 0.25, 0.25)
    rim: float = 0.0
    rim_side: float = 1.0
    softness: float = 2.0
    across: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """how the ambient light grows towards +x (with sky and ground: first-band spherical harmonics)"""
    ahead: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """the same towards +z"""


@dataclass(frozen=True)
class HeadLabels:
    """One head in natural units; see `sample` for the ranges."""

    age: float = 35.0
    male: float = 0.5
    african: float = 1 / 3
    asian: float = 1 / 3
    caucasian: float = 1 / 3
    weight: float = 0.0
    muscle: float = 0.0
    skin_tone: float = 0.4
    beard: float = 0.0
    gloss: float = 0.8
    neckline: float = 0.2
    skin: str = ""
    hair: str = "bald"
    eyes: str = ""
    brow: str = ""
    lash: str = ""
    glasses: str = "none"
    """none, or a shape of `glasses.SHAPES`"""
    hair_colour: tuple[float, float, float] = (0.2, 0.15, 0.12)
    """sRGB 0..1"""
    shirt: tuple[float, float, float] = (0.4, 0.4, 0.4)
    """sRGB 0..1"""
    light: Light = field(default_factory=Light)
    features: dict[str, float] = field(default_factory=dict)
    asymmetry: dict[str, float] = field(default_factory=dict)
    expression: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    """Only the backdrop still depends on it."""

    def with_expression(self, **weights: float) -> HeadLabels:
        """The same head with some ARKit weights replaced."""
        return replace(self, expression={**self.expression, **weights})

    def wears(self, parts: Mapping[str, Sequence[str]]) -> bool:
        """Whether the head has any of these, such as {"hair": ["bob02"], "skin": [...], "brow": [...]}."""
        return any(getattr(self, kind) in values for kind, values in parts.items())


def tamed(axis: str) -> float:
    """The share of the usual spread that a feature axis gets."""
    if axis in ("nose-trans", "mouth-trans") or axis.endswith("trans-in"):
        return 0.0
    return next((share for share, names in _TAMED.items() if axis.startswith(names)), 1.0)


def random_expression(r: np.random.Generator, names: list[str]) -> dict[str, float]:
    """A mild, plausible expression: a named mood, or a few random units; lids, brows and gaze always move
    a little."""
    moods: dict[str, tuple[float, dict[str, float]]] = {
        "neutral": (0.20, {}),
        "smile": (0.17, {"mouthSmile": 0.8, "cheekSquint": 0.5, "eyeSquint": 0.3}),
        "laugh": (
            0.11,
            {
                "mouthSmile": 0.8,
                "cheekSquint": 0.5,
                "eyeSquint": 0.3,
                "jawOpen": 0.28,
                "mouthUpperUp": 0.35,
                "mouthStretch": 0.2,
            },
        ),
        "talk": (0.10, {"jawOpen": 0.25, "mouthLowerDown": 0.3, "mouthUpperUp": 0.2}),
        "open": (0.05, {"jawOpen": 0.75}),
        "sad": (0.04, {"mouthFrown": 0.6, "browInnerUp": 0.7}),
        "surprise": (0.05, {"jawOpen": 0.4, "browInnerUp": 0.8, "browOuterUp": 0.8, "eyeWide": 0.7}),
        "anger": (0.04, {"browDown": 0.7, "noseSneer": 0.3, "mouthPress": 0.4}),
        "pucker": (0.04, {"mouthPucker": 0.8}),
        "blink": (0.04, {"eyeBlink": 1.0}),
        "random": (0.16, {}),
    }
    mood = str(r.choice(list(moods), p=[p for p, _ in moods.values()]))
    strength = 1.0 if mood == "blink" else r.uniform(0.2, 1.0)
    weights: dict[str, float] = {}

    def put(unit: str, value: float) -> None:
        sides = [unit] if unit in names else [n for n in (unit + "Left", unit + "Right") if n in names]
        for name in sides:
            weights[name] = float(np.clip(max(weights.get(name, 0.0), value + r.normal(0, 0.05)), 0, 1))

    for unit, value in moods[mood][1].items():
        put(unit, value * strength)
    if mood == "random":
        pool = [n for n in names if "eyeLook" not in n]
        for name in r.choice(pool, int(r.integers(1, 5)), replace=False):
            stem = str(name).removesuffix("Left").removesuffix("Right")
            both = r.random() < 0.5 and stem not in ("jaw", "mouth")  # which have no two sides
            put(stem if both else str(name), r.uniform(0.1, 0.65))
    put("eyeBlink", float(np.clip(r.normal(0.06, 0.07), 0, 0.3)))
    if mood != "anger":
        put("browInnerUp", r.uniform(0.12, 0.38))
        if mood not in ("blink", "smile", "laugh"):
            put("eyeWide", r.uniform(0.05, 0.3))
    across, up = r.normal(0, 0.22), r.normal(0, 0.15)
    for name, value in (
        ("eyeLookOutLeft", across),
        ("eyeLookInRight", across),
        ("eyeLookInLeft", -across),
        ("eyeLookOutRight", -across),
        ("eyeLookUpLeft", up),
        ("eyeLookUpRight", up),
        ("eyeLookDownLeft", -up),
        ("eyeLookDownRight", -up),
    ):
        weights[name] = float(np.clip(value, 0, 1))
    return {n: v for n, v in weights.items() if v > 0}


def _rgb(v: NDArray[np.floating[Any]]) -> tuple[float, float, float]:
    return (float(v[0]), float(v[1]), float(v[2]))


def _light(r: np.random.Generator, own: np.random.Generator) -> Light:
    azimuth, height, warmth = r.uniform(-1.3, 1.3), r.uniform(-0.15, 0.9), r.normal(0, 0.08)
    direction = np.array([np.sin(azimuth) * np.cos(height), np.sin(height), np.cos(azimuth) * np.cos(height)])
    return Light(
        direction=_rgb(direction),
        key=_rgb(r.uniform(0.45, 1.4) * np.array([1 + warmth, 1, 1 - warmth])),
        sky=_rgb(r.uniform(0.35, 0.85) * np.clip(1 + r.normal(0, 0.07, 3), 0.7, 1.3)),
        ground=_rgb(r.uniform(0.15, 0.5) * np.clip(1 + r.normal(0, 0.1, 3), 0.7, 1.3)),
        rim=float(r.uniform(0, 0.9)),
        rim_side=float(r.choice([-1, 1])),
        softness=float(r.uniform(1, 3)),
        across=_rgb(own.normal(0, 0.12) + own.normal(0, 0.05, 3)),
        ahead=_rgb(own.normal(0.03, 0.1) + own.normal(0, 0.03, 3)),
    )


def _hair(r: np.random.Generator, assets: HeadAssets, female: bool, african: float, grey: float) -> str:
    if female:
        shares = {
            "bob02": 1.3,
            "braid01": 2.0,
            "long01": 2.6,
            "ponytail01": 2.4,
            "short01": 0.7,
            "short02": 0.9,
            "short03": 0.8,
            "short04": 0.6,
            "buzz": 0.15,
            "afro01": 0.3 + 2.0 * african,
            "curls": 1.0 + 0.5 * african,
            "fringe": 0.4,
            "crop": 0.3,
        }
    else:
        shares = {
            "short01": 2.2,
            "short02": 2.8,
            "short03": 1.2,
            "short04": 2.5,
            "long01": 0.25,
            "bob02": 0.1,
            "buzz": 1.6,
            "bald": 0.5 + 1.3 * grey,
            "ponytail01": 0.15,
            "afro01": 0.2 + 1.2 * african,
            "curls": 1.0 + 0.5 * african,
            "fringe": 1.2,
            "crop": 1.6,
        }
    known = {k: v for k, v in shares.items() if k in hair_styles(assets)}
    p = np.array(list(known.values()))
    return str(r.choice(list(known), p=p / p.sum()))


def natural_hair(fair: float, red: float) -> tuple[float, float, float]:
    """sRGB 0..1 of hair between black (fair 0) and platinum (1), plain (red 0) to ginger (1)."""
    at = np.linspace(0, 1, len(_PLAIN_HAIR))
    paths = np.array(_PLAIN_HAIR) * (1 - red) + np.array(_RED_HAIR) * red
    return _rgb(np.array([np.interp(fair, at, channel) for channel in paths.T]) / 255)


def random_hair_colour(r: np.random.Generator, caucasian: float, grey: float) -> tuple[float, float, float]:
    """sRGB 0..1. Less than half of the heads get a colour that is usual for their origin; the others get any,
    because a model must learn the colour apart from the face.

    Args:
        grey: how likely and how far age has taken the colour, 0..1.
    """
    kind = r.choice(4, p=[0.42, 0.46, 0.06, 0.06])
    if kind == 0:
        usual = r.beta(1.0, 1.6) if r.random() < caucasian else 0.25 * r.random()
        colour = np.array(natural_hair(usual, r.random() ** 3))
    elif kind == 1:
        colour = np.array(
            natural_hair(r.random(), r.random() ** 0.5 if r.random() < 0.5 else 0.15 * r.random())
        )
        grey *= r.random() < 0.4
    elif kind == 2:  # dyed: any hue
        hue, dull, value = r.uniform(0, 6), r.uniform(0.1, 0.7), r.uniform(0.2, 0.85)
        wheel = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
        colour, grey = value * (dull + (1 - dull) * wheel), 0.0
    else:
        colour, grey = np.array(natural_hair(r.random(), 0.0)), 1.0
    colour = colour * r.uniform(0.85, 1.15)
    greyness = float(np.clip(grey + r.normal(0, 0.25), 0, 1)) if 0 < grey < 1 else grey
    white = r.random() if greyness > 0.6 else 0.0
    old = np.array(HAIR_COLOURS["grey"]) * (1 - white) + np.array(HAIR_COLOURS["white"]) * white
    return _rgb(np.clip(colour * (1 - greyness) + old / 255 * greyness, 0, 1))


def hair_styles(assets: HeadAssets) -> list[str]:
    """Styles that can be drawn: those with a texture, the painted ones, and those grown as shells."""
    first = [*(n.removeprefix("hair_") for n in assets.textures("hair_")), "afro01", *PAINTED_HAIR]
    return first + [s for s in STYLES if s not in first]


def skin_for(r: np.random.Generator, assets: HeadAssets, age: float, female: bool, dark: bool) -> str:
    skins = [n.removeprefix("skin_") for n in assets.textures("skin_")]
    wanted = "young" if age < 38 else "middleage" if age < 62 else "old"
    sex = "_female" if female else "_male"
    for stage in (wanted, "middleage" if wanted == "old" else wanted):
        for tone in (dark,) if dark else (False,):
            found = [
                s
                for s in skins
                if s.startswith(stage) and ("dark" in s) == tone and s.rstrip("23").endswith(sex)
            ]
            if found:
                return str(r.choice(found))
    # No dark skin for this age and sex: a light one takes the tone by its gain.
    stage = "middleage" if wanted == "old" else wanted
    return str(
        r.choice(
            [s for s in skins if s.startswith(stage) and "dark" not in s and s.rstrip("23").endswith(sex)]
        )
    )


def sample(assets: HeadAssets, seed: int) -> HeadLabels:
    """A random head. The same seed gives the same head; seeds from EVALUATION_SEEDS up are for evaluation
    only."""
    r, own = np.random.default_rng([20261, seed]), np.random.default_rng([20265, seed])
    spans = ((9, 17), (17, 40), (40, 62), (62, 85))
    low, high = spans[int(r.choice(4, p=[0.10, 0.40, 0.28, 0.22]))]
    age = float(r.uniform(low, high))
    male = float(
        r.choice([r.uniform(0, 0.12), r.uniform(0.88, 1), r.uniform(0.3, 0.7)], p=[0.45, 0.45, 0.10])
    )
    female = male <= 0.5
    origin = r.dirichlet([0.35, 0.35, 0.35])
    african, asian, caucasian = (float(v) for v in origin)
    tone = float(np.clip(origin @ np.array([0.82, 0.30, 0.13]) + r.normal(0, 0.09), 0, 1))
    if r.random() < 0.25:  # the face's origin does not settle its colour
        tone = float(r.random())
    features = {}
    for axis, (negative, _) in assets.axes.items():
        value = float(np.clip(r.normal(0, SPREAD if age > 16 else 0.10), -0.6, 0.6)) * tamed(axis)
        features[axis] = value if negative else max(0.0, value) * 0.6
    features["chin-prognathism"] *= 0.5  # parts the lips of a face at rest
    features["eyebrows-angle"] = float(np.clip(features["eyebrows-angle"] + BROW_ANGLE, -0.3, 0.8))
    features["eye-height2"] += EYE_HEIGHT
    grey = float(np.clip((age - 45) / 38, 0, 1))
    beard = float(r.choice([0.0, r.uniform(0.15, 0.45), r.uniform(0.45, 1)], p=[0.40, 0.28, 0.32]))
    irises = assets.textures("eye_")
    brown = [n for n in irises if "brown" in n]
    return HeadLabels(
        age=age,
        male=male,
        african=african,
        asian=asian,
        caucasian=caucasian,
        skin_tone=tone,
        weight=float(r.uniform(-1, 1) if r.random() < 0.3 else np.clip(r.normal(0, 0.4), -1, 1)),
        muscle=float(np.clip(r.normal(0, 0.35), -1, 1)),
        beard=beard if not female and age > 18 else 0.0,
        gloss=float(r.uniform(0.5, 1.2)),
        neckline=float(r.uniform(-0.1, 0.55)),
        skin=skin_for(r, assets, age, female, tone > r.normal(0.55, 0.06)),
        hair=_hair(r, assets, female, african, grey),
        eyes=str(r.choice(brown if r.random() > caucasian * 0.75 else irises)).removeprefix("eye_"),
        brow=f"eyebrow{int(r.choice(FEMALE_BROWS if female else MALE_BROWS)):03d}",
        lash=str(r.choice(assets.textures("lash_"))).removeprefix("lash_"),
        glasses=str(own.choice(["none", *SHAPES], p=[0.82, 0.09, 0.09])),
        hair_colour=random_hair_colour(r, caucasian, grey),
        shirt=_rgb(np.clip(r.uniform(0.04, 0.85) + r.normal(0, 0.14, 3), 0.02, 0.95)),
        light=_light(r, own),
        features=features,
        asymmetry={a: float(r.normal(0, ASYMMETRY_SPREAD)) for a in assets.asymmetries},
        expression=random_expression(r, assets.expressions),
        seed=seed,
    )
