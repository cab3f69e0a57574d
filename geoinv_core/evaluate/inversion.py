"""Inversions of held-out heads by every method, against truth, from the photo's view and far from it.

A photo is one drawn picture with its own backdrop, its camera turned a little at random. Colours are sRGB
0..1; PSNR is taken inside the true mask, SSIM (as published) on the whole picture over the renderer's grey,
depth along the ray as the median over the head, Chamfer distance where no hair covers the skin. LPIPS is
there when the person brings its weights.

Heads as they are sampled mostly rest: a brow moves by an eighth of its range, one pair of eyes in 25 is shut.
How well expressions are read is better told by `even` ones, see `train.expressions`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from geoinv_core.camera import orbit
from geoinv_core.errors import GeoInvError, PhotoError
from geoinv_core.evaluate.generator import layout_of
from geoinv_core.evaluate.measures import compare_surface, compare_view, mean_of, ssim
from geoinv_core.evaluate.sheet import sheet
from geoinv_core.evaluate.truth import TrueHead, draw_truth, view_of
from geoinv_core.head import Head
from geoinv_core.heads import HeadAssets, picture, sample
from geoinv_core.invert.perceptual import Perceptual
from geoinv_core.model import Model
from geoinv_core.train.expressions import balanced

INPUT = "input"
SIDES: dict[str, float] = {f"{sign}{yaw}": float(f"{sign}{yaw}") for yaw in (15, 30, 60, 90) for sign in "+-"}
"""Views beside the photo's own: name to yaw in degrees."""
UNITS: Mapping[str, tuple[str, ...]] = {
    "jawOpen": ("jawOpen",),
    "mouthSmile": ("mouthSmileLeft", "mouthSmileRight"),
    "eyeBlink": ("eyeBlinkLeft", "eyeBlinkRight"),
    "browInnerUp": ("browInnerUp",),
}
"""Expressions whose estimates are correlated with truth over the heads."""
_PHOTO = 256
_TURN, _NOD = 20.0, 8.0  # degrees that a photo's camera may be turned
_SHOWN = 6
"""heads on the sheet"""


@dataclass(frozen=True)
class Method:
    """A row of the table."""

    name: str
    find: Callable[[Model, bytes, TrueHead], Head]
    needs: str = ""
    """"encoder" or "detail", without which the row is left out"""


def _invert(**options: Any) -> Callable[[Model, bytes, TrueHead], Head]:
    return lambda model, photo, true: model.invert(photo, **options)


def _coarse(**options: Any) -> Callable[[Model, bytes, TrueHead], Head]:
    """Without the local branch, whose features a head carries as `inversion.detail`."""

    def find(model: Model, photo: bytes, true: TrueHead) -> Head:
        head = model.invert(photo, **options)
        if getattr(head.inversion, "detail", None) is None:
            return head
        without: dict[str, Any] = {"detail": None}
        return replace(head, inversion=replace(head.inversion, **without))

    return find


METHODS: tuple[Method, ...] = (
    Method("mean head", lambda model, photo, true: model.mean_head()),
    Method("true labels", lambda model, photo, true: _of_labels(model, true)),
    Method("E0", _coarse(), "encoder"),
    Method("E0 + refine 50", _coarse(refine=50), "encoder"),
    Method("E0 + E1", _invert(), "detail"),
    Method("E0 + E1 + refine 50", _invert(refine=50), "detail"),
    Method("W 300", _coarse(refine=300, space="w", blind=True)),
    Method("W+ 300", _coarse(refine=300, space="w+", blind=True)),
    Method("PTI", _coarse(refine=300, space="w", blind=True, tune=100)),
)
"""What is compared. "true labels" is the generator's own limit: no inversion can be expected to beat it by
much."""
QUICK = ("mean head", "true labels", "E0", "E0 + E1")


@dataclass(frozen=True)
class Report:
    scores: dict[str, Any]
    """"rows": method to its figures; "heads", "faces_missed" """
    sheet: Image.Image


def _of_labels(model: Model, true: TrueHead) -> Head:
    layout = layout_of(model)
    z, c = (torch.from_numpy(v)[None].to(model.device) for v in layout.encode(true.labels))
    return model.head_of(z, c)


