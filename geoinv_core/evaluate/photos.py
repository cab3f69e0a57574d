"""One real photo and eight hardships of it: does the drawn head's face lie where the photo's does?

Truth is unknown, so an oracle looks at both pictures: MediaPipe's face mesh where it is installed (optional,
needed for nothing else), else the bundled landmark network. Distances are means over landmarks, in distances
of the eyes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from geoinv_core.errors import PhotoError
from geoinv_core.evaluate.inversion import Report
from geoinv_core.evaluate.sheet import sheet
from geoinv_core.model import Model
from geoinv_core.photo import decode, detect, landmarks

Pixels = NDArray[np.uint8]
Oracle = Callable[[Pixels], "NDArray[np.float64] | None"]
"""A picture [S, S, 3] to landmarks [N, 2] in pixels, None without a face."""
LIMIT = 0.05
"""Distance that counts as fitting."""
_SIZE = 512
_MESH: tuple[tuple[int, ...], ...] = (
    (33, 133, 362, 263),  # corners of the eyes
    (159, 145, 386, 374),  # lids
    (61, 291, 13, 14, 0, 17),  # mouth
    (1, 168, 2),  # nose
    (105, 334, 107, 336),  # brows
    (152, 234, 454),  # chin, and the face's sides
)
"""Points of the face mesh that are compared."""


def variants(photo: Image.Image) -> dict[str, Image.Image]:
    """A photo and what may become of it."""
    w, h = photo.size
    warm = np.asarray(photo, np.float32) * np.array([1.2, 1.0, 0.7], np.float32)
    small = photo.resize((max(1, w // 4), max(1, h // 4)), Image.Resampling.LANCZOS)

    def turned(degrees: float) -> Image.Image:
        edge = np.asarray(photo)[:8].reshape(-1, 3).mean(0)
        fill = tuple(int(v) for v in edge)
        return photo.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=fill)

    return {
        "as it is": photo,
        "mirrored": photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "grey": photo.convert("L").convert("RGB"),
        "25 %": small,
        "dark": ImageEnhance.Brightness(photo).enhance(0.35),
        "warm": Image.fromarray(warm.clip(0, 255).astype(np.uint8)),
        "turned +15": turned(15),
        "turned -15": turned(-15),
        "half covered": _covered(photo),
    }


def _covered(photo: Image.Image) -> Image.Image:
    """A grey bar over one half of the face, from its middle outwards."""
    pixels = np.asarray(photo).copy()
    faces = detect.find_faces(pixels)
    if faces:
        x0, y0, x1, y1 = faces[0].box
        middle = int((x0 + x1) / 2)
        pixels[max(0, int(y0)) : int(y1), middle : int(x1 + (x1 - x0) * 0.2)] = 110
    return Image.fromarray(pixels)


def oracle() -> tuple[str, Oracle]:
    """The name of the best at hand, and it."""
    try:
        from mediapipe.python.solutions.face_mesh import FaceMesh
    except ImportError:
        return "landmark network", _network
    mesh = FaceMesh(static_image_mode=True, refine_landmarks=True, min_detection_confidence=0.3)
    chosen = [i for group in _MESH for i in group]

    def look(pixels: Pixels) -> NDArray[np.float64] | None:
        found = mesh.process(np.ascontiguousarray(pixels)).multi_face_landmarks
        if not found:
            return None
        size = np.array(pixels.shape[1::-1], np.float64)
        return np.array([[found[0].landmark[i].x, found[0].landmark[i].y] for i in chosen]) * size

    return "MediaPipe", look


def _network(pixels: Pixels) -> NDArray[np.float64] | None:
    size = pixels.shape[0]
    found = landmarks.find(pixels, (size / 2, size / 2), size / 2)
    names = ("eye_left", "eye_right", "mouth_left", "mouth_right", "nose_tip", "chin")
    return np.array([found.points[n] for n in names]) if found.score > 0.5 else None


def distance(ours: NDArray[np.float64], theirs: NDArray[np.float64], mesh: bool) -> float:
    """Mean distance of two sets of landmarks in the distance of the second's eyes."""
    eyes = (theirs[:2].mean(0) - theirs[2:4].mean(0)) if mesh else theirs[0] - theirs[1]
    return float(np.linalg.norm(ours - theirs, axis=1).mean() / np.linalg.norm(eyes))


def evaluate_photo(model: Model, path: Path, refine: int = 0) -> Report:
    """Figures per variant ("apart", "camera", warnings) and a sheet: photo, drawing, the two laid over one
    another's landmarks, and the sides."""
    photo = Image.fromarray(decode.load(path).rgb)
    name, look = oracle()
    rows: list[tuple[str, list[NDArray[Any]]]] = []
    scores: dict[str, dict[str, Any]] = {}
    for what, picture in variants(photo).items():
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        try:
            head = model.invert(stream.getvalue(), refine=refine)
        except PhotoError as error:
            scores[what] = {"error": str(error)}
            continue
        crop = head.inversion.photo
        assert crop is not None  # it comes from one
        drawn = np.asarray(head.render(camera=head.camera, size=crop.shape[0]))
        seen, ours = look(crop), look(drawn)
        row: dict[str, Any] = {"warnings": head.warnings}
        if seen is not None and ours is not None:
            row["apart"] = distance(ours, seen, name == "MediaPipe")
        row |= _labels(head.labels)
        scores[what] = row
        told = "no face" if "apart" not in row else f"{100 * row['apart']:.1f} %"
        sides = [np.asarray(head.render(yaw=yaw, size=256)) for yaw in (-45, 45)]
        shown = [crop, drawn, _dots(drawn, seen, ours), *sides]
        rows.append((f"{what}\n\n{told}", [np.asarray(p, np.float32) / 255 for p in shown]))
    found = [row["apart"] for row in scores.values() if "apart" in row]
    summary = {"oracle": name, "limit": LIMIT, "within": sum(a <= LIMIT for a in found), "of": len(scores)}
    columns = ["photo", "drawn", "photo green, drawn red", "-45", "+45"]
    return Report({**summary, "variants": scores}, sheet(columns, rows, 200))


def _labels(labels: Mapping[str, float]) -> dict[str, float]:
    wanted = ("age", "male", "jawOpen", "mouthSmileLeft", "eyeBlinkLeft", "browInnerUp")
    return {name: labels[name] for name in wanted if name in labels}


def _dots(
    drawn: Pixels, seen: NDArray[np.float64] | None, ours: NDArray[np.float64] | None
) -> NDArray[np.uint8]:
    canvas = drawn.copy()
    for points, colour in ((seen, (0, 220, 0)), (ours, (230, 0, 0))):
        for x, y in points if points is not None else ():
            cv2.circle(canvas, (round(x), round(y)), 4, colour, -1, cv2.LINE_AA)
    return canvas


def table(scores: Mapping[str, Any]) -> str:
    lines = [f"landmarks by {scores['oracle']}; {scores['within']} of {scores['of']} within {LIMIT:.0%}"]
    for what, row in scores["variants"].items():
        if "error" in row:
            lines.append(f"{what:>14}  {row['error']}")
            continue
        apart = f"{100 * row['apart']:5.1f} %" if "apart" in row else "no face"
        labels = " ".join(f"{k} {v:.2f}" for k, v in row.items() if isinstance(v, float) and k != "apart")
        lines.append(f"{what:>14} {apart}  {labels}  {' '.join(row['warnings'])}")
    return "\n".join(lines)
