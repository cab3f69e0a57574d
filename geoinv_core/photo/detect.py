"""Where faces are in a picture: OpenCV's Haar cascades, asked together.

One cascade alone sees faces in wallpaper; where several cascades of different training agree, there nearly
always is one. A portrait's face is large, so a small picture is searched first and a larger one only where
that shows none; likewise tilted heads. No torch, no network, no files but those in OpenCV's own package.

Source of the method: P. Viola and M. Jones, "Rapid object detection using a boosted cascade of simple
features", 2001; R. Lienhart's cascades as shipped by OpenCV (Intel licence, BSD style).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from geoinv_core.errors import ModelError

Box = tuple[float, float, float, float]

SIDES = (256, 640, 1600)
"""The picture is searched at these sizes until a face is found, and at the next one where others half as
large could have been missed: portraits, whose face takes a fifth of the picture's side, are searched once."""
_SMALLEST = 24
_LARGEST_SCALE = 2.0
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
    """All faces, at least those half as large as the largest; the largest first. Empty when there is none.

    Args:
        rgb: uint8 [H, W, 3].
    """
    faces: list[Face] = []
    for search in searches(rgb):
        faces = search.upright() or faces or search.tilted()
        if faces and search.shows(faces[0].side / 2):
            break
    return faces


def searches(rgb: NDArray[np.uint8]) -> Iterator[Search]:
    """The picture made ready at ever larger sizes."""
    grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    before = 0.0
    for side in SIDES:
        scale = min(side / max(grey.shape), _LARGEST_SCALE)
        if scale > 1 and before >= 0.8:
            return  # enlarging shows nothing new
        if scale > before:
            yield Search(grey, scale)
        before = scale


class Search:
    """A picture made ready for the cascades: scaled, and padded by its border pixels."""

    def __init__(self, grey: NDArray[np.uint8], scale: float) -> None:
        size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
        self.scale = np.array([size[0] / grey.shape[1], size[1] / grey.shape[0]])
        small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        self.pad = round(_PAD * max(size))
        self.grey = cv2.copyMakeBorder(small, *(self.pad,) * 4, cv2.BORDER_REPLICATE)

    def shows(self, side: float) -> bool:
        """Whether faces of this side, pixels of the picture, are large enough to be seen."""
        return side * float(self.scale.mean()) >= _SMALLEST

    def upright(self) -> list[Face]:
        """Upright faces, the largest first."""
        return _largest_first(_agree(self._front) or _agree(self._front + self._side))

    def tilted(self) -> list[Face]:
        """Faces of tilted heads, the largest first."""
        return _largest_first(_agree([hit for tilt in _TILTS for hit in self._look(_CASCADES[:2], tilt)]))

    def doubtful(self, most: int = 6) -> list[Face]:
        """Places that only remind of a face, the likeliest first; to be confirmed by other means."""
        faces = _agree(self._front + self._side, sure=False)
        return sorted(faces, key=lambda face: face.score, reverse=True)[:most]

    @cached_property
    def _front(self) -> list[_Hit]:
        return self._look(_CASCADES, 0.0)

    @cached_property
    def _side(self) -> list[_Hit]:
        return self._look((_PROFILE,), 0.0)

    def _look(self, names: tuple[str, ...], tilt: float) -> list[_Hit]:
        """What cascades see in the picture turned by `tilt` degrees, in pixels of the original."""
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
        for name in names:
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


def _largest_first(faces: list[Face]) -> list[Face]:
    return sorted(faces, key=lambda face: face.side, reverse=True)


def _convincing(voters: int, strength: float) -> bool:
    """Drawn and photographed heads reach 3 voters and 30 neighbours; wallpaper seldom 2 and 20."""
    return (voters >= 3 and strength >= 10) or (voters >= 2 and strength >= 24) or strength >= 40


def _same(a: _Hit, b: _Hit) -> bool:
    ratio = a.side / b.side
    return 0.5 < ratio < 2.0 and bool(np.linalg.norm(a.centre - b.centre) < 0.4 * max(a.side, b.side))
