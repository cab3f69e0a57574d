"""The template onto the zero level set of any head's field.

First a smooth warp brings the template's anchors (lid rims, lips, ears and so on) to where they are expected;
then every visible vertex goes along the field's gradient to the zero level set, under a smoothness term that
relaxes from stiff to soft (Amberg, Romdhani and Vetter 2007, "Optimal step nonrigid ICP", with the field's
own value and gradient in place of closest points). What no field shows (the inside of the mouth, lid pockets,
eyeballs) follows by rule. Where the result passes through itself, as under the edge of long hair, it is
evened out (`untangle`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from geoinv_core.mesh.field_check import check, failed
from geoinv_core.mesh.lattice import Query
from geoinv_core.mesh.smooth_fit import Smoother, extend, laplacian
from geoinv_core.mesh.sockets import Eyes, eyes_of
from geoinv_core.mesh.template import Template, load
from geoinv_core.mesh.topology import vertex_normals
from geoinv_core.mesh.untangle import Untangler
from geoinv_core.mesh.wrap import gradient
from geoinv_core.progress import OnProgress, report

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

STIFFNESS = (300.0, 100.0, 30.0, 10.0, 5.0, 3.0, 2.0, 1.0, 1.0, 1.0)
"""Weight of smoothness in each round."""
_ANCHOR = (4.0, 4.0, 3.0, 2.0, 1.0, 0.6, 0.4, 0.3, 0.3, 0.3)
"""Weight of a guide in each round; in the last ones it only acts along the surface."""
_GUIDES = ("rim", "vermilion", "lip_line")
"""Curves whose vertices are guides: they keep near to where the warp by the anchors has put them."""
_SKULL = 40
"""Every so many vertices of the skull hold it still under an expression."""
_FADE = 3e-4
"""Weight of staying put, against an anchor's, where the lips' movement fades out along the surface."""
_BURIED = 0.01
"""World units under the surface, or above it, from which on a guide is no longer believed (hair hides it)."""
_LOWEST = 0.5
"""Share of its height above the neck's ring that a vertex of the neck keeps at least."""
_AROUND = 0.05
"""World units around the template in which a field is looked at before."""
_REACH = 0.03
"""World units that a vertex may ask to move in one round."""
_STIFFER = {"ear": 30.0, "neck": 6.0, "cranium": 4.0, "lips": 12.0, "lid": 12.0}
"""How much stiffer parts are than the face: thin ones, and those that hair makes uneven."""
_SOFT_DATA = {"ear": 0.1, "lips": 0.5, "lid": 0.5, "rim": 0.1, "lip_line": 0.1}
"""How much less the field counts where a small model's field is blurred: there the anchors lead."""
_EAR_MARGIN = 0.06
"""World units round the ears over which the field comes to count in full."""
_LEVEL = (-0.29, -0.25)
"""Heights between which the neck's steps become level, so that its ring stays a plane."""
_CORRECTION = 80.0
"""Weight of smoothness where edited fields correct the shape keys; a blurred field's dents in chin and cheeks
stay out."""
_FOLLOW = 10
"""Edges from lids and lips within which the skin follows when these meet."""
_UNTANGLINGS = (4, 4, 8, 16, 32, 32, 32)
"""Rounds of evening out, each time after crossed lids and lips are parted, until nothing crosses."""
_GAP = 0.0008
"""World units that lids and lips keep from each other when they touch."""


