"""The template onto the zero level set of any head's field.

First a smooth warp brings the template's anchors (lid rims, lips, ears and so on) to where they are expected;
then every visible vertex goes along the field's gradient to the zero level set, under a smoothness term that
relaxes from stiff to soft (Amberg, Romdhani and Vetter 2007, "Optimal step nonrigid ICP", with the field's own
value and gradient in place of closest points). What no field shows (the inside of the mouth, lid pockets,
eyeballs) follows by rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from geoinv_core.errors import GeoInvError
from geoinv_core.mesh.lattice import Query
from geoinv_core.mesh.smooth_fit import Smoother, extend, laplacian
from geoinv_core.mesh.sockets import place_eyeballs
from geoinv_core.mesh.template import Template
from geoinv_core.mesh.topology import vertex_normals
from geoinv_core.mesh.wrap import gradient
from geoinv_core.progress import OnProgress, report

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

STIFFNESS = (300.0, 100.0, 30.0, 10.0, 3.0, 1.5, 0.8, 0.5, 0.5, 0.5)
"""Weight of smoothness in each round."""
_ANCHOR = (4.0, 4.0, 3.0, 2.0, 1.0, 0.6, 0.4, 0.3, 0.3, 0.3)
"""Weight of an anchor in each round; in the last ones it only acts along the surface."""
_REACH = 0.03
"""World units that a vertex may ask to move in one round."""
_EAR_STIFFNESS, _EAR_DATA = 30.0, 0.15
_LIP_GAP = 0.0006


class FitFailed(GeoInvError):
    """The field holds nothing that a head template could lie on."""


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
        stiffness = np.where(t.tagged("ear"), _EAR_STIFFNESS, 1.0)
        return Smoother(laplacian(visible, len(t.vertices)), stiffness)

    @cached_property
    def data_weight(self) -> Float64:
        t = self.template
        weight = np.where(t.tagged("ear"), _EAR_DATA, 1.0) * self.seen
        return np.asarray(weight, np.float64)

    @cached_property
    def _bag(self) -> tuple[Bool, Bool, Callable[[Float64], Float64]]:
        """The mouth's inside, the lips' rings it hangs on, and how it follows them."""
        t = self.template
        inside = t.tagged("bag") & ~t.tagged("lip_line")
        lips = t.tagged("lips")
        part = t.faces[(inside | lips)[t.faces].all(1)]
        lap: csr_matrix = laplacian(part, len(t.vertices))
        return inside, lips, extend(lap, lips, inside)

    def complete(self, points: Float64) -> Float64:
        """Points [V, 3] with the hidden vertices laid anew after the visible ones."""
        t = self.template
        inside, lips, follow = self._bag
        points = self._part_lips(points)
        points[inside] = t.vertices[inside] + follow((points - t.vertices)[lips])
        return place_eyeballs(points, t.faces, t.tags)

    @cached_property
    def _lip_pairs(self) -> npt.NDArray[np.int64]:
        """Vertices of the upper lip's line [N, 0] over those of the lower one's [N, 1]."""
        t = self.template
        line = np.flatnonzero(t.tagged("lip_line"))
        x, y = t.vertices[line, 0], t.vertices[line, 1]
        wide = np.abs(x).max()
        corner = np.abs(np.abs(x) - wide) < 1e-5
        middle = y[corner].mean()
        upper, lower = line[~corner & (y > middle)], line[~corner & (y <= middle)]
        upper = upper[np.argsort(t.vertices[upper, 0])]
        lower = lower[np.argsort(t.vertices[lower, 0])]
        return np.stack([upper, lower], 1)

    def _part_lips(self, points: Float64) -> Float64:
        """Lips that cross each other are moved apart, by as much each."""
        points = points.copy()
        upper, lower = self._lip_pairs.T
        lack = np.maximum(_LIP_GAP - (points[upper, 1] - points[lower, 1]), 0.0)
        points[upper, 1] += lack / 2
        points[lower, 1] -= lack / 2
        return points

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
        Raises: FitFailed for a field that is empty, full or not finite round the template; Cancelled.
        """
        t = self.template
        rest = t.vertices.astype(np.float64)
        check(query, rest[self.seen])
        goal = rest[t.anchors] if anchors is None else anchors
        begin = rest if anchors is None else warp(rest, rest[t.anchors], anchors)
        shift = np.zeros_like(begin)
        rounds = list(zip(STIFFNESS, _ANCHOR, strict=True))
        ring = t.tagged("neck_ring")
        for number, (stiffness, anchor) in enumerate(rounds):
            report(on_progress, "surface", 0.1 + 0.8 * number / len(rounds), "Fitting the template")
            now = begin + shift
            step, trust = pull(query, now, t)
            held = now + step
            weight = self.data_weight * trust
            towards = goal - now[t.anchors]
            if number >= len(rounds) // 2:
                towards = _tangential(towards, query, now[t.anchors])
            share = anchor / (anchor + weight[t.anchors])
            held[t.anchors] += share[:, None] * (towards - step[t.anchors] * (number < len(rounds) // 2))
            weight[t.anchors] += anchor
            held[ring, 1] = begin[ring, 1]
            shift = self.smoother.solve(weight, held - begin, shift, stiffness)
            shift[ring, 1] = 0.0
        found = self.complete(begin + shift)
        if not np.isfinite(found).all():
            raise _failed("is not finite")
        report(on_progress, "surface", 0.95, "Template fitted")
        return found


def check(query: Query, points: Float64) -> None:
    """Raises FitFailed where a field is no head: not finite, or all inside or all outside of a box around
    it."""
    low, high = points.min(0) - 0.05, points.max(0) + 0.05
    grid = np.stack(np.meshgrid(*np.linspace(low, high, 24).T, indexing="ij"), -1).reshape(-1, 3)
    values = query(grid.astype(np.float32))
    if not np.isfinite(values).all():
        raise _failed("holds values that are not finite")
    inside = float((values < 0).mean())
    if inside < 0.02:
        raise _failed("is empty")
    if inside > 0.98:
        raise _failed("fills its whole box")


def _failed(what: str) -> FitFailed:
    return FitFailed(
        f"No head could be made: the model's field for this photo {what}; try another photo, "
        "less refinement or smaller edits.",
        "surface",
    )


def pull(query: Query, points: Float64, template: Template) -> tuple[Float64, Float64]:
    """Steps [V, 3] to the zero level set along the field's gradient, and how far to trust them [V], 0..1.

    A step is trusted less where field and template face different ways (the other side of an ear, a cavity).
    """
    value, slope = gradient(query, points)
    length = np.linalg.norm(slope, axis=1)
    normal = slope / np.maximum(length, 1e-6)[:, None]
    step = -(value / np.maximum(length, 0.3)).clip(-_REACH, _REACH)[:, None] * normal
    own = vertex_normals(points.astype(np.float32), template.triangles)
    agree = (normal * own).sum(1)
    trust = ((agree - 0.1) / 0.5).clip(0.02, 1.0)
    return np.nan_to_num(step), np.where(np.isfinite(value), trust, 0.0)


def _tangential(vectors: Float64, query: Query, points: Float64) -> Float64:
    _, slope = gradient(query, points)
    normal = slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-6)
    result: Float64 = vectors - (vectors * normal).sum(1, keepdims=True) * normal
    return result


def warp(points: Float64, source: Float64, target: Float64, ridge: float = 1e-4) -> Float64:
    """Points [N, 3] carried along by the smoothest map of space that takes source [A, 3] to target.

    A spline with the kernel |r| and an affine part (Duchon 1977; Bookstein 1989 in three dimensions).
    """
    count = len(source)
    kernel = np.linalg.norm(source[:, None] - source[None], axis=2) + ridge * np.eye(count)
    affine = np.concatenate([np.ones((count, 1)), source], 1)
    system = np.block([[kernel, affine], [affine.T, np.zeros((4, 4))]])
    weights = np.linalg.solve(system, np.concatenate([target - source, np.zeros((4, 3))]))
    reach = np.linalg.norm(points[:, None] - source[None], axis=2)
    result: Float64 = points + reach @ weights[:count] + weights[count] + points @ weights[count + 1 :]
    return result
