"""Eyeballs and the pockets behind the lids: no field shows them, so they follow the lids by rule.

An eyeball is an ellipsoid a little wider than high, so that its pockets at the corners of the eye stay
shallow. Its visible part goes on behind the lids, which can slide over it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.cage import TAGS
from geoinv_core.mesh.subdivide import edges

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]

_RADIUS = 0.54
"""The eyeball's radius in widths of the eye's opening."""
SQUEEZE = np.array([0.72, 1.0, 1.0])
"""Factors that make the ellipsoid a ball."""
_GAP = 0.0015
"""World units between lids and eyeball."""
_POCKET = 0.5
"""Where between eyeball (0) and lids (1) a pocket starts."""
_SPREAD = 1.22
"""How far the modelled part of the eyeball goes on behind the lids, in sizes of the opening."""
_SINK = 0.12
"""How far a shut eye's ball is drawn back, in its radii."""
_COVER = 1.15
"""Skin within so many sizes of the eyeball's modelled part must lie before it."""


@dataclass(frozen=True, eq=False)
class Eye:
    """Vertices of one eye of a template, and its shape at rest.

    corners: its two rim corners. skin: vertices that may cover the eyeball. pocket, source, share: vertices
    between rim and eyeball, the rim vertex each belongs to, and how far it is from there to the eyeball,
    0..1; goal: the eyeball's border vertex it leads to. ball: the eyeball's vertices, border included.
    across: [B, 2] places of `ball` from the middle of the corners, in widths of the opening.
    """

    corners: Int64
    skin: Int64
    pocket: Int64
    source: Int64
    goal: Int64
    share: Float64
    ball: Int64
    across: Float64

    def place(self, points: Float64) -> None:
        """Lay eyeball and pocket anew, in place."""
        ends = points[self.corners]
        middle, width = ends.mean(0), float(np.linalg.norm(ends[1] - ends[0]))
        radius = _RADIUS * width
        off = (points[self.skin] - middle) * SQUEEZE
        over = self._covers(off, width)
        inside = (radius + _GAP) ** 2 - (off[over, :2] ** 2).sum(1)
        depth = (points[self.skin][over, 2] - np.sqrt(np.maximum(inside, 0.0))).min()
        centre = np.array([middle[0], middle[1], depth])
        flat = self.across * width
        height = radius**2 - ((flat * SQUEEZE[:2]) ** 2).sum(1)
        points[self.ball, :2] = middle[:2] + flat
        points[self.ball, 2] = depth + np.sqrt(np.maximum(height, 0.0))
        self._lay_pocket(points, centre, radius)

    def keep(self, points: Float64, other: Float64) -> None:
        """Take the eyeball over from another laying of it [V, 3], move the skin before it where it has sunk
        in, and lay the pocket anew, in place."""
        centre, radius = self.centre(other)
        points[self.ball] = other[self.ball]
        off = (points[self.skin] - centre) * SQUEEZE
        far = np.linalg.norm(off, axis=1)
        low = self._covers(off, radius / _RADIUS) & (off[:, 2] > 0) & (far < radius + _GAP)
        points[self.skin[low]] = centre + off[low] / SQUEEZE * ((radius + _GAP) / far[low])[:, None]
        self._lay_pocket(points, centre, radius)

    def centre(self, points: Float64) -> tuple[Float64, float]:
        """Centre [3] and radius of a laid eyeball."""
        ends = points[self.corners]
        middle, width = ends.mean(0), float(np.linalg.norm(ends[1] - ends[0]))
        radius = _RADIUS * width
        flat = self.across * width
        height = np.sqrt(np.maximum(radius**2 - ((flat * SQUEEZE[:2]) ** 2).sum(1), 0.0))
        return np.array([middle[0], middle[1], (points[self.ball, 2] - height).mean()]), radius

    def turn(self, points: Float64, axis: int, degrees: float) -> None:
        """Turn the eyeball, axis 0: towards +x, 1: upwards, and lay the pocket anew, in place."""
        centre, radius = self.centre(points)
        off = (points[self.ball] - centre) * SQUEEZE
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        new = off.copy()
        new[:, axis] = c * off[:, axis] + s * off[:, 2]
        new[:, 2] = c * off[:, 2] - s * off[:, axis]
        points[self.ball] = centre + new / SQUEEZE
        self._lay_pocket(points, centre, radius)

    def sink(self, points: Float64) -> None:
        """Draw the eyeball back behind shut lids, in place, so that they have room on their way."""
        points[self.ball, 2] -= _SINK * self.centre(points)[1]

    def _covers(self, off: Float64, width: float) -> Bool:
        """Which of the squeezed offsets [N, 3] from the eye's middle lie before the modelled eyeball."""
        reach = _COVER * np.abs(self.across).max(0) * width * SQUEEZE[:2]
        found: Bool = ((off[:, :2] / reach) ** 2).sum(1) < 1
        return found

    def _lay_pocket(self, points: Float64, centre: Float64, radius: float) -> None:
        start, end = points[self.source], points[self.goal]
        way = start + self.share[:, None] * (end - start) - centre
        far = np.linalg.norm((start - centre) * SQUEEZE, axis=1)
        room = np.minimum(far - radius, _POCKET * _GAP)  # the pocket lies between lid and eyeball
        wanted = radius + room * (1 - self.share)
        points[self.pocket] = centre + way * (wanted / np.linalg.norm(way * SQUEEZE, axis=1))[:, None]