@dataclass(frozen=True, eq=False)
class Fitter:
    """A template with the operators of its fit; made once per template."""

    template: Template

    @cached_property
    def seen(self) -> Bool:
        return ~self.template.hidden

    @cached_property
    def smoother(self) -> Smoother:
        t = self.template
        visible = t.faces[self.seen[t.faces].all(1)]
        stiffness = np.ones(len(t.vertices))
        for tag, value in _STIFFER.items():
            stiffness = np.maximum(stiffness, value * t.tagged(tag))
        stiffness = np.maximum(stiffness, _STIFFER["ear"] * (1 - self.off_ears))
        return Smoother(laplacian(visible, len(t.vertices)), stiffness)

    @cached_property
    def _spreader(self) -> Any:
        """Factors of the system that spreads anchors' remainders [V, C] along the surface."""
        weight = np.full(len(self.template.vertices), _FADE)
        weight[self.template.anchors] = 1.0
        return splu(self._system(weight, np.ones_like(weight)))

    def corrector(self) -> Callable[[Float64], Float64]:
        """A function from weighted steps [V, C] (each times `data_weight`) to smooth offsets that follow
        them."""
        solver = splu(self._system(self.data_weight + _FADE, _CORRECTION * self.smoother.stiffness))
        return lambda pulled: solver.solve(pulled)

    def _system(self, weight: Float64, stiffness: Float64) -> Any:
        lap = self.smoother.laplacian
        return (diags(weight) + lap.T @ diags(stiffness) @ lap).tocsc()

    @cached_property
    def off_ears(self) -> Float64:
        """0 on the ears to 1 well away from them, [V]."""
        t = self.template
        distance, _ = cKDTree(t.vertices[t.tagged("ear")]).query(t.vertices)
        part = (distance / _EAR_MARGIN).clip(0, 1)
        return np.asarray(part * part * (3 - 2 * part), np.float64)

    @cached_property
    def data_weight(self) -> Float64:
        t = self.template
        weight = _SOFT_DATA["ear"] + (1 - _SOFT_DATA["ear"]) * self.off_ears
        for tag, value in _SOFT_DATA.items():
            weight[t.tagged(tag)] = value
        return np.asarray(weight * self.seen, np.float64)

    @cached_property
    def _bag(self) -> tuple[Bool, Bool, Callable[[Float64], Float64]]:
        """The mouth's inside, the line of the lips that it hangs on, and how it follows that."""
        t = self.template
        line = t.tagged("lip_line")
        inside = t.tagged("bag") & ~line
        lap: csr_matrix = laplacian(t.faces[t.tagged("bag")[t.faces].all(1)], len(t.vertices))
        return inside, line, extend(lap, line, inside)

    @cached_property
    def eyes(self) -> Eyes:
        return eyes_of(self.template.vertices.astype(np.float64), self.template.faces, self.template.tags)

    @cached_property
    def _untangler(self) -> Untangler:
        return Untangler(self.template.faces, ~self.template.tagged("neck_ring"))

    @cached_property
    def _guides(self) -> npt.NDArray[np.int64]:
        t = self.template
        return np.union1d(np.flatnonzero(t.tagged(*_GUIDES)), t.anchors)

    @cached_property
    def _floor(self) -> Float64:
        """The lowest y that each vertex may have, [V]: no row of the neck passes under its ring."""
        t = self.template
        ring = float(t.vertices[t.tagged("neck_ring"), 1].mean())
        return np.asarray(ring + _LOWEST * (np.minimum(t.vertices[:, 1], _LEVEL[1]) - ring), np.float64)

    @cached_property
    def pairs(self) -> npt.NDArray[np.int64]:
        """Vertices of upper lids' rims and of the upper lip's line [N, 0] over their counterparts [N, 1]."""
        t = self.template
        found = []
        for tag, side in (("lip_line", 0), ("rim", 1), ("rim", -1)):
            on = np.flatnonzero(t.tagged(tag) & (t.vertices[:, 0] * side >= 0))
            x, y, _ = t.vertices[on].T
            first, last = on[x.argmin()], on[x.argmax()]
            ends = t.vertices[[first, last]]
            off = y - np.interp(x, ends[:, 0], ends[:, 1])
            inner = ~np.isin(on, (first, last))
            halves = [on[inner & (off > 0)], on[inner & (off <= 0)]]
            found.append(np.stack([half[np.argsort(t.vertices[half, 0])] for half in halves], 1))
        return np.concatenate(found)

    @cached_property
    def _round_pairs(self) -> tuple[npt.NDArray[np.int64], Smoother]:
        """The vertices that follow lids and lips when these meet, and the smoother of these alone."""
        faces, around = self.template.faces, np.zeros(len(self.template.vertices), bool)
        around[self.pairs] = True
        for _ in range(_FOLLOW):
            around[faces[around[faces].any(1)]] = True
        near = np.flatnonzero(around & self.seen)
        return near, Smoother(self.smoother.laplacian[near][:, near], self.smoother.stiffness[near])

    def _levelled(self, step: Float64) -> Float64:
        """Steps [V, 3] that become level towards the neck's ring, as long as they need to be for that."""
        low, high = _LEVEL
        level = ((high - self.template.vertices[:, 1]) / (high - low)).clip(0, 1)[:, None]
        flat = step * (1.0, 0.0, 1.0)
        longer = (step * step).sum(1, keepdims=True) / np.maximum((flat * flat).sum(1, keepdims=True), 1e-12)
        result: Float64 = (1 - level) * step + level * flat * longer.clip(1.0, 3.0)
        return result

    def complete(self, points: Float64, eyes_of: Float64 | None = None) -> Float64:
        """Points [V, 3] with crossed lids and lips parted, and the hidden vertices laid anew after the
        visible ones.

        Args: eyes_of: a completed head [V, 3] whose eyeballs are kept, with the lids moved before them.
        """
        t = self.template
        points = self._parted(points)
        inside, line, follow = self._bag
        points[inside] = t.vertices[inside] + follow((points - t.vertices)[line])
        return self.eyes.place(points) if eyes_of is None else self.eyes.keep(points, eyes_of)

    def shut(self, points: Float64, sides: tuple[int, ...]) -> Float64:
        """Points with the lids of some eyes (1: the subject's left, -1: right) meeting all along."""
        upper = self.pairs[:, 0]
        side = np.where(self.template.tagged("rim")[upper], np.sign(self.template.vertices[upper, 0]), 0)
        return self._met(points, np.isin(side, sides).astype(np.float64), _GAP)

    def _parted(self, points: Float64, gap: float = _GAP) -> Float64:
        """Points with lids and lips that cross meeting between each other, nearer to the lower one."""
        upper, lower = self.pairs.T
        lack = np.maximum(gap - (points[upper, 1] - points[lower, 1]), 0.0)
        return points.copy() if lack.max() < 1e-7 else self._met(points, np.minimum(lack / gap, 1.0), gap)

    def _met(self, points: Float64, share: Float64, gap: float) -> Float64:
        """Points whose pairs lie a gap apart, each as far as its share [N] says; the rest follows."""
        upper, lower = self.pairs.T
        share = share[:, None]
        meeting = 0.2 * points[upper] + 0.8 * points[lower]
        half = np.array([0.0, gap / 2, 0.0])
        wanted = np.zeros_like(points)
        wanted[upper] = share * (meeting + half - points[upper])
        wanted[lower] = share * (meeting - half - points[lower])
        weight = np.where(self.seen, 0.1, 0.0)
        weight[self.pairs] = np.where(share > 0, 100.0, 0.1)
        near, smoother = self._round_pairs
        result = points.copy()
        result[near] += smoother.solve(weight[near], wanted[near], wanted[near], 1.0, 40)
        return result

    def carried(self, anchors: Float64) -> Float64:
        """The template's vertices [V, 3] with its anchors at [A, 3]."""
        t = self.template
        rest = t.vertices.astype(np.float64)
        begin = rest + self.spread(rest, (anchors - rest[t.anchors])[None])[0]
        begin[t.tagged("neck_ring"), 1] = rest[t.tagged("neck_ring"), 1]
        return self._parted(begin, 2 * _GAP)

    def spread(self, points: Float64, moved: Float64, skull_stays: bool = False) -> Float64:
        """Offsets [K, V, 3] of all vertices, at `points` [V, 3], for K movements of the anchors [K, A, 3].

        A warp of space by all anchors but the lips' line, whose two sides touch and move apart; what it
        leaves over is spread along the surface, across which the lips are not joined. The neck's ring stays,
        and where asked for the skull too, as in expressions.
        """
        t = self.template
        outer = ~t.tagged("lip_line")[t.anchors]
        still = points[t.tagged("neck_ring")][::4]
        if skull_stays:
            still = np.concatenate([still, points[t.tagged("cranium") & ~t.tagged("ear")][::_SKULL]])
        source = np.concatenate([points[t.anchors[outer]], still])
        columns = moved.transpose(1, 0, 2).reshape(len(t.anchors), -1)  # [A, 3 K]
        begin = warp(
            points, source, np.concatenate([columns[outer], np.zeros((len(still), columns.shape[1]))])
        )
        wanted = np.zeros_like(begin)
        wanted[t.anchors] = columns - begin[t.anchors]
        spread = begin + self._spreader.solve(wanted)
        result: Float64 = spread.reshape(len(points), -1, 3).transpose(1, 0, 2)
        return result

    def fit(
        self,
        query: Query,
        anchors: Float64 | None = None,
        on_progress: OnProgress | None = None,
    ) -> Float64:
        """The template's vertices on the zero level set of a field.

        Args:
            query: signed values like a distance, negative inside, world units.
            anchors: [A, 3] where the template's anchors are expected in this head; None: where they are.
        Returns: float64 [V, 3], world units.
        Raises: FitError for a field that is empty, full or not finite round the template; Cancelled.
        """
        t = self.template
        rest = t.vertices.astype(np.float64)
        visible = rest[self.seen]
        check(query, visible.min(0) - _AROUND, visible.max(0) + _AROUND)
        ring = t.tagged("neck_ring")
        begin = rest if anchors is None else self.carried(anchors)
        guides = self._guides
        shift = np.zeros_like(begin)
        rounds = list(zip(STIFFNESS, _ANCHOR, strict=True))
        for number, (stiffness, share) in enumerate(rounds):
            report(on_progress, "surface", 0.1 + 0.8 * number / len(rounds), "Fitting the template")
            now = begin + shift
            normals = vertex_normals(now.astype(np.float32), t.triangles).astype(np.float64)
            step, trust = pull(query, now, normals)
            step = self._levelled(step)
            weight = self.data_weight * trust
            towards, out = begin[guides] - now[guides], normals[guides]
            if number >= len(rounds) // 2:
                towards += ((step[guides] - towards) * out).sum(1, keepdims=True) * out
            held = now + step
            guide = share * np.exp(-((step[guides] ** 2).sum(1) / _BURIED**2))
            part = (guide / (guide + weight[guides] + 1e-9))[:, None]
            held[guides] = now[guides] + part * towards + (1 - part) * step[guides]
            weight[guides] += guide
            shift = self.smoother.solve(weight, held - begin, shift, stiffness)
            shift[ring, 1] = 0.0
            shift[:, 1] = np.maximum(shift[:, 1], self._floor - begin[:, 1])
        report(on_progress, "surface", 0.9, "Untangling the template")
        found = begin + shift
        for at_most in _UNTANGLINGS:
            # what evens crossings out lets lips and lids that touch sink into each other, and so in turns
            found = self.complete(found)
            if not np.isfinite(found).all():
                raise failed("is not finite")
            offsets, left = self._untangler(rest, found - rest, at_most)
            found = rest + offsets
            if not left:
                break
        report(on_progress, "surface", 0.95, "Template fitted")
        return found


