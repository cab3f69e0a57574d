"""Measure a model on held-out heads: `geoinv evaluate generator|inversion`.

Truth is drawn on the spot from evaluation seeds. PSNR is taken inside the true mask, on sRGB in 0..1,
averaged over
heads; every figure stands beside that of the model's mean head.
"""

from __future__ import annotations

import argparse
import io
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from geoinv_core.camera import orbit
from geoinv_core.errors import PhotoError
from geoinv_core.head import Head
from geoinv_core.heads import (
    EVALUATION_SEEDS,
    HeadAssets,
    HeadLabels,
    LabelLayout,
    Layers,
    build,
    picture,
    sample,
)
from geoinv_core.model import Model, open_model

GENERATOR_VIEWS = {"front": 0, "+30": 30, "-30": -30, "+90": 90, "-90": -90, "back": 180}
INVERSION_VIEWS = {"front": 0, "+30": 30, "-30": -30}


@dataclass(frozen=True)
class Truth:
    """One held-out head as drawn."""

    labels: HeadLabels
    z: Tensor
    c: Tensor
    rgb: dict[str, NDArray[np.float32]]
    """view to [S, S, 3] sRGB 0..1"""
    mask: dict[str, NDArray[np.float32]]
    depth: dict[str, NDArray[np.float32]]
    photo: bytes
    """the front view at 256 pixels as a PNG"""
    unit_mm: float


def truth(assets: HeadAssets, layout: LabelLayout, seed: int, views: dict[str, int], size: int) -> Truth:
    """Draw a held-out head from all views."""
    labels = sample(assets, seed)
    with torch.no_grad():
        geometry = build(assets, [labels])[0]
        layers = Layers(assets, geometry)
        drawn = {name: picture(assets, layers, orbit(yaw), size, 2) for name, yaw in views.items()}
        front = picture(assets, layers, orbit(), 256, 2).rgb
    stream = io.BytesIO()
    Image.fromarray((front.numpy() * 255).round().astype(np.uint8)).save(stream, "PNG")
    z, c = (torch.from_numpy(v)[None] for v in layout.encode(labels))
    return Truth(
        labels,
        z,
        c,
        {n: p.rgb.numpy() for n, p in drawn.items()},
        {n: p.mask.numpy() for n, p in drawn.items()},
        {n: p.depth.numpy() for n, p in drawn.items()},
        stream.getvalue(),
        geometry.unit_mm,
    )


def psnr(a: NDArray[np.float32], b: NDArray[np.float32], mask: NDArray[np.float32]) -> float:
    """Decibels inside the mask (above one half), for colours in 0..1."""
    inside = mask > 0.5
    error = float(np.square(a[inside] - b[inside]).mean())
    return -10 * math.log10(max(error, 1e-10))


def compare(
    head: Head, true: Truth, views: dict[str, int], size: int
) -> tuple[dict[str, float], list[NDArray[Any]]]:
    """PSNR, mask overlap and depth error of a head per view, and the pictures."""
    result: dict[str, float] = {}
    pictures = []
    for name, yaw in views.items():
        rgb, depth, opacity = head.look(orbit(yaw), size)
        result[f"psnr.{name}"] = psnr(rgb, true.rgb[name], true.mask[name])
        solid, there = opacity > 0.5, true.mask[name] > 0.5
        result[f"iou.{name}"] = float((solid & there).sum() / max((solid | there).sum(), 1))
        both = solid & np.isfinite(true.depth[name])
        result[f"depth_mm.{name}"] = float(np.median(np.abs(depth - true.depth[name])[both])) * true.unit_mm
        pictures.append(rgb)
    return result, pictures


def rotation_error(camera: Tensor, yaw: float) -> float:
    """Degrees between a camera's orientation and that of the orbit camera at `yaw`."""
    a, b = camera[:16].view(4, 4)[:3, :3], orbit(yaw)[:16].view(4, 4)[:3, :3]
    cosine = ((a * b).sum() - 1) / 2
    return math.degrees(math.acos(float(cosine.clamp(-1, 1))))


