"""A photo file to the crop a model wants: decode, find the face, find its points, cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoinv_core.errors import PhotoError
from geoinv_core.photo import align, decode, detect
from geoinv_core.photo.detect import Box, Face
from geoinv_core.photo.framing import FFHQ, Framing
from geoinv_core.progress import OnProgress, report

if TYPE_CHECKING:
    from geoinv_core.photo.landmarks import Landmarks

SMALL_FACE = 48.0
"""Faces narrower than this many pixels get a warning."""
TINY_FACE = 12.0
"""Narrower ones cannot be used."""
LEAST_INSIDE = 0.6
"""Share of the face that must lie inside the picture."""
LEAST_SCORE = 0.15
"""Below this the landmark network takes a detection for something else than a face."""
SURE_SCORE = 0.8
"""The same where the detector itself is in doubt."""

# A box from brows to chin against the crop: the crop is this much larger, and its middle this much higher.
_BOX_TO_CROP = 1.7
_CROP_RAISED = 0.075
_TURN_WARNING = 55.0


@dataclass(frozen=True)
class Crop:
    """A face as the models were trained on it. Positions are pixels of the upright photo at full size."""

    image: NDArray[np.uint8]
    """[size, size, 3] sRGB"""
    matrix: NDArray[np.float64]
    """[2, 3] photo pixels -> crop pixels"""
    face: Face
    points: dict[str, tuple[float, float]]
    """eye_left, eye_right, mouth_left, mouth_right; left and right are the subject's"""
    sha256: str
    """of the photo file"""
    warnings: list[str] = field(default_factory=list)
    landmarks: Landmarks | None = None
    """all points, how sure they are, and the head's turn; None when the points came by hand"""
    framing: Framing = FFHQ

    def camera(self) -> NDArray[np.float64]:
        """A first guess of the crop's camera [25] from the points alone, see `Framing.camera`."""
        size = self.image.shape[0]
        matrix = self.matrix / size
        known = self.points if self.landmarks is None else self.landmarks.points
        at = {name: align.transform(matrix, point).tolist() for name, point in known.items()}
        if self.landmarks is None:
            return self.framing.camera(at)
        scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
        spread = {name: value * scale for name, value in self.landmarks.spread.items()}
        return self.framing.camera(at, spread, (self.landmarks.yaw, self.landmarks.pitch))


def prepare(
    source: Path | str | bytes,
    *,
    face_box: Sequence[float] | None = None,
    points: Mapping[str, Sequence[float]] | None = None,
    size: int = 256,
    framing: Framing = FFHQ,
    on_progress: OnProgress | None = None,
) -> Crop:
    """Decode a photo and cut its face out.

    Args:
        source: a path, or a file's bytes.
        face_box: (x0, y0, x1, y1) around the face, brows to chin; then nothing is searched for.
        points: eye_left, eye_right (eyeball centres), mouth_left, mouth_right (corners), each (x, y), as the
            subject's left and right; then nothing is searched nor estimated. Boxes and points count in
            pixels of the upright photo at full size.
        size: side of the crop in pixels. framing: the crop that the model is used to.
        on_progress: hears of the stages load and detect; may raise Cancelled.

    Raises: PhotoError, as `decode.load` does, and with `code` no_face, face_cut, face_too_small, bad_box,
        bad_points.
    """
    report(on_progress, "load", 0.0, "Reading the photo")
    photo = decode.load(source)
    report(on_progress, "load", 1.0)
    warnings = list(photo.warnings)
    report(on_progress, "detect", 0.0, "Looking for the face")
    full = photo.full_size
    found: Landmarks | None = None
    if points is not None:
        four = known = _given_points(points, full)
        face = Face(_box_of(four), 1.0)
    elif face_box is not None:
        face = Face(_given_box(face_box, full), 1.0)
        found = _landmarks(photo, face)
    else:
        face, found = _search(photo, warnings)
    report(on_progress, "detect", 0.6, "Aligning the face")
    if found is not None:
        four = {name: found.points[name] for name in align.POINTS}
        known = found.points
        if abs(found.yaw) > _TURN_WARNING:
            warnings.append(
                "The face is turned far to the side, so its hidden half is guessed; "
                "a frontal photo gives a better head."
            )
    matrix = align.matrix_of(*_square_of(known, framing), size)
    _check(matrix, size, full, face, warnings)
    shrunk = matrix.copy()
    shrunk[:, :2] /= photo.scale  # the matrix is for full size; the decoded picture may be smaller
    image = align.resample(photo.rgb, shrunk, size)
    report(on_progress, "detect", 1.0)
    return Crop(image, matrix, face, four, photo.sha256, warnings, found, framing)


def _search(photo: decode.Photo, warnings: list[str]) -> tuple[Face, Landmarks]:
    """The largest face that the landmark network confirms."""
    confirmed = _candidates(photo, warnings)
    if not confirmed:
        raise PhotoError(
            f"No face was found in {photo.name}; choose a photo with one clear face or mark it by hand.",
            "no_face",
        )
    if len(confirmed) > 1:
        x, y = confirmed[0][0].centre
        warnings.append(
            f"{len(confirmed)} faces found; the largest one, at {x:.0f},{y:.0f}, was used; "
            "give a face box to choose another."
        )
    return confirmed[0]