def photo_of(assets: HeadAssets, true: TrueHead, camera: Tensor | None = None) -> bytes:
    """A picture of a head over its own backdrop, from the front or another camera [25], as a PNG."""
    camera = orbit() if camera is None else camera
    front = picture(assets, true.layers, camera.to(assets.device), _PHOTO).rgb
    stream = io.BytesIO()
    Image.fromarray((front.cpu().numpy() * 255).round().astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def rotation_error(camera: Tensor, true: Tensor) -> float:
    """Degrees between the axes along which two cameras [25] look and the heads' upright in them."""
    a, b = (c[:16].view(4, 4)[:3, :3] for c in (camera, true))
    cosine = ((a * b).sum() - 1) / 2
    return math.degrees(math.acos(float(cosine.clamp(-1, 1))))


def truth_for(assets: HeadAssets, seed: int, size: int, even: bool = False) -> TrueHead:
    """A held-out head, `even`: with an evenly spread expression, seen from SIDES and, as INPUT, from where
    its photo is taken."""
    r = np.random.default_rng([20267, seed])
    labels = balanced(assets, seed) if even else sample(assets, seed)
    true = draw_truth(assets, labels, SIDES, size)
    camera = orbit(float(r.uniform(-_TURN, _TURN)), float(r.uniform(-_NOD, _NOD)))
    with torch.no_grad():
        own = view_of(assets, true.layers, camera.to(assets.device), size)
    return replace(true, views={INPUT: own, **true.views})


def compare(
    head: Head, true: TrueHead, lpips: Perceptual | None = None
) -> tuple[dict[str, float], list[NDArray[Any]]]:
    """PSNR, SSIM, mask overlap and depth error of a head per view, and the pictures."""
    result: dict[str, float] = {}
    pictures = []
    for name, view in true.views.items():
        scores, rgb = compare_view(head, view, true.unit_mm)
        scores["ssim"] = ssim(rgb, view.rgb)
        if lpips is not None:
            ours, theirs = (torch.from_numpy(x).permute(2, 0, 1)[None] * 2 - 1 for x in (rgb, view.rgb))
            with torch.inference_mode():
                scores["lpips"] = float(lpips(ours.to(head.model.device), theirs.to(head.model.device)))
        result |= {f"{k}.{name}": v for k, v in scores.items() if "." not in k}
        pictures.append(rgb)
    for yaw in (15, 30, 60, 90):
        for kind in ("psnr", "ssim", "depth_mm", "lpips"):
            pair = [result[k] for k in (f"{kind}.+{yaw}", f"{kind}.-{yaw}") if k in result]
            if pair:
                result[f"{kind}.{yaw}"] = float(np.mean(pair))
    return result, pictures


def label_errors(head: Head, true: TrueHead) -> dict[str, float]:
    """Absolute errors in natural units, for a head that has labels."""
    found = head.labels
    errors = {
        f"error.{name}": abs(found[name] - getattr(true.labels, name))
        for name in ("age", "male", "weight", "skin_tone")
        if name in found
    }
    for name, units in UNITS.items():
        if all(unit in found for unit in units):
            wanted = np.mean([true.labels.expression.get(unit, 0.0) for unit in units])
            errors[f"error.{name}"] = abs(float(np.mean([found[unit] for unit in units]) - wanted))
    return errors


def correlations(pairs: Sequence[tuple[Head, TrueHead]]) -> dict[str, float]:
    """Over heads, of estimated and true expressions; left out where one of them does not vary."""
    result = {}
    for name, units in UNITS.items():
        rows = [
            (
                float(np.mean([head.labels.get(unit, math.nan) for unit in units])),
                float(np.mean([true.labels.expression.get(unit, 0.0) for unit in units])),
            )
            for head, true in pairs
        ]
        ours, theirs = np.array(rows).T
        if len(rows) > 2 and np.isfinite(ours).all() and ours.std() > 1e-6 and theirs.std() > 1e-6:
            result[f"r.{name}"] = float(np.corrcoef(ours, theirs)[0, 1])
    return result


def methods_for(model: Model, names: Sequence[str] = ()) -> list[Method]:
    """The rows that this model can have. Raises GeoInvError for an unknown name."""
    known = {method.name: method for method in METHODS}
    for name in names:
        if name not in known:
            raise GeoInvError(f"There is no method {name}; choose from {', '.join(known)}.", "usage")
    have = {"": True, "encoder": model.encoder is not None, "detail": getattr(model, "detail", None)}
    return [m for m in METHODS if (not names or m.name in names) and have[m.needs]]


def evaluate_inversion(
    model: Model,
    assets: HeadAssets,
    seeds: Sequence[int],
    size: int,
    names: Sequence[str] = (),
    surface: bool = True,
    lpips: Sequence[Path] = (),
    on_head: Callable[[int, str], None] = lambda done, text: None,
    even: bool = False,
) -> Report:
    """Measure methods (all that the model can have, or those named) on the heads of `seeds` at `size` pixels.

    even: with evenly spread expressions, see `truth_for`.
    on_head is told the number of heads done and a line about the last one.
    """
    layout_of(model)
    methods = methods_for(model, names)
    distance = None
    if lpips:
        from geoinv_core.invert.lpips import load_lpips

        distance = load_lpips(lpips, model.device)
    rows: dict[str, list[dict[str, float]]] = {method.name: [] for method in methods}
    pairs: dict[str, list[tuple[Head, TrueHead]]] = {method.name: [] for method in methods}
    shown: list[tuple[str, list[NDArray[Any]]]] = []
    missed = 0
    for i, seed in enumerate(seeds):
        true = truth_for(assets, seed, size, even)
        photo = photo_of(assets, true, true.views[INPUT].camera)
        if i < _SHOWN:
            shown.append((f"{seed}\ntruth", [view.rgb for view in true.views.values()]))
        lines = []
        for method in methods:
            try:
                head = method.find(model, photo, true)
            except PhotoError:
                missed += 1
                break
            scores, pictures = compare(head, true, distance)
            scores |= label_errors(head, true)
            if surface:
                scores["chamfer_mm"] = compare_surface(head, true, assets)["chamfer_mm"]
            if head.inversion.photo is not None:
                scores["camera_degrees"] = rotation_error(head.camera, true.views[INPUT].camera)
                scores["seconds"] = sum(v for k, v in head.timings.items() if k != "detect")
            rows[method.name].append(scores)
            # only labels are needed of it later, not its planes
            pairs[method.name].append((Head(head.model, head.inversion), true))
            if i < _SHOWN:
                shown.append((f"{method.name}\n\n{scores[f'psnr.{INPUT}']:.1f} dB", pictures))
            lines.append(f"{method.name} {scores[f'psnr.{INPUT}']:.1f}")
        on_head(i + 1, ", ".join(lines) + " dB")
    found = {}
    for name, scored in rows.items():
        if not scored:
            continue
        found[name] = mean_of(scored) | correlations(pairs[name])
        for key in ("camera_degrees", f"depth_mm.{INPUT}"):
            if key in scored[0]:
                found[name][f"median.{key}"] = float(np.median([s[key] for s in scored]))
    told = {"heads": len(seeds), "even": even, "faces_missed": missed, "rows": found}
    return Report(told, sheet([INPUT, *SIDES], shown))


_COLUMNS = (
    *(("psnr." + v, f"PSNR {v}") for v in (INPUT, "15", "30", "60", "90")),
    *(("ssim." + v, f"SSIM {v}") for v in (INPUT, "30")),
    *(("lpips." + v, f"LPIPS {v}") for v in (INPUT, "30")),
    *(("depth_mm." + v, f"mm {v}") for v in (INPUT, "30", "60")),
    ("chamfer_mm", "Chamfer"),
    ("median.camera_degrees", "camera°"),
    ("error.age", "years"),
    *((f"r.{n}", f"r {n}") for n in UNITS),
    ("seconds", "seconds"),
)


def table(scores: Mapping[str, Any]) -> str:
    """The report for a person; columns that no row has are left out."""
    rows = scores["rows"]
    columns = [(key, title) for key, title in _COLUMNS if any(key in row for row in rows.values())]
    lines = [f"{'':>20} " + " ".join(f"{title:>{max(8, len(title))}}" for _, title in columns)]
    for name, row in rows.items():
        cells = [
            f"{row[key]:{max(8, len(title))}.2f}" if key in row else " " * max(8, len(title))
            for key, title in columns
        ]
        lines.append(f"{name:>20} " + " ".join(cells))
    return "\n".join(lines)
