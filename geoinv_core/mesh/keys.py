"""Shape keys: what each label does to one head, as offsets of the template's vertices.

The head is edited label by label, in latent space; geometry only. A key starts from the movement that the
labels' anchors predict, and is then corrected along the edited field's gradient until every vertex lies at
the same field value there as it did in the unedited head. So an edit that changes nothing gives exactly no
offset, and errors of the fit cancel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from geoinv_core.heads.layout import other_side
from geoinv_core.mesh.anchors import predict
from geoinv_core.mesh.fit import Fitter
from geoinv_core.mesh.lattice import Query, field_query
from geoinv_core.mesh.lips import closing
from geoinv_core.mesh.topology import vertex_normals
from geoinv_core.mesh.untangle import Untangler
from geoinv_core.mesh.wrap import gradient
from geoinv_core.progress import OnProgress, report

if TYPE_CHECKING:
    import torch

    from geoinv_core.edit import Labels
    from geoinv_core.head import Head

Float64 = npt.NDArray[np.float64]

NEUTRAL = "neutral"
"""The key that takes the photo's expression away; the others are offsets from a face without expression."""
LIPS_MEET = "mouthClose"
"""The key that is no label's own movement, but takes back what jawOpen parts (see `lips`)."""
BODY = {"age": 80.0, "weight": 1.0}
"""What these keys lead to at 1; "gender" leads to the other end of `male`."""
_BATCH = 8
_ROUNDS = 2
_UNTANGLINGS = 6
"""Rounds that a key that crosses itself is evened out."""
_REACH = 0.02
"""World units that the field may correct a vertex in one round."""
_LEAST = 2.5e-5
"""World units (a hundredth of a millimetre) under which an offset counts as none."""
_SHUT = {"eyeBlinkLeft": (1,), "eyeBlinkRight": (-1,), "blink": (1, -1)}
"""Keys that close the lids wholly, and of which eyes (1: the subject's left)."""
_MADE = 0.8
"""Share of the work after which keys are made, and evened out."""
_FLIP = np.array([-1.0, 1.0, 1.0])
_MOVES = 2.5e-4
"""World units (a tenth of a millimetre) from which on lips and lids move."""
_STRAINED = (0.45, 2.2)
"""Lengths of an edge against that at rest outside of which its faces may have crossed others."""
_GAZE = {"Up": (1, 25.0), "Down": (1, -25.0), "In": (0, -30.0), "Out": (0, 30.0)}
"""Axis (0 across, 1 up) and degrees that an eyeball turns, for the subject's left eye."""


def edits(space: Labels, male: float) -> dict[str, dict[str, float]]:
    """Name of each key -> labels that it sets on a face without expression, in display order."""
    from geoinv_core.edit.labels import MIXES

    single: dict[str, dict[str, float]] = {name: {name: 1.0} for name in space.layout.expressions}
    mixed: dict[str, dict[str, float]] = {name: {name: 1.0} for name in MIXES}
    body: dict[str, dict[str, float]] = {name: {name: value} for name, value in BODY.items()}
    return single | mixed | body | {"gender": {"male": 0.0 if male > 0.5 else 1.0}}


def shape_keys(
    head: Head, fitter: Fitter, points: Float64, on_progress: OnProgress | None = None
) -> dict[str, Float64]:
    """Offsets float64 [V, 3], world units, of every key of a head.

    Args:
        points: the head's own fitted vertices [V, 3]; the key `neutral` starts from them.
    Returns: for a model without labels a key for each of its directions; none where the template does not
    know the labels.
    Raises: FitError, Cancelled.
    """
    space = head.model.label_space
    if space is None:
        return _along_directions(head, fitter, points, on_progress)
    c, z = head.inversion.c, head.inversion.z
    calm = space.apply(c[0].cpu(), dict.fromkeys(space.layout.expressions, 0.0)).to(c)[None]
    wanted = edits(space, space.read(c[0]).get("male", 0.5))
    order = (NEUTRAL, *wanted)
    if "jawOpen" in wanted:
        wanted.pop(LIPS_MEET, None)
    codes = [space.apply(calm[0].cpu(), edit).to(c)[None] for edit in wanted.values()]
    where = np.concatenate([code.cpu().numpy() for code in (c, calm, *codes)])
    known = predict(fitter.template, space.layout, np.repeat(z.cpu().numpy(), len(where), 0), where)
    if known is None:
        return {}
    queries = _fields(head, [calm, *codes])
    rest_query = next(queries)
    report(on_progress, "shapes", 0.0, "Taking the expression away")
    rest = fitter.fit(rest_query, known[1])
    found: dict[str, Float64] = {NEUTRAL: rest - points}
    mover = Mover(fitter, rest, rest_query)
    moved = known[2:] - known[1]
    expression = np.array([name not in BODY and name != "gender" for name in wanted])
    starts = np.empty((len(moved), *rest.shape))
    starts[expression] = fitter.spread(rest, moved[expression], skull_stays=True)
    starts[~expression] = fitter.spread(rest, moved[~expression])
    for number, (name, query) in enumerate(zip(wanted, queries, strict=True)):
        report(on_progress, "shapes", _MADE * (1 + number) / (1 + len(wanted)), f"Shape key {name}")
        found[name] = mover.offsets(query, starts[number], bool(expression[number]), _SHUT.get(name, ()))
    for name in wanted:
        if name.startswith("eyeLook"):
            found[name] = fitter.eyes.turned(rest + found[name], *_gaze(name)) - rest
    keys = _shut(_sound(balanced(found, fitter.template.mirror), mover, on_progress), mover)
    if LIPS_MEET in order and LIPS_MEET not in keys:
        keys[LIPS_MEET] = mover.lips_meet(keys["jawOpen"])
    return {name: keys[name] for name in order}


