"""The generator with true labels against held-out heads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from geoinv_core.errors import ModelError
from geoinv_core.evaluate.edits import EDITS, compare_edit
from geoinv_core.evaluate.measures import compare_surface, compare_view, mean_of, psnr
from geoinv_core.evaluate.sheet import sheet
from geoinv_core.evaluate.truth import REGIONS, draw_truth
from geoinv_core.heads import HeadAssets, HeadLabels, LabelLayout, sample
from geoinv_core.model import Model

VIEWS: dict[str, float] = {"front": 0, "+30": 30, "-30": -30, "+90": 90, "-90": -90, "back": 180}
_FRONT, _SIDES = ("front", "+30", "-30"), ("+90", "-90", "back")
_SHOWN = 12
"""heads on the sheet"""


@dataclass(frozen=True)
class Report:
    """Figures as JSON can hold them, and a picture."""

    scores: dict[str, Any]
    sheet: Image.Image


def layout_of(model: Model) -> LabelLayout:
    if model.label_space is None:
        raise ModelError(
            f"{model.name} cannot be measured on labelled heads because it has no labels; "
            "name a labelled model."
        )
    return model.label_space.layout


def kept_out(model: Model) -> dict[str, list[str]]:
    """Skins, hair styles and brows that the model's training never showed."""
    found: dict[str, list[str]] = model.meta.get("kept_out") or {}
    return found


def groups_of(labels: HeadLabels, unseen: dict[str, list[str]]) -> list[str]:
    """The label groups that a head belongs to."""
    stage = (
        "child" if labels.age < 17 else "young" if labels.age < 40 else "middle" if labels.age < 62 else "old"
    )
    tone = "light" if labels.skin_tone < 0.33 else "medium" if labels.skin_tone < 0.58 else "dark"
    loud = max((v for k, v in labels.expression.items() if not k.startswith("eye")), default=0.0) > 0.4
    groups = [
        f"age:{stage}",
        f"sex:{'male' if labels.male > 0.5 else 'female'}",
        f"skin_tone:{tone}",
        f"hair:{labels.hair}",
        f"beard:{'yes' if labels.beard > 0.1 else 'no'}",
        f"expression:{'strong' if loud else 'mild'}",
    ]
    if unseen:
        groups.append(f"parts:{'unseen' if labels.wears(unseen) else 'seen'}")
    return groups


def evaluate_generator(
    model: Model,
    assets: HeadAssets,
    seeds: Sequence[int],
    size: int,
    edits: bool = True,
    surface: bool = True,
    on_head: Callable[[int, str], None] = lambda done, text: None,
) -> Report:
    """Measure the generator on the heads of `seeds`.

    Colour, outline, depth and normals from six views at `size` pixels; the surface; and, from the front, the
    edits. A label value that training never showed (see kept_out) is left blank: the model knows nothing
    about it. on_head is told the number of heads done and a line about the last one.
    """
    layout, unseen = layout_of(model), kept_out(model)
    mean = model.mean_head()
    mean_pictures: dict[str, NDArray[Any]] = {}
    heads: list[dict[str, float]] = []
    views: dict[str, list[dict[str, float]]] = {name: [] for name in VIEWS}
    changes: dict[str, list[dict[str, float]]] = {name: [] for name in EDITS} if edits else {}
    groups: dict[str, list[int]] = {}
    rows: list[tuple[str, list[NDArray[Any]]]] = []
    start = time.perf_counter()
    for i, seed in enumerate(seeds):
        labels = sample(assets, seed)
        true = draw_truth(assets, labels, VIEWS, size)
        z, c = (torch.from_numpy(v)[None].to(model.device) for v in layout.encode(labels))
        for kind, values in unseen.items():
            for value in values:
                c[0, layout.names.index(f"{kind}:{value}")] = 0.0
        head = model.head_of(z, c)
        found, pictures, truths = [], [], []
        for name, view in true.views.items():
            if name not in mean_pictures:
                mean_pictures[name] = mean.look(view.camera, size)[0]
            scores, picture = compare_view(head, view, true.unit_mm)
            scores["mean_head.psnr"] = psnr(mean_pictures[name], view.rgb, view.mask > 0.5)
            views[name].append(scores)
            found.append(scores)
            pictures.append(picture)
            truths.append(view.rgb)
        whole = mean_of(found)
        if surface:
            whole |= {f"surface.{k}": v for k, v in compare_surface(head, true, assets).items()}
        for name in changes:
            scores, edited, moved = compare_edit(head, true, assets, layout, name, "front")
            changes[name].append(scores)
            truths.append(edited)
            pictures.append(moved)
        heads.append(whole)
        for group in groups_of(labels, unseen):
            groups.setdefault(group, []).append(i)
        if i < _SHOWN:
            rows += [(_caption(labels, whole), truths), ("model", pictures)]
        on_head(i + 1, f"{whole['psnr']:.1f} dB")
    scores_all: dict[str, Any] = {
        "summary": {},
        "all": mean_of(heads),
        "views": {name: mean_of(rows_of) for name, rows_of in views.items()},
        "regions": _by_region(heads),
        "groups": {
            name: {"heads": len(at), **_headline(mean_of(heads[i] for i in at))}
            for name, at in sorted(groups.items())
        },
        "edits": {name: mean_of(rows_of) for name, rows_of in changes.items()},
        "kept_out": unseen,
        "seconds": round(time.perf_counter() - start, 1),
    }
    scores_all["all"] = {k: v for k, v in scores_all["all"].items() if k.rpartition(".")[2] not in REGIONS}
    scores_all["summary"] = _summary(scores_all)
    return Report(scores_all, sheet([*VIEWS, *changes], rows))