def _candidates(photo: decode.Photo, warnings: list[str]) -> list[tuple[Face, Landmarks]]:
    """Those faces that the detector sees and the landmark network takes for such, the largest first; or one
    that the network finds by itself."""
    found: list[tuple[Face, Landmarks]] = []
    for step, search in enumerate(detect.searches(photo.rgb)):
        found = (
            _confirmed(photo, search.upright(), LEAST_SCORE)
            or found
            or _confirmed(photo, search.doubtful(), SURE_SCORE)[:1]
            or _confirmed(photo, search.tilted(), LEAST_SCORE)
        )
        if found and search.shows(found[0][0].side * photo.scale / 2):
            break
        if not found and step == 0:  # sooner than the larger sizes, which take seconds
            found = _sought(photo)
            if found:
                warnings.append(
                    "The face was hard to find, as if something covers part of it; "
                    "what is covered is guessed."
                )
                break
    return found


def _confirmed(photo: decode.Photo, faces: list[Face], least: float) -> list[tuple[Face, Landmarks]]:
    """Those candidates that the landmark network, too, takes for a face, in full-size pixels."""
    full = [Face(_scaled(face.box, 1 / photo.scale), face.score) for face in faces]
    both = [(face, _landmarks(photo, face)) for face in full]
    return [(face, found) for face, found in both if found.score >= least]


def _sought(photo: decode.Photo) -> list[tuple[Face, Landmarks]]:
    """What the landmark network finds by itself, in full-size pixels."""
    from geoinv_core.photo import landmarks  # torch loads only when points are needed

    found = landmarks.seek(photo.rgb)
    if found is None:
        return []
    found = found.scaled(1 / photo.scale)
    return [(Face(_box_of(found.points), found.score), found)]


def _box_of(points: Mapping[str, Sequence[float]]) -> Box:
    """The box that a detector would have drawn around a face with these points."""
    centre, half = _square_of(points, FFHQ)
    return _square(centre, 2 * float(np.linalg.norm(half)) / _BOX_TO_CROP)


def _landmarks(photo: decode.Photo, face: Face) -> Landmarks:
    from geoinv_core.photo import landmarks  # torch loads only when points are needed

    x, y = face.centre
    side = face.side
    middle = (x * photo.scale, (y - _CROP_RAISED * side) * photo.scale)
    found = landmarks.find(photo.rgb, middle, side * photo.scale * _BOX_TO_CROP / 2)
    return found.scaled(1 / photo.scale)


def _square_of(
    points: Mapping[str, Sequence[float]], framing: Framing
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    try:
        return framing.square(points)
    except ValueError as error:
        raise PhotoError(
            "The eye and mouth points lie on each other, so the face's size is unknown; mark them again.",
            "bad_points",
        ) from error


def _given_points(
    points: Mapping[str, Sequence[float]], full: tuple[int, int]
) -> dict[str, tuple[float, float]]:
    try:
        array = align.stack(points)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise PhotoError(
            f"The points must be {', '.join(align.POINTS)}, each with x and y in pixels; mark all four.",
            "bad_points",
        ) from error
    limits = np.array(full, float)
    if not np.isfinite(array).all() or (array < -limits).any() or (array > 2 * limits).any():
        raise PhotoError(
            f"The points lie far outside the photo of {full[0]} x {full[1]} pixels; mark them again.",
            "bad_points",
        )
    return {name: (float(x), float(y)) for name, (x, y) in zip(align.POINTS, array, strict=True)}


def _given_box(box: Sequence[float], full: tuple[int, int]) -> Box:
    try:
        x0, y0, x1, y1 = (float(v) for v in box)
    except (TypeError, ValueError) as error:
        raise PhotoError(
            "A face box is four numbers: left, top, right, bottom in pixels.", "bad_box"
        ) from error
    if not (np.isfinite([x0, y0, x1, y1]).all() and x1 > x0 and y1 > y0):
        raise PhotoError(
            "The face box is empty: right must exceed left, and bottom must exceed top.", "bad_box"
        )
    if x1 <= 0 or y1 <= 0 or x0 >= full[0] or y0 >= full[1]:
        raise PhotoError(
            f"The face box lies outside the photo of {full[0]} x {full[1]} pixels; draw it again.", "bad_box"
        )
    return (x0, y0, x1, y1)


def _check(
    matrix: NDArray[np.float64], size: int, full: tuple[int, int], face: Face, warnings: list[str]
) -> None:
    """Refuse or warn of faces that are cut off or too small."""
    side = size / float(np.hypot(matrix[0, 0], matrix[1, 0])) / _BOX_TO_CROP
    if side < TINY_FACE:
        raise PhotoError(
            f"The face is only {side:.0f} pixels wide, too small to show a person; choose a larger photo.",
            "face_too_small",
        )
    if side < SMALL_FACE:
        warnings.append(f"The face is only {side:.0f} pixels wide, so the head will have little detail.")
    within = align.inside(matrix, size, full, align.FACE_SHARE)
    if within < LEAST_INSIDE:
        raise PhotoError(
            f"Only {100 * within:.0f} % of the face lies inside the photo, the rest is cut off; "
            "choose a photo that shows all of it.",
            "face_cut",
        )
    if within < 0.97:
        warnings.append("The face is cut off by the photo's border; the missing part is guessed.")
    elif align.inside(matrix, size, full) < 0.75:
        warnings.append("The head reaches beyond the photo's border; the missing part is guessed.")


def _square(centre: Any, side: float) -> Box:
    x, y = float(centre[0]), float(centre[1])
    return (x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def _scaled(box: Box, factor: float) -> Box:
    x0, y0, x1, y1 = box
    return (x0 * factor, y0 * factor, x1 * factor, y1 * factor)
