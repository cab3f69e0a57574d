"""Make the head template from a model's own mean head: python -m geoinv_core.mesh.template_build

The cage (`cage`) is wrapped onto the zero level set of the model's neutral, hairless mean head, unwrapped,
and given landmarks and anchors. With head data (--heads or GEOINV_HEADS) the anchors' regression is learned
anew; without, it is taken over from the file that is replaced. The result is checked (`template_check`)
before it is written: what has folds, crossings or halves that differ is refused.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from geoinv_core.errors import GeoInvError
from geoinv_core.mesh.anchors import feature_names, learn
from geoinv_core.mesh.cage import TAGS, around, cage, front
from geoinv_core.mesh.lattice import Query, field_query
from geoinv_core.mesh.opening import without_lumps
from geoinv_core.mesh.template import FILE, Template, load, save
from geoinv_core.mesh.template_check import problems
from geoinv_core.mesh.unwrap_template import unwrap
from geoinv_core.mesh.wrap import cast, symmetric, wrap

if TYPE_CHECKING:
    from geoinv_core.edit import Labels
    from geoinv_core.model import Model

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]

NEUTRAL_HAIR, NEUTRAL = "bald", {"beard": 0.0, "neckline": 0.55}
"""The mean head without what hides its skin; every other label is at its centre."""
ANCHORED = ("rim", "vermilion", "lip_line", "helix")
"""Curves whose vertices in the cage become anchors."""
HEADS = 3000

# Left half (x, y from the front; degrees from the front, y) in iBUG's order, from the middle outwards.
_JAW = (
    front(0.029, -0.236), front(0.058, -0.222), front(0.083, -0.200), around(57, -0.165), around(66, -0.127),
    around(72, -0.083), around(76, -0.038), around(77, 0.006),
)  # fmt: skip
_BROW = ((0.022, 0.050), (0.042, 0.058), (0.065, 0.061), (0.089, 0.057), (0.112, 0.044))
_NOSE_RIDGE = ((0.0, 0.016), (0.0, -0.013), (0.0, -0.043), (0.0, -0.074))
_NOSE_BASE = ((0.0, -0.104), (0.015, -0.102), (0.029, -0.097))
_EYE = (
    (0.0398, 0.0103),
    (0.0555, 0.021),
    (0.0826, 0.021),
    (0.0982, 0.0115),
    (0.0826, 0.0038),
    (0.0555, 0.0037),
)
_OUTER_LIP = (
    (0.0, -0.1326),
    (0.0135, -0.130),
    (0.034, -0.1365),
    (0.0622, -0.1486),
    (0.042, -0.1615),
    (0.022, -0.1695),
)
_OUTER_LIP_LOW = (0.0, -0.1722)
_INNER_LIP = ((0.0, -0.147), (0.027, -0.147), (0.0572, -0.1481), (0.027, -0.149), (0.0, -0.149))


def build(model_name: str = "default", heads: Path | None = None, count: int = HEADS) -> Template:
    """The template of a model. Raises: ModelError, GeoInvError for head data that is not there."""
    from geoinv_core.model import open_model

    model = open_model(model_name, "cpu")
    if model.label_space is None:
        raise GeoInvError("The template needs a model with labels, for a head without hair.", "template")
    field = neutral_query(model, model.label_space)
    query = symmetric(without_lumps(field, model.generator.config.box_warp))
    points, faces, tags, mirror = wrap(cage(), query)
    landmarks = place_landmarks(points, tags, mirror, query)
    vertices = points.astype(np.float32)
    uv = unwrap(vertices, faces, tags, mirror)
    anchors = choose_anchors(points, tags, landmarks)
    layout = model.label_space.layout
    if heads is None:
        old = load()
        if not np.array_equal(old.anchors, anchors):
            raise GeoInvError(
                "The template's anchors have changed, so their regression has to be learned anew; "
                "give the head data with --heads FOLDER.",
                "template",
            )
        return Template(vertices, faces, uv, mirror, landmarks, tags, anchors, old.weights, old.features)
    from geoinv_core.heads.assets import HeadAssets

    lips = lips_of(points, tags)[anchors]
    weights, error = learn(HeadAssets.open(heads), layout, points[anchors], lips, count)
    millimetres = error * model.generator.config.unit_mm
    print(f"{len(anchors)} anchors, mean error on heads that were not used: {millimetres:.2f} mm")
    names = feature_names(layout)
    return Template(vertices, faces, uv, mirror, landmarks, tags, anchors, weights, names)


def choose_anchors(points: Float64, tags: Bool, landmarks: Int32) -> Int32:
    """Landmarks, and the cage's own vertices on lids, lips and ears."""
    own = np.arange(len(points)) < len(cage().mirror)
    curves = tags[:, [TAGS.index(name) for name in ANCHORED]].any(1)
    return np.union1d(landmarks, np.flatnonzero(own & curves)).astype(np.int32)


