"""What the local branch adds: held-out heads inverted with and without it, seen from all sides, edited.

PSNR is taken inside the true mask, on sRGB in 0..1. A column's gain is the mean over heads of the difference
between the two; surfaces are the same by construction, so nothing else is compared.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geoinv_core.errors import ModelError, PhotoError
from geoinv_core.evaluate.edits import compare_edit
from geoinv_core.evaluate.generator import layout_of
from geoinv_core.evaluate.inversion import photo_of
from geoinv_core.evaluate.measures import mean_of, psnr
from geoinv_core.evaluate.sheet import sheet
from geoinv_core.evaluate.truth import draw_truth
from geoinv_core.head import Head
from geoinv_core.heads import HeadAssets, sample
from geoinv_core.model import Model

VIEWS: dict[str, float] = {"0": 0, "+30": 30, "-30": -30, "+60": 60, "-60": -60}
_EDITED = ("smile", "jawOpen", "browUp", "age+30")
_EDIT_VIEWS = ("0", "+30")


def without_detail(head: Head) -> Head:
    """The same head as its code alone says."""
    return replace(head, inversion=replace(head.inversion, detail=None))


def evaluate_detail(
    model: Model, assets: HeadAssets, seeds: list[int], size: int, edits: bool = True
) -> tuple[dict[str, float], Image.Image]:
    """Scores "coarse.VIEW", "detail.VIEW", "gain.VIEW" (dB; edits as "VIEW.EDIT"), seconds, and a sheet.

    Raises: ModelError for a model without a detail network.
    """
    if model.detail is None:
        raise ModelError(f"{model.name} has no detail network; train one with `geoinv train detail`.")
    layout = layout_of(model)
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
        pictures: list[NDArray[Any]] = [true.views["0"].rgb, true.views["+30"].rgb]
        for name, one in (("coarse", without_detail(head)), ("detail", head)):
            for view, truth in true.views.items():
                rgb, _, _ = one.look(truth.camera, size)
                row[f"{name}.{view}"] = psnr(rgb, truth.rgb, truth.mask > 0.5)
                if view in ("0", "+30", "-60"):
                    pictures.append(rgb)
            for edit in _EDITED if edits else ():
                for view in _EDIT_VIEWS:
                    scores, after, moved = compare_edit(one, true, assets, layout, edit, view)
                    row[f"{name}.{view}.{edit}"] = scores["psnr_after"]
                    if edit == "smile" and view == "0":
                        pictures += [after, moved] if name == "coarse" else [moved]
        for key in [k for k in row if k.startswith("coarse.")]:
            place = key.removeprefix("coarse.")
            row[f"gain.{place}"] = row[f"detail.{place}"] - row[key]
        rows.append(row)
        shown.append((str(seed), pictures))
    scores = mean_of(rows)
    scores["faces_missed"] = float(missed)
    for degrees in ("30", "60"):
        scores[f"gain.{degrees}"] = float(np.mean([scores[f"gain.{s}{degrees}"] for s in "+-"]))
    smile = (["true smile", "coarse smile"], ["detail smile"]) if edits else ([], [])
    three = ("0", "+30", "-60")
    columns = ["true 0", "true +30", *(f"coarse {v}" for v in three), *smile[0]]
    return scores, sheet([*columns, *(f"detail {v}" for v in three), *smile[1]], shown)
