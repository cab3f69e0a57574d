"""The sliders: which labels of the model the panel offers, in which unit and range. No bpy here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Slider:
    """One label. `prop` is the property's name on an object, `label` the engine's name for it."""

    prop: str
    label: str
    title: str
    low: float
    high: float
    neutral: float
    about: str
    group: str

    def start(self, own: Mapping[str, float]) -> float:
        """Where the slider stands for a head with the labels `own`."""
        return min(max(own.get(self.label, self.neutral), self.low), self.high)


SLIDERS = (
    Slider("smile", "smile", "Smile", 0.0, 1.0, 0.0, "Both corners of the mouth up", "Expression"),
    Slider("jaw_open", "jawOpen", "Jaw Open", 0.0, 1.0, 0.0, "The lower jaw down", "Expression"),
    Slider("brow_up", "browUp", "Brows Up", 0.0, 1.0, 0.0, "Both eyebrows raised", "Expression"),
    Slider("blink", "blink", "Blink", 0.0, 1.0, 0.0, "Both eyes closed at 1", "Expression"),
    Slider("age", "age", "Age", 9.0, 85.0, 38.0, "Years", "Person"),
    Slider("weight", "weight", "Weight", -1.0, 1.0, 0.0, "From thin at -1 to heavy at 1", "Person"),
    Slider("male", "male", "Male", 0.0, 1.0, 0.5, "From a woman's features at 0 to a man's at 1", "Person"),
)


def describe(labels: dict[str, float]) -> str:
    """A short name for a change, for objects and shape keys: "smile 0.8, age 70"."""
    return ", ".join(f"{name} {value:.3g}" for name, value in labels.items())