def lips_of(points: Float64, tags: Bool) -> npt.NDArray[np.int8]:
    """int8 [V]: 1 on the upper lip, -1 on the lower one, 0 elsewhere and from the corners outwards."""
    line = np.flatnonzero(tags[:, TAGS.index("lip_line")])
    x, y, _ = points[line[points[line, 0].argmax()]]
    between = tags[:, TAGS.index("lips")] & (np.abs(points[:, 0]) < x - 1e-6)
    return np.where(between, np.sign(points[:, 1] - y), 0).astype(np.int8)


def neutral_query(model: Model, space: Labels) -> Query:
    """The field of the model's mean head with the labels of NEUTRAL."""
    import torch

    config = model.generator.config
    c = torch.zeros(config.c_dim)
    natural = {f"hair:{hair}": float(hair == NEUTRAL_HAIR) for hair in space.layout.choices["hair"]}
    for name, value in (NEUTRAL | natural).items():
        at = space.index[name]
        c[at] = (value - space.centre[at]) / space.spread[at]
    head = model.head_of(torch.zeros(1, config.z_dim), c[None])
    return field_query(head.plain_field)


def place_landmarks(points: Float64, tags: Bool, mirror: Int32, query: Query) -> Int32:
    """The 68 landmarks (iBUG's order) as vertices: nearest to their places on the left half, and mirrored."""

    def among(*names: str) -> Bool:
        found: Bool = tags[:, [TAGS.index(name) for name in names]].any(1)
        return found

    hidden = among("bag", "pocket", "eyeball") & ~among("rim", "lip_line")
    left = points[:, 0] > -1e-9
    skin = left & ~hidden & ~among("ear") & (points[:, 2] > -0.1)

    def flat(places: tuple[tuple[float, float], ...], allowed: Bool) -> list[int]:
        at = np.flatnonzero(allowed & (points[:, 2] > 0.05))
        off = points[at, None, :2] - np.array(places)
        return at[np.square(off).sum(2).argmin(0)].tolist()  # type: ignore[no-any-return]

    starts, ways = (np.array(part) for part in zip(*_JAW, strict=True))
    at = np.flatnonzero(skin)
    jaw = at[np.square(points[at, None] - cast(query, starts, ways)).sum(2).argmin(0)].tolist()
    middle = skin & among("middle")
    start, way = front(0.0, -0.240)
    below = cast(query, np.array([start]), np.array([way]))
    chin = at[np.square(points[at] - below).sum(1).argmin()]
    brow, base = flat(_BROW, skin), flat(_NOSE_BASE, skin)
    ridge = flat(_NOSE_RIDGE, middle)
    eye = flat(_EYE, left & among("rim"))  # inner corner, upper inner, upper outer, outer, lower outer, ...
    red, line = left & among("vermilion"), left & among("lip_line")
    lip = lips_of(points, tags)
    outer_up, outer_low = flat(_OUTER_LIP[:4], red), flat((*_OUTER_LIP[4:], _OUTER_LIP_LOW), red)
    inner_up, inner_low = flat(_INNER_LIP[:3], line & (lip >= 0)), flat(_INNER_LIP[3:], line & (lip <= 0))

    def other(numbers: list[int]) -> list[int]:
        return [int(mirror[n]) for n in numbers]

    order = [
        *other(jaw[::-1]), int(chin), *jaw,
        *other(brow[::-1]), *brow,
        *ridge, *other(base[:0:-1]), *base,
        *other([eye[3], eye[2], eye[1], eye[0], eye[5], eye[4]]), *eye,
        *other(outer_up[:0:-1]), *outer_up, *outer_low[:2], outer_low[2], *other(outer_low[1::-1]),
        *other(inner_up[:0:-1]), *inner_up, *inner_low, *other(inner_low[:1]),
    ]  # fmt: skip
    return np.array(order, np.int32)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="geoinv_core.mesh.template_build", description=__doc__)
    parser.add_argument("--model", default="default", help="a model's name or file")
    parser.add_argument("--heads", type=Path, help="folder of the head data (default: GEOINV_HEADS)")
    parser.add_argument("--count", type=int, default=HEADS, help="heads to learn the anchors from")
    parser.add_argument("-o", "--output", type=Path, default=FILE)
    given = parser.parse_args(arguments)
    named = os.environ.get("GEOINV_HEADS")
    start = time.perf_counter()
    try:
        made = build(given.model, given.heads or (Path(named) if named else None), given.count)
        wrong = problems(made)
        if wrong:
            raise GeoInvError(
                f"The template of {given.model} was not written: {'; '.join(wrong)}. Train the model "
                f"further, or keep {given.output.name} as it is, which fits any model with these labels.",
                "template",
            )
    except GeoInvError as error:
        print(error, file=sys.stderr)
        return 1
    save(made, given.output)
    size = given.output.stat().st_size / 1e6
    print(
        f"{given.output.name}: {len(made.vertices)} vertices, {len(made.faces)} quads, {size:.2f} MB, "
        f"{time.perf_counter() - start:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