def _along_directions(
    head: Head, fitter: Fitter, points: Float64, on_progress: OnProgress | None
) -> dict[str, Float64]:
    level = head.generator.config.surface_level
    mover = Mover(fitter, points, field_query(head.plain_field, level))
    found, names = {}, head.model.directions.names
    for number, name in enumerate(names):
        report(on_progress, "shapes", number / len(names), f"Shape key {name}")
        query = field_query(head.edit({name: 1.0}).plain_field, level)
        found[name] = mover.sound(mover.offsets(query, np.zeros_like(points), eyes_stay=False))
    return found


def _sound(keys: dict[str, Float64], mover: Mover, on_progress: OnProgress | None) -> dict[str, Float64]:
    """Balanced keys that cross themselves evened out, and still balanced."""
    mirror, result = mover.fitter.template.mirror, dict(keys)
    for number, name in enumerate(keys):
        report(on_progress, "shapes", _MADE + (1 - _MADE) * number / len(keys), "Evening shape keys out")
        if name != NEUTRAL and not name.endswith("Right"):
            result[name] = mover.sound(keys[name], mirror)
            if name.endswith("Left"):
                result[other_side(name)] = result[name][mirror] * _FLIP
    return result


def _shut(keys: dict[str, Float64], mover: Mover) -> dict[str, Float64]:
    """Keys whose lids meet again where balancing has parted them: on a face whose eyes differ, no movement
    that mirrors itself closes both."""
    closed = {name: mover.closed(keys[name], sides) for name, sides in _SHUT.items() if name in keys}
    return keys | closed


def _gaze(name: str) -> tuple[int, int, float]:
    """Which eye (0 the subject's left), axis and degrees of a key like eyeLookUpLeft."""
    right = name.endswith("Right")
    axis, degrees = _GAZE[name.removeprefix("eyeLook").removesuffix("Right").removesuffix("Left")]
    return int(right), axis, -degrees if right and axis == 0 else degrees


def _fields(head: Head, codes: Sequence[torch.Tensor]) -> Iterator[Query]:
    """The head's field under each code [1, c_dim], planes made in batches."""
    import torch

    generator, now = head.generator, head.inversion
    for start in range(0, len(codes), _BATCH):
        part = torch.cat(list(codes[start : start + _BATCH]))
        with torch.inference_mode():
            z = now.z.expand(len(part), -1)
            ws = now.w_plus + generator.map(z, part) - generator.map(now.z, now.c)
            planes = generator.planes(ws)
        for i in range(len(part)):
            yield field_query(generator.field(planes[i : i + 1]), generator.config.surface_level)


def _squared_edges(points: Float64, triangles: npt.NDArray[np.int32]) -> Float64:
    """Squared lengths [3, T] of triangles' sides."""
    a, b, c = (points[corner] for corner in triangles.T)
    return np.stack([np.einsum("ij,ij->i", side, side) for side in (b - a, c - b, a - c)])