@dataclass(frozen=True, eq=False)
class Eyes:
    """Both eyes of a template."""

    both: tuple[Eye, Eye]

    def place(self, points: Float64) -> Float64:
        """Points [V, 3] with eyeballs and pockets laid after the lids."""
        points = points.copy()
        for eye in self.both:
            eye.place(points)
        return points

    def keep(self, points: Float64, other: Float64) -> Float64:
        """Points [V, 3] with the eyeballs of another laying of them, and their pockets."""
        points = points.copy()
        for eye in self.both:
            eye.keep(points, other)
        return points

    def turned(self, points: Float64, which: int, axis: int, degrees: float) -> Float64:
        """Points [V, 3] with one eyeball turned (0: the subject's left), see `Eye.turn`."""
        points = points.copy()
        self.both[which].turn(points, axis, degrees)
        return points

    def sunk(self, points: Float64, which: int) -> Float64:
        """Points [V, 3] with one eyeball drawn back (0: the subject's left), see `Eye.sink`."""
        points = points.copy()
        self.both[which].sink(points)
        return points


def eyes_of(points: Float64, faces: Int32, tags: Bool) -> Eyes:
    """The eyes of a template whose eyeballs are laid (see `lay_eyeballs`)."""
    found = []
    for side in (1.0, -1.0):
        own, rim, ball = _parts(points, tags, side)
        source, level, border = _levels(faces, own, rim, ball)
        corners = rim[[points[rim, 0].argmin(), points[rim, 0].argmax()]]
        middle = points[corners].mean(0)
        width = np.linalg.norm(points[corners[1]] - points[corners[0]])
        goal = {int(source[v]): int(v) for v in border}
        last = int(level[border].max())
        pocket = np.flatnonzero(own & (level > 0) & (level < last) & ~np.isin(np.arange(len(points)), ball))
        skin = (tags[:, TAGS.index("face")] & ~tags[:, TAGS.index("ear")]) & (points[:, 0] * side > 0)
        found.append(
            Eye(
                corners,
                np.flatnonzero(skin & (np.abs(points[:, 1] - middle[1]) < width)),
                pocket,
                source[pocket],
                np.array([goal[int(v)] for v in source[pocket]]),
                level[pocket] / last,
                ball,
                (points[ball] - middle)[:, :2] / width,
            )
        )
    return Eyes((found[0], found[1]))


def lay_eyeballs(points: Float64, faces: Int32, tags: Bool) -> Float64:
    """Points [V, 3] with eyeballs laid for the first time, from the rims of open lids."""
    points = points.copy()
    e = edges(faces).ends
    for side in (1.0, -1.0):
        own, rim, ball = _parts(points, tags, side)
        source, _, border = _levels(faces, own, rim, ball)
        middle = points[rim[[points[rim, 0].argmin(), points[rim, 0].argmax()]]].mean(0)
        flat = np.zeros((len(points), 2))
        flat[border] = _SPREAD * (points[source[border]] - points[rim].mean(0))[:, :2]
        flat[border] += (points[rim].mean(0) - middle)[:2]
        inner = np.setdiff1d(ball, border)
        links = e[np.isin(e, ball).all(1)]
        degree = np.bincount(links.ravel(), minlength=len(points))[:, None].clip(1)
        for _ in range(600):
            total = np.zeros_like(flat)
            np.add.at(total, links[:, 0], flat[links[:, 1]])
            np.add.at(total, links[:, 1], flat[links[:, 0]])
            flat[inner] = (total / degree)[inner]
        points[ball, :2] = middle[:2] + flat[ball]
    return eyes_of(points, faces, tags).place(points)


def _parts(points: Float64, tags: Bool, side: float) -> tuple[Bool, Int64, Int64]:
    """One side's eye: all its vertices as bool [V], its rim's, its eyeball's."""
    half = points[:, 0] * side > 0
    own = (tags[:, TAGS.index("pocket")] | tags[:, TAGS.index("eyeball")]) & half
    rim = np.flatnonzero(own & tags[:, TAGS.index("rim")])
    return own, rim, np.flatnonzero(own & tags[:, TAGS.index("eyeball")])


def _levels(faces: Int32, own: Bool, rim: Int64, ball: Int64) -> tuple[Int64, Int64, Int64]:
    """The rim vertex of each pocket vertex [V], its edges from there [V], and the eyeball's border."""
    e = edges(faces).ends
    e = e[own[e].all(1)]
    on_ball = np.isin(np.arange(len(own)), ball)
    source, level = np.full(len(own), -1), np.full(len(own), 99)
    source[rim], level[rim] = rim, 0
    for step in range(1, 9):
        for a, b in ((0, 1), (1, 0)):
            new = (level[e[:, a]] == 99) & (level[e[:, b]] == step - 1) & ~on_ball[e[:, b]]
            source[e[new, a]], level[e[new, a]] = source[e[new, b]], step
    border = np.flatnonzero(on_ball & (level < 99))
    return source, level, border
