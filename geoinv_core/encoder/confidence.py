"""How far an encoder's answer can be trusted, measured on the photo itself.

Four measures: how far the face is turned against what the encoder has learned, how sure it is of the
landmarks, how far its landmarks lie from those of the landmark network (which knows nothing of it), and how
well the drawn head covers the outline that it saw. The last one also shows an encoder that belongs to
another generator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from geoinv_core.encoder.network import Encoded

MAX_YAW, MAX_PITCH = 60.0, 25.0
"""Degrees; training shows few faces beyond. Far up or down the encoder says too little: drawn heads turned by
20 degrees read as 17 and 18, by 40 as 27 to 31."""
LEAST_SCORE = 0.9
"""How surely the landmark network must take it for a face: a real photo and hardships of it have .95 and
more, something else on a head seen from far below .87."""
MAX_APART = 0.30
"""Distances between landmarks of encoder and landmark network, in distances of the eyes, mean over points."""
MAX_UNSURE = 0.25
"""The encoder's own spread of its landmarks, in distances of the eyes."""
LEAST_COVER = 0.70
"""Intersection over union of the drawn head's mask and the seen outline."""
_SAME = {
    "eye_right_outer": 36, "eye_right_inner": 39, "eye_left_inner": 42, "eye_left_outer": 45,
    "mouth_right": 48, "mouth_left": 54, "nose_tip": 30,
}  # fmt: skip
"""Landmarks that both networks know: the landmark network's name, the iBUG number."""


@dataclass(frozen=True)
class Doubt:
    """One thing that speaks against an answer."""

    text: str
    confidence: float
    """0..1: the limit against what was measured"""

    def __str__(self) -> str:
        return f"{self.text} (confidence {100 * self.confidence:.0f} %)."


def doubts(
    found: Encoded,
    opacity: Tensor | None = None,
    points: Mapping[str, Sequence[float]] | None = None,
    turn: tuple[float, float] | None = None,
    score: float = 1.0,
) -> list[Doubt]:
    """What speaks against the encoder's answer for one crop; empty when nothing does.

    Args:
        found: of a batch of one. opacity: [1, 1, S, S] of the head drawn through its camera.
        points: of the landmark network in crop widths; turn: its yaw and pitch, degrees; score: how surely it
            takes this for a face.
    """
    result = []
    if score < LEAST_SCORE:
        text = "It is not certain that what was found is a face; if the head is wrong, mark the face by hand"
        result.append(Doubt(text, score))
    yaw, pitch = (math.degrees(float(v)) for v in found.pose[0, :2])
    for name, own, limit, k in (("to the side", yaw, MAX_YAW, 0), ("up or down", pitch, MAX_PITCH, 1)):
        angle = max(abs(own), abs(turn[k]) if turn else 0.0)
        if angle > limit:
            text = (
                f"The face is turned about {angle:.0f} degrees {name}, more than the {limit:.0f} that the "
                "encoder knows, so what it cannot see is guessed; a more frontal photo gives a better head"
            )
            result.append(Doubt(text, limit / angle))
    if found.landmarks is None or found.landmark_spread is None or found.outline is None:
        return result
    eyes = float((found.landmarks[0, 36:42].mean(0) - found.landmarks[0, 42:48].mean(0)).norm())
    nose = float((found.landmarks[0, 27] - found.landmarks[0, 8]).norm())
    scale = max(eyes, 0.6 * nose, 1e-3)  # the eyes of a face in profile are close together
    unsure = float(found.landmark_spread.mean()) / scale
    if unsure > MAX_UNSURE:
        text = "The encoder does not find eyes, nose and mouth clearly; a sharper or less covered face helps"
        result.append(Doubt(text, MAX_UNSURE / unsure))
    known = [(name, at) for name, at in _SAME.items() if points is not None and name in points]
    if points is not None and known:
        theirs = torch.tensor([list(points[name]) for name, _ in known])
        ours = found.landmarks[0, [at for _, at in known]].cpu()
        apart = float((ours - theirs).norm(dim=1).mean()) / scale
        if apart > MAX_APART:
            text = (
                "Encoder and landmark network see the face in different places "
                f"({100 * apart:.0f} % of the distance of the eyes apart), so the head may not fit"
            )
            result.append(Doubt(text, MAX_APART / apart))
    if opacity is not None:
        side = found.outline.shape[-1]
        drawn = interpolate(opacity.float(), size=(side, side), mode="area") > 0.5
        seen = found.outline.to(drawn.device) > 0
        cover = float((drawn & seen).sum() / (drawn | seen).sum().clamp_min(1))
        if cover < LEAST_COVER:
            text = (
                f"The drawn head covers only {100 * cover:.0f} % of what the encoder sees as the head: "
                "either the photo is unusual, or encoder and generator do not belong together"
            )
            result.append(Doubt(text, cover / LEAST_COVER))
    return result
