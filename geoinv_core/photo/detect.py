"""Where faces are in a picture: OpenCV's Haar cascades, asked together.

One cascade alone sees faces in wallpaper; where several cascades of different training agree, there nearly
always is one. Tilted heads are looked for only when the upright picture shows none. No torch, no network, no
files but those in OpenCV's own package.

Source of the method: P. Viola and M. Jones, "Rapid object detection using a boosted cascade of simple
features", 2001; R. Lienhart's cascades as shipped by OpenCV (Intel licence, BSD style).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from geoinv_core.errors import ModelError

Box = tuple[float, float, float, float]

WORK_SIDE = 640
"""The picture is searched at this size: faces from about a twentieth of its side upwards are found."""
FINE_SIDE = 1600
"""Second try for large photos in which nothing was found."""
_SMALLEST = 24
_PAD = 0.2  # of the long side, on each side: cascades want some surroundings
_CASCADES = ("frontalface_alt", "frontalface_alt2", "frontalface_default")
_PROFILE = "profileface"
_TILTS = (-15.0, 15.0, -30.0, 30.0)

# A profile cascade's box is tighter than a frontal one's, by the ratio of the crops that fit the same heads.
_PROFILE_GROWTH = 1.16

_local = threading.local()


@dataclass(frozen=True)
class Face:
    """One face."""

    box: Box
    """x0, y0, x1, y1 in pixels of the picture, a square from the brows to the chin; may pass the border."""
    score: float
    """0..1, how strongly the cascades agree; 1 for a box or points given by hand."""

    @property
    def side(self) -> float:
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True)
class _Hit:
    centre: NDArray[np.float64]
    side: float
    neighbours: int
    voter: str


def find_faces(rgb: NDArray[np.uint8]) -> list[Face]:
    """All faces, the largest first; an empty list when there is none.

    Args:
        rgb: uint8 [H, W, 3].
    """
    grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    long_side = max(grey.shape)
    scales = [min(WORK_SIDE / long_side, 2.0)]
    if long_side > WORK_SIDE * 1.3:
        scales.append(min(FINE_SIDE / long_side, 1.0))
    for i, scale in enumerate(scales):
        picture = _Search(grey, scale)
        faces = _agree(picture.look(0.0))
        if not faces and i == 0:
            faces = _agree([hit for tilt in _TILTS for hit in picture.look(tilt)])
        if faces:
            return sorted(faces, key=lambda face: face.side, reverse=True)
    return []


def weak_candidates(rgb: NDArray[np.uint8], most: int = 6) -> list[Face]:
    """Places that only remind of a face, the likeliest first; to be confirmed by other means."""
    grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    hits = _Search(grey, min(WORK_SIDE / max(grey.shape), 2.0)).look(0.0)
    return sorted(_agree(hits, sure=False), key=lambda face: face.score, reverse=True)[:most]


class _Search:
    """A picture made ready for the cascades: scaled, and padded by its border pixels."""

    def __init__(self, grey: NDArray[np.uint8], scale: float) -> None:
        size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
        self.scale = np.array([size[0] / grey.shape[1], size[1] / grey.shape[0]])
        small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        self.pad = round(_PAD * max(size))
        self.grey = cv2.copyMakeBorder(small, *(self.pad,) * 4, cv2.BORDER_REPLICATE)

    def look(self, tilt: float) -> list[_Hit]:
        """What the cascades see in the picture turned by `tilt` degrees, in pixels of the original."""
        h, w = self.grey.shape
        matrix = cv2.getRotationMatrix2D((w / 2, h / 2), tilt, 1.0)
        turned = (
            self.grey
            if tilt == 0
            else cv2.warpAffine(
                self.grey, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
        )
        back = cv2.invertAffineTransform(matrix)
        hits = []
        for name in (*_CASCADES, _PROFILE) if tilt == 0 else _CASCADES[:2]:
            for mirrored in (False, True) if name == _PROFILE else (False,):
                view = np.ascontiguousarray(turned[:, ::-1]) if mirrored else turned
                boxes, neighbours = _cascade(name).detectMultiScale2(
                    view, 1.1, 2, minSize=(_SMALLEST, _SMALLEST)
                )
                for (x, y, side, _), count in zip(boxes, neighbours, strict=True):
                    middle = np.array([x + side / 2, y + side / 2])
                    if mirrored:
                        middle[0] = w - middle[0]
                    at = (back[:, :2] @ middle + back[:, 2] - self.pad) / self.scale
                    grown = side * (_PROFILE_GROWTH if name == _PROFILE else 1.0)
                    hits.append(
                        _Hit(at, grown / float(self.scale.mean()), int(count), f"{name}{mirrored}{tilt}")
                    )
        return hits


def _cascade(name: str) -> Any:
    """One cascade per thread and name: a classifier keeps state while it works."""
    loaded: dict[str, Any] = _local.__dict__.setdefault("cascades", {})
    if name not in loaded:
        file = Path(cv2.__file__).parent / "data" / f"haarcascade_{name}.xml"
        cascade = cv2.CascadeClassifier(str(file))
        if cascade.empty():
            raise ModelError(
                f"The face detector's file {file.name} is missing from OpenCV; install GeoInv again.",
                "detector",
            )
        loaded[name] = cascade
    return loaded[name]


def _agree(hits: list[_Hit], sure: bool = True) -> list[Face]:
    """Hits on the same place become one face, if they are strong enough together (or in any case: `sure`)."""
    faces = []
    rest = sorted(hits, key=lambda hit: hit.neighbours, reverse=True)
    while rest:
        seed = rest[0]
        group = [h for h in rest if _same(h, seed)]
        rest = [h for h in rest if not _same(h, seed)]
        weight = np.array([float(h.neighbours) for h in group])
        voters = len({h.voter for h in group})
        strength = float(weight.sum())
        if sure and not _convincing(voters, strength):
            continue
        centre = np.average([h.centre for h in group], axis=0, weights=weight)
        half = float(np.average([h.side for h in group], weights=weight)) / 2
        box = (
            float(centre[0] - half),
            float(centre[1] - half),
            float(centre[0] + half),
            float(centre[1] + half),
        )
        faces.append(Face(box, 1.0 - 0.5 ** (strength / 10)))
    return faces


def _convincing(voters: int, strength: float) -> bool:
    """Drawn and photographed heads reach 3 voters and 30 neighbours; wallpaper seldom 2 and 20."""
    return (voters >= 3 and strength >= 10) or (voters >= 2 and strength >= 24) or strength >= 40


def _same(a: _Hit, b: _Hit) -> bool:
    ratio = a.side / b.side
    return 0.5 < ratio < 2.0 and bool(np.linalg.norm(a.centre - b.centre) < 0.4 * max(a.side, b.side))
