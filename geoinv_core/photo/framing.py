"""How a family of models frames a face, and the camera that sees it so.

"ffhq" is the crop of `align`: upright, from eyes and mouth; the bundled model and PanoHead look at heads so,
about the middle of the head. "eg3d" is what users of EG3D feed its FFHQ models: five points of the face are
fitted to five points of a reference face by a scaled orthographic projection, the picture is cut to 700 / 300
units of that fit around the reference's origin, without a turn (the roll stays in the camera), and cameras
stand 2.7 from the world's origin.

The reference face here is the mean of our own synthetic heads, in decimetres about the centroid of the face's
surface, which is how the face model of EG3D's recipe is set up, too (that one's points are under a research
licence and are not used). `python -m geoinv_core train reference` derives it and measures the cameras.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoinv_core.photo import align

F64 = NDArray[np.float64]
Points = Mapping[str, "Sequence[float] | F64"]

REFERENCE: dict[str, tuple[float, float, float]] = {
    "eye_left": (0.2858, 0.3233, 0.1625),
    "eye_right": (-0.2858, 0.3233, 0.1625),
    "mouth_left": (0.2604, -0.3428, 0.3322),
    "mouth_right": (-0.2604, -0.3428, 0.3322),
    "nose_tip": (0.0, -0.0683, 0.5837),
    "nasion": (0.0, 0.3228, 0.3988),
    "chin": (0.0, -0.6369, 0.3678),
    "crown": (0.0, 1.3885, -0.4984),
    "ear_left": (0.8321, 0.2691, -0.6927),
    "ear_right": (-0.8321, 0.2691, -0.6927),
    "eye_left_outer": (0.4281, 0.3208, 0.2673),
    "eye_left_inner": (0.1631, 0.2998, 0.3065),
    "eye_right_outer": (-0.4281, 0.3208, 0.2673),
    "eye_right_inner": (-0.1631, 0.2998, 0.3065),
}
"""Mean position of each landmark, decimetres: x to the subject's left, y up, z out of the face."""

OWN_UNIT, OWN_ORIGIN = 4.1037, (0.0, -0.0622, 0.0912)
"""Decimetres in one world unit of our own heads, and where the reference's origin lies among them (mean)."""
_NEARER = 2.7 / (2.7 + 0.161)
EG3D_UNIT, EG3D_ORIGIN = 1 / (0.27 * _NEARER), (0.0, 0.006 * _NEARER, 0.161 * _NEARER)
"""The same in EG3D's world. Its preprocessing takes decimetres times .27, puts the reference at
(0, .006, .161), and then pulls every camera to 2.7 from the world's origin: nearer to the face, by this
factor in front. The pictures stay, so a model can only follow with a smaller head, as much nearer to the
origin."""
EG3D_SIDE = 700 / 300
"""Side of EG3D's crop in units of the reference face."""
FIVE = ("eye_left", "eye_right", "nose_tip", "mouth_left", "mouth_right")
STEADY = (
    *FIVE, "nasion", "chin", "eye_left_outer", "eye_left_inner", "eye_right_outer", "eye_right_inner",
)  # fmt: skip
"""Landmarks that the camera is fitted to; crown and ears are hidden by hair too often."""
_SPREAD = 0.015
"""Crop widths by which one person's landmarks lie off the mean face's."""
_USUAL = (np.radians(40), np.radians(20))
"""Weak expectation of yaw and pitch where nothing is guessed; counts only where points say little."""
_GUESSED = np.radians(4)
"""Error of the landmark network's own yaw and pitch."""