def evaluate_generator(
    model: Model, assets: HeadAssets, seeds: list[int], size: int
) -> tuple[dict[str, float], Image.Image]:
    """The generator with true labels against truth."""
    layout, mean = _layout(model), model.mean_head()
    rows, sheet = [], []
    for seed in seeds:
        true = truth(assets, layout, seed, GENERATOR_VIEWS, size)
        ours, pictures = compare(model.head_of(true.z, true.c), true, GENERATOR_VIEWS, size)
        base, _ = compare(mean, true, GENERATOR_VIEWS, size)
        rows.append(ours | {f"mean_head.{k}": v for k, v in base.items() if k.startswith("psnr")})
        sheet += [[true.rgb[n] for n in GENERATOR_VIEWS], pictures]
    scores = _means(rows)
    scores["psnr"] = float(np.mean([scores[f"psnr.{n}"] for n in GENERATOR_VIEWS]))
    scores["mean_head.psnr"] = float(np.mean([scores[f"mean_head.psnr.{n}"] for n in GENERATOR_VIEWS]))
    scores["gain_db"] = scores["psnr"] - scores["mean_head.psnr"]
    return scores, _sheet(sheet)


def evaluate_inversion(
    model: Model, assets: HeadAssets, seeds: list[int], size: int, refine: int
) -> tuple[dict[str, float], Image.Image]:
    """Inversions of front pictures against truth at the input view and +-30 degrees."""
    layout, mean = _layout(model), model.mean_head()
    rows, sheet, missed = [], [], 0
    for seed in seeds:
        true = truth(assets, layout, seed, INVERSION_VIEWS, size)
        start = time.perf_counter()
        try:
            head = model.invert(true.photo, refine=refine)
        except PhotoError:
            missed += 1
            continue
        seconds = time.perf_counter() - start
        ours, pictures = compare(head, true, INVERSION_VIEWS, size)
        base, _ = compare(mean, true, INVERSION_VIEWS, size)
        ours["camera_degrees"] = rotation_error(head.camera, 0)
        ours["seconds"] = seconds
        ours["age_error"] = abs(head.labels["age"] - true.labels.age)
        ours["skin_tone_error"] = abs(head.labels["skin_tone"] - true.labels.skin_tone)
        ours["jawOpen_error"] = abs(head.labels["jawOpen"] - true.labels.expression.get("jawOpen", 0.0))
        rows.append(ours | {f"mean_head.{k}": v for k, v in base.items() if k.startswith("psnr")})
        sheet += [[true.rgb[n] for n in INVERSION_VIEWS] + pictures]
    scores = _means(rows)
    scores["camera_degrees"] = float(np.median([r["camera_degrees"] for r in rows]))
    scores["faces_missed"] = float(missed)
    scores["gain_db.front"] = scores["psnr.front"] - scores["mean_head.psnr.front"]
    scores["gain_db.30"] = float(
        np.mean([scores[f"psnr.{v}"] - scores[f"mean_head.psnr.{v}"] for v in ("+30", "-30")])
    )
    return scores, _sheet(sheet)


def _layout(model: Model) -> LabelLayout:
    if model.label_space is None:
        raise ValueError(f"{model.name} has no labels, so it cannot be measured on labelled heads.")
    return model.label_space.layout


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def _sheet(rows: list[list[NDArray[Any]]]) -> Image.Image:
    joined = [np.concatenate(row, 1) for row in rows]
    half = (len(joined) + 3) // 4 * 2  # pairs of rows stay together
    left, right = joined[:half], joined[half:]
    right += [np.zeros_like(left[0])] * (len(left) - len(right))
    pixels = np.concatenate([np.concatenate(left, 0), np.concatenate(right, 0)], 1)
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="geoinv evaluate", description="Measure a model on held-out heads.")
    parser.add_argument("what", choices=("generator", "inversion"))
    parser.add_argument("--model", default="default")
    parser.add_argument("--heads", help="folder of the head data (default: GEOINV_HEADS)")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--refine", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="write a picture to judge by eye")
    parser.add_argument("--device", default="auto")
    a = parser.parse_args(arguments)
    model, assets = open_model(a.model, a.device), HeadAssets.open(a.heads)
    seeds = list(range(EVALUATION_SEEDS, EVALUATION_SEEDS + a.count))
    if a.what == "generator":
        scores, sheet = evaluate_generator(model, assets, seeds, a.size)
    else:
        scores, sheet = evaluate_inversion(model, assets, seeds, a.size, a.refine)
    if a.sheet:
        a.sheet.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(a.sheet)
    return {"what": a.what, "heads": a.count, "size": a.size, **{k: round(v, 3) for k, v in scores.items()}}
