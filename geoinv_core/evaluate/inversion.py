"""Inversions of front pictures of held-out heads against truth, at the input view and +-30 degrees.

PSNR is taken inside the true mask, on sRGB in 0..1, averaged over heads; every figure stands beside that of
the model's mean head.
"""

from __future__ import annotations

import io
import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from geoinv_core.camera import orbit
from geoinv_core.errors import PhotoError
from geoinv_core.evaluate.generator import layout_of
from geoinv_core.evaluate.measures import compare_view, mean_of
from geoinv_core.evaluate.sheet import sheet
from geoinv_core.evaluate.truth import TrueHead, draw_truth
from geoinv_core.head import Head
from geoinv_core.heads import HeadAssets, picture, sample
from geoinv_core.model import Model

VIEWS: dict[str, float] = {"front": 0, "+30": 30, "-30": -30}
_PHOTO = 256


def photo_of(assets: HeadAssets, true: TrueHead) -> bytes:
    """The front view over its own backdrop, as a PNG."""
    front = picture(assets, true.layers, orbit().to(assets.device), _PHOTO).rgb
    stream = io.BytesIO()
    Image.fromarray((front.cpu().numpy() * 255).round().astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def compare(head: Head, true: TrueHead) -> tuple[dict[str, float], list[NDArray[Any]]]:
    """PSNR, mask overlap and depth error of a head per view, and the pictures."""
    result: dict[str, float] = {}
    pictures = []
    for name, view in true.views.items():
        scores, rgb = compare_view(head, view, true.unit_mm)
        result |= {f"{k}.{name}": v for k, v in scores.items() if "." not in k}
        pictures.append(rgb)
    return result, pictures


def rotation_error(camera: Tensor, yaw: float) -> float:
    """Degrees between a camera's orientation and that of the orbit camera at `yaw`."""
    a, b = camera[:16].view(4, 4)[:3, :3], orbit(yaw)[:16].view(4, 4)[:3, :3]
    cosine = ((a * b).sum() - 1) / 2
    return math.degrees(math.acos(float(cosine.clamp(-1, 1))))


def evaluate_inversion(
    model: Model, assets: HeadAssets, seeds: list[int], size: int, refine: int
) -> tuple[dict[str, float], Image.Image]:
    """Inversions of front pictures against truth at the input view and +-30 degrees."""
    layout_of(model)
    mean = model.mean_head()
    rows, shown, missed = [], [], 0
    for seed in seeds:
        true = draw_truth(assets, sample(assets, seed), VIEWS, size)
        start = time.perf_counter()
        try:
            head = model.invert(photo_of(assets, true), refine=refine)
        except PhotoError:
            missed += 1
            continue
        seconds = time.perf_counter() - start
        ours, pictures = compare(head, true)
        base, _ = compare(mean, true)
        ours["camera_degrees"] = rotation_error(head.camera, 0)
        ours["seconds"] = seconds
        ours["age_error"] = abs(head.labels["age"] - true.labels.age)
        ours["skin_tone_error"] = abs(head.labels["skin_tone"] - true.labels.skin_tone)
        ours["jawOpen_error"] = abs(head.labels["jawOpen"] - true.labels.expression.get("jawOpen", 0.0))
        rows.append(ours | {f"mean_head.{k}": v for k, v in base.items() if k.startswith("psnr")})
        shown.append((str(seed), [*(view.rgb for view in true.views.values()), *pictures]))
    scores = mean_of(rows)
    scores["camera_degrees"] = float(np.median([r["camera_degrees"] for r in rows]))
    scores["faces_missed"] = float(missed)
    scores["gain_db.front"] = scores["psnr.front"] - scores["mean_head.psnr.front"]
    scores["gain_db.30"] = float(
        np.mean([scores[f"psnr.{v}"] - scores[f"mean_head.psnr.{v}"] for v in ("+30", "-30")])
    )
    return scores, sheet([*VIEWS, *(f"model {n}" for n in VIEWS)], shown)