@cache
def fitter() -> Fitter:
    """The bundled template's. Raises: ModelError where its file is missing or damaged."""
    return Fitter(load())


def pull(query: Query, points: Float64, normals: Float64) -> tuple[Float64, Float64]:
    """Steps [V, 3] to the zero level set along the field's gradient, and how far to trust them [V], 0..1.

    A step is trusted less where field and template, with unit `normals` [V, 3], face different ways (the
    other side of an ear, a cavity).
    """
    value, slope = gradient(query, points)
    length = np.linalg.norm(slope, axis=1)
    away = slope / np.maximum(length, 1e-6)[:, None]
    step = -(value / np.maximum(length, 0.3)).clip(-_REACH, _REACH)[:, None] * away
    agree = (away * normals).sum(1)
    trust = ((agree - 0.1) / 0.5).clip(0.02, 1.0)
    return np.nan_to_num(step), np.where(np.isfinite(value), trust, 0.0)


def warp(points: Float64, source: Float64, moved: Float64, ridge: float = 1e-4) -> Float64:
    """Offsets [N, C] at points [N, 3] under the smoothest map of space that gives source [A, 3] the offsets
    moved [A, C].

    A spline with the kernel |r| and an affine part (Duchon 1977; Bookstein 1989 in three dimensions).
    """
    from scipy.spatial.distance import cdist

    count = len(source)
    kernel = cdist(source, source) + ridge * np.eye(count)
    affine = np.concatenate([np.ones((count, 1)), source], 1)
    system = np.block([[kernel, affine], [affine.T, np.zeros((4, 4))]])
    weights = np.linalg.solve(system, np.concatenate([moved, np.zeros((4, moved.shape[1]))]))
    rows = np.concatenate([cdist(points, source), np.ones((len(points), 1)), points], 1)
    result: Float64 = rows @ weights
    return result