class Mover:
    """Carries the vertices of one fitted head into edited fields of it.

    Args: rest: its vertices float64 [V, 3]; query: its field.
    """

    def __init__(self, fitter: Fitter, rest: Float64, query: Query) -> None:
        self.fitter, self.rest = fitter, rest
        self.kept = fitter.complete(rest, eyes_of=rest)
        self.level, _ = gradient(query, rest)
        self.solve = fitter.corrector()
        self._squared = np.maximum(_squared_edges(rest, fitter.template.triangles), 1e-18)
        self._free = ~fitter.template.tagged("neck_ring", "eyeball", "pocket", "rim")
        self._untangle = Untangler(fitter.template.faces, self._free)
        self._touching = fitter.template.tagged("lips", "lid", "bag")[fitter.template.triangles].any(1)

    def _suspects(self, offsets: Float64) -> npt.NDArray[np.bool_]:
        """Triangles [2 F] that may cross others under offsets [V, 3]: much stretched or squeezed ones, and
        those of lips and lids that move."""
        triangles = self.fitter.template.triangles
        ratio = _squared_edges(self.rest + offsets, triangles) / self._squared
        low, high = (limit**2 for limit in _STRAINED)
        strained = ((ratio < low) | (ratio > high)).any(0)
        moves = (np.abs(offsets).max(1) > _MOVES)[triangles].any(1)
        return np.asarray(strained | (self._touching & moves))

    def sound(self, offsets: Float64, mirror: npt.NDArray[np.int32] | None = None) -> Float64:
        """Offsets [V, 3] evened out where they make the surface cross itself, see `Untangler`; none where
        they are too small to count."""
        offsets, _ = self._untangle(self.rest, offsets, _UNTANGLINGS, self._suspects, mirror)
        offsets[np.linalg.norm(offsets, axis=1) < _LEAST] = 0.0
        return offsets

    def closed(self, offsets: Float64, sides: tuple[int, ...]) -> Float64:
        """Sound offsets [V, 3] with the lids of some eyes (1: the subject's left, -1: right) meeting."""
        return self.sound(self.fitter.shut(self.rest + offsets, sides) - self.rest)

    def lips_meet(self, jaw: Float64) -> Float64:
        """Offsets [V, 3] that close the mouth which the offsets `jaw` [V, 3] open, sound on top of them."""
        template = self.fitter.template
        own = closing(template, self.fitter.pairs, jaw)
        own = 0.5 * (own + own[template.mirror] * _FLIP)
        meeting = Untangler(template.faces, self._free & ~template.tagged("lip_line"))
        found, _ = meeting(
            self.rest + jaw, own, _UNTANGLINGS, lambda offsets: self._suspects(jaw + offsets), template.mirror
        )
        found[np.linalg.norm(found, axis=1) < _LEAST] = 0.0
        return found

    def offsets(
        self, query: Query, start: Float64, eyes_stay: bool = True, shut: tuple[int, ...] = ()
    ) -> Float64:
        """Offsets [V, 3] into an edited field.

        Args:
            start: offsets [V, 3] to begin with, as the anchors predict them. eyes_stay: eyeballs keep their
            place, lids slide over them, and ears do not follow the field; else eyeballs are laid anew.
            shut: eyes whose lids meet, see
            `Fitter.shut`.
        """
        fitter, rest, shift = self.fitter, self.rest, start
        weight = fitter.data_weight * fitter.off_ears if eyes_stay else fitter.data_weight
        for _ in range(_ROUNDS):
            now = rest + shift
            normals = vertex_normals(now.astype(np.float32), fitter.template.triangles)
            value, slope = gradient(query, now)
            length = np.linalg.norm(slope, axis=1)
            away = slope / np.maximum(length, 1e-6)[:, None]
            trust = (((away * normals).sum(1) - 0.1) / 0.5).clip(0, 1)
            step = ((self.level - value) / np.maximum(length, 0.3)).clip(-_REACH, _REACH) * trust
            shift = shift + self.solve((weight * step)[:, None] * away)
        moved = rest + shift
        if shut:
            moved = fitter.shut(moved, shut)
        moved = fitter.complete(moved, eyes_of=rest if eyes_stay else None)
        for side in shut:
            moved = fitter.eyes.sunk(moved, 0 if side > 0 else 1)
        return np.asarray(moved - (self.kept if eyes_stay else rest), np.float64)


def balanced(keys: dict[str, Float64], mirror: npt.NDArray[np.int32]) -> dict[str, Float64]:
    """Keys that mirror each other: Left and Right ones as a pair, all others in themselves; not `neutral`,
    since a face is as lopsided as it is."""
    result = dict(keys)
    for name, offsets in keys.items():
        if name != NEUTRAL:
            result[name] = 0.5 * (offsets + keys[other_side(name)][mirror] * _FLIP)
    return result