@dataclass(frozen=True)
class Framing:
    """One way to look at faces."""

    name: str
    unit: float
    """decimetres in a world unit"""
    origin: tuple[float, float, float]
    """world position of the reference face's origin"""
    radius: float = 2.7
    focal: float = 4.2647

    def world(self, name: str) -> F64:
        """A landmark of the mean face in this model family's world."""
        return np.array(REFERENCE[name]) / self.unit + self.origin

    def square(self, points: Points) -> tuple[F64, F64]:
        """The crop in the picture, as `align.crop_square` gives it.

        Args: points: pixels; the four of align.POINTS, for "eg3d" also nose_tip where it is known.
        Raises: ValueError where the points coincide.
        """
        if self.name == "ffhq":
            return align.crop_square(np.array([points[n] for n in align.POINTS]))
        return _fitted(points)

    def camera(
        self,
        points: Points,
        spread: Mapping[str, float] | None = None,
        guess: tuple[float, float] | None = None,
    ) -> F64:
        """The camera that shows the mean face's landmarks where they are in the crop.

        Args:
            points: in crop widths, (0, 0) the top left corner; any of REFERENCE's names.
            spread: expected error of each, crop widths.
            guess: yaw and pitch in degrees, as the landmark network has them.
        Returns: float64 [25].
        """
        from scipy.optimize import least_squares  # slow to load, and the server's front decodes photos too

        names = [n for n in STEADY if n in points]
        world = np.stack([self.world(n) for n in names])
        seen = np.array([points[n] for n in names], np.float64)
        sure = 1 / np.hypot(_SPREAD, np.array([0.0 if spread is None else spread[n] for n in names]))

        expected = np.radians((0.0, 0.0) if guess is None else guess)
        doubt = np.array(_USUAL if guess is None else (_GUESSED, _GUESSED))

        def residual(pose: F64) -> F64:
            off = (self._project(pose, world) - seen) * sure[:, None]
            return np.concatenate([off.ravel(), (pose[:2] - expected) / doubt])

        start = np.array([*expected, 0.0, 0.0, 0.0])
        found = least_squares(residual, start, loss="soft_l1", f_scale=2.0)
        cam2world = self._cam2world(found.x)
        K = [self.focal, 0, 0.5, 0, self.focal, 0.5, 0, 0, 1]
        return np.concatenate([cam2world.ravel(), np.array(K, np.float64)])

    def _cam2world(self, pose: F64) -> F64:
        """yaw, pitch, roll, and two small turns off the middle of the face, radians; to float64 [4, 4]."""
        yaw, pitch, roll, right, down = pose
        position = self.radius * np.array(
            [np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)]
        )
        ahead = np.array(self.origin) * [0, 0, 1] - position
        z = ahead / np.linalg.norm(ahead)
        x = np.cross(z, [0.0, 1.0, 0.0])
        x /= np.linalg.norm(x)
        y = np.cross(z, x)
        c, s = np.cos(roll), np.sin(roll)
        x, y = x * c + y * s, y * c - x * s
        z = z + np.tan(right) * x + np.tan(down) * y
        z /= np.linalg.norm(z)
        x = x - (x @ z) * z
        x /= np.linalg.norm(x)
        result = np.eye(4)
        result[:3] = np.stack([x, np.cross(z, x), z, position], 1)
        return result

    def _project(self, pose: F64, world: F64) -> F64:
        cam2world = self._cam2world(pose)
        local = (world - cam2world[:3, 3]) @ cam2world[:3, :3]
        projected: F64 = local[:, :2] / local[:, 2:] * self.focal + 0.5
        return projected


FFHQ = Framing("ffhq", OWN_UNIT, OWN_ORIGIN)
EG3D = Framing("eg3d", EG3D_UNIT, EG3D_ORIGIN)


def _fitted(points: Points) -> tuple[F64, F64]:
    """Least squares of a scaled orthographic projection: each picture axis is a linear function of the
    reference's x, y, z and a shift; the scale is the mean length of the two linear parts."""
    names = [n for n in FIVE if n in points]
    model = np.array([[*REFERENCE[n], 1.0] for n in names])
    seen = np.array([points[n] for n in names], np.float64)
    if np.ptp(seen, axis=0).max() < 1e-9 or not np.isfinite(seen).all():
        raise ValueError("Eyes and mouth must be at different places.")
    fit = np.linalg.lstsq(model, seen, rcond=None)[0]
    scale = np.linalg.norm(fit[:3], axis=0).mean()
    return fit[3], np.array([EG3D_SIDE * scale / 2, 0.0])
