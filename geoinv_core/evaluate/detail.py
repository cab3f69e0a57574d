"""What the local branch adds: held-out heads inverted with and without it, seen from all sides, edited.

PSNR is taken inside the true mask, on sRGB in 0..1. A column's gain is the mean over heads of the difference
between the two; surfaces are the same by construction, so nothing else is compared.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from geoinv_core.errors import ModelError, PhotoError
from geoinv_core.evaluate.edits import EDITS
from geoinv_core.evaluate.inversion import photo_of
from geoinv_core.evaluate.measures import mean_of, psnr
from geoinv_core.evaluate.sheet import sheet
from geoinv_core.evaluate.truth import TrueHead, TrueView, draw_truth
from geoinv_core.head import Head
from geoinv_core.heads import HeadAssets, sample
from geoinv_core.model import Model

VIEWS: dict[str, float] = {"0": 0, "+30": 30, "-30": -30, "+60": 60, "-60": -60}
_SHOWN = ("0", "+30", "-60")
_EDITED = ("smile", "jawOpen", "browUp", "age+30")
_EDIT_VIEWS = ("0", "+30")


def without_detail(head: Head) -> Head:
    """The same head as its code alone says."""
    return replace(head, inversion=replace(head.inversion, detail=None))


def truly_edited(
    model: Model, assets: HeadAssets, true: TrueHead, edits: Mapping[str, float], size: int
) -> Mapping[str, TrueView]:
    """The same edits on the true head's own labels, drawn. Raises ModelError for a model without labels."""
    space = model.label_space
    if space is None:
        raise ModelError(f"{model.name} has no labels, so there is no true picture of an edit.")
    _, c = space.layout.encode(true.labels)
    labels = space.layout.decode(space.apply(torch.from_numpy(c), edits).numpy(), true.labels)
    return draw_truth(assets, labels, {view: VIEWS[view] for view in _EDIT_VIEWS}, size).views


def evaluate_detail(
    model: Model, assets: HeadAssets, seeds: list[int], size: int, edits: bool = True
) -> tuple[dict[str, float], Image.Image]:
    """Scores "coarse.VIEW", "detail.VIEW", "gain.VIEW" (dB; edits as "VIEW.EDIT"), seconds, and a sheet.

    Raises: ModelError for a model without a detail network.
    """
    if model.detail is None:
        raise ModelError(f"{model.name} has no detail network; train one with `geoinv train detail`.")
    rows, shown, missed = [], [], 0
    for seed in seeds:
        true = draw_truth(assets, sample(assets, seed), VIEWS, size)
        start = time.process_time()
        try:
            head = model.invert(photo_of(assets, true))
        except PhotoError:
            missed += 1
            continue
        row = {"cpu_seconds": time.process_time() - start}
        row |= {f"seconds.{k}": v for k, v in head.timings.items()}
        asked = {name: EDITS[name](true.labels) for name in _EDITED} if edits else {}
        afters = {name: truly_edited(model, assets, true, change, size) for name, change in asked.items()}
        pictures: list[NDArray[Any]] = [true.views[view].rgb for view in _SHOWN]
        pictures += [after["0"].rgb for name, after in afters.items() if name == "smile"]
        for name, one in (("coarse", without_detail(head)), ("detail", head)):
            for view, truth in true.views.items():
                rgb, _, _ = one.look(truth.camera, size)
                row[f"{name}.{view}"] = psnr(rgb, truth.rgb, truth.mask > 0.5)
                if view in _SHOWN:
                    pictures.append(rgb)
            for edit, after in afters.items():
                edited = one.edit(asked[edit])
                for view, truth in after.items():
                    rgb, _, _ = edited.look(truth.camera, size)
                    row[f"{name}.{view}.{edit}"] = psnr(rgb, truth.rgb, truth.mask > 0.5)
                    if edit == "smile" and view == "0":
                        pictures.append(rgb)
        for place in [key.removeprefix("coarse.") for key in row if key.startswith("coarse.")]:
            row[f"gain.{place}"] = row[f"detail.{place}"] - row[f"coarse.{place}"]
        rows.append(row)
        shown.append((str(seed), pictures))
    scores = mean_of(rows)
    scores["faces_missed"] = float(missed)
    for degrees in ("30", "60"):
        scores[f"gain.{degrees}"] = float(np.mean([scores[f"gain.{s}{degrees}"] for s in "+-"]))
    for view in _EDIT_VIEWS if edits else ():
        scores[f"gain.edits.{view}"] = float(np.mean([scores[f"gain.{view}.{e}"] for e in _EDITED]))
    captions = [*_SHOWN, "smile"] if edits else [*_SHOWN]
    return scores, sheet([f"{what} {c}" for what in ("true", "coarse", "detail") for c in captions], shown)