def _summary(s: dict[str, Any]) -> dict[str, float]:
    """The figures by which models are compared."""
    views, whole = s["views"], s["all"]
    result = {
        "psnr_front_30": float(np.mean([views[v]["psnr"] for v in _FRONT])),
        "psnr_90_back": float(np.mean([views[v]["psnr"] for v in _SIDES])),
        "psnr": whole["psnr"],
        "gain_db": whole["psnr"] - whole["mean_head.psnr"],
        "iou": whole["iou"],
        "depth_mm": whole["depth_mm"],
        "normal_degrees": whole["normal_degrees"],
    }
    if "surface.chamfer_mm" in whole:
        result["chamfer_mm"] = whole["surface.chamfer_mm"]
    if s["edits"]:
        for name, worst in (("drop_db", max), ("outside", max), ("realised", min)):
            result[f"edits.worst_{name}"] = worst(e[name] for e in s["edits"].values() if name in e)
    return result


def _by_region(heads: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    whole = mean_of(heads)
    return {
        region: {k.removesuffix(f".{region}"): v for k, v in whole.items() if k.endswith(f".{region}")}
        for region in REGIONS
    }


def _headline(scores: dict[str, float]) -> dict[str, float]:
    wanted = ("psnr", "iou", "depth_mm", "normal_degrees", "surface.chamfer_mm")
    return {k: scores[k] for k in wanted if k in scores}


def _caption(labels: HeadLabels, scores: dict[str, float]) -> str:
    sex = "male" if labels.male > 0.5 else "female"
    who = f"{labels.seed}\n{sex}, {labels.age:.0f}\n{labels.hair}"
    return f"{who}\n\n{scores['psnr']:.1f} dB\n{scores['depth_mm']:.1f} mm"


def table(s: dict[str, Any]) -> str:
    """The report for a person."""
    lines = [f"{k:>24} {v:9.3f}" for k, v in s["summary"].items()]
    keys: Sequence[str] = (
        "psnr",
        "mean_head.psnr",
        "iou",
        "depth_mm",
        "normal_degrees",
        "surface.chamfer_mm",
    )
    for block in ("views", "regions", "groups"):
        lines += ["", f"{block:>24} " + " ".join(f"{k.removeprefix('surface.'):>15}" for k in keys)]
        for name, row in s[block].items():
            cells = " ".join(f"{row[k]:15.3f}" if k in row else " " * 15 for k in keys)
            lines.append(f"{name:>24} {cells}" + (f"  ({row['heads']} heads)" if "heads" in row else ""))
    if s["edits"]:
        scored = ("psnr_before", "psnr_after", "drop_db", "psnr_ignored", "realised", "outside")
        keys = (*scored, "outside_apart", "unchanged_share", "apart_share")
        lines += ["", f"{'edits':>24} " + " ".join(f"{k:>15}" for k in keys)]
        for name, row in s["edits"].items():
            lines.append(f"{name:>24} " + " ".join(f"{row.get(k, float('nan')):15.3f}" for k in keys))
    return "\n".join(lines)
