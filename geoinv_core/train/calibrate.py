"""What release adjusts, chosen on drawn heads of its own: `python -m geoinv_core.train.calibrate`.

Leaves calibration.json in a run's folder, which `release` applies and records. Its heads are neither trained
on nor evaluated: their seeds begin at CALIBRATION_SEEDS.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoinv_core.errors import GeoInvError, PhotoError
from geoinv_core.evaluate.generator import layout_of
from geoinv_core.evaluate.inversion import INPUT, photo_of, truth_for
from geoinv_core.evaluate.measures import compare_view
from geoinv_core.evaluate.truth import TrueHead, draw_truth
from geoinv_core.head import Head
from geoinv_core.heads import HeadAssets, LabelLayout, sample
from geoinv_core.model import Model, open_model
from geoinv_core.train.release import CALIBRATION, adjusted, release_encoder, release_generator

CALIBRATION_SEEDS = 800_000
SHARPEN = (1.0, 0.85, 0.7, 0.6, 0.5)
SHRINK = (0.0, 0.0004, 0.0007, 0.0011)
OFFSETS = (0.0, 0.25, 0.5, 0.75, 1.0)
_VIEWS = {"front": 0.0, "side": 90.0, "back": 180.0}
_UNSEEN = (INPUT, "+30", "-30", "+60", "-60")

F64 = NDArray[np.float64]


def calibrate_generator(model: Model, assets: HeadAssets, seeds: Sequence[int], size: int) -> dict[str, Any]:
    """Sharpness and inset of a generator as it was trained.

    Returns: sharpen and shrink (see `release.adjusted`) of the best picture, halo included, among those whose
    depth is no worse than as trained; and the errors.
    """
    layout, choices = layout_of(model), list(product(SHARPEN, SHRINK))
    errors: list[list[F64]] = [[] for _ in choices]
    models = [replace(model, generator=adjusted(model.generator, *choice)) for choice in choices]
    for seed in seeds:
        labels = sample(assets, seed)
        true = draw_truth(assets, labels, _VIEWS, size)
        z, c = (torch.from_numpy(v)[None].to(model.device) for v in layout.encode(labels))
        planes = model.head_of(z, c).planes
        for found, one in zip(errors, models, strict=True):
            head = one.head_of(z, c)
            head.__dict__["planes"] = planes  # neither choice is about them
            found.append(_log_errors(head, true, tuple(_VIEWS)))
        print(f"head {len(errors[0])} of {len(seeds)}", file=sys.stderr, flush=True)
    means = [np.mean(found, 0) for found in errors]
    plain = means[choices.index((1.0, 0.0))]
    # not >, for a network that draws nothing yet has no depth to compare
    allowed = [i for i, mean in enumerate(means) if not mean[2] > plain[2]]
    best = min(allowed, key=lambda i: float(means[i][0]))
    sharpen, shrink = choices[best]
    return {
        "sharpen": sharpen,
        "shrink": shrink,
        "heads": [seeds[0], len(seeds)],
        "size": size,
        "errors": {"as trained": _told(plain), "chosen": _told(means[best])},
    }


def calibrate_encoder(model: Model, assets: HeadAssets, seeds: Sequence[int], size: int) -> dict[str, Any]:
    """How much of the encoder's offsets from the labels' code to keep, from pictures over a backdrop.

    Returns: offsets, 0..1, with the least mean log error over the photo's view and views that it does not
    show; and the errors. The marks that offsets leave on a face count by its normals.
    """
    errors: list[list[F64]] = [[] for _ in OFFSETS]
    for seed in seeds:
        true = truth_for(assets, seed, size)
        try:
            head = model.invert(photo_of(assets, true, true.views[INPUT].camera), detail=False)
        except PhotoError:
            continue  # a face that the detector misses says nothing about offsets
        now = head.inversion
        with torch.inference_mode():
            plain = model.generator.map(now.z, now.c)
        for found, share in zip(errors, OFFSETS, strict=True):
            less = Head(model, replace(now, w_plus=plain + share * (now.w_plus - plain)))
            found.append(_log_errors(less, true, _UNSEEN))
        print(f"{len(errors[0])} heads", file=sys.stderr, flush=True)
    if not errors[0]:
        raise GeoInvError(
            f"No face was found in {len(seeds)} drawn heads, so nothing can be chosen by them; "
            "calibrate with more heads.",
            "heads",
        )
    means = [np.mean(found, 0) for found in errors]
    best = int(np.argmin([mean[:4].mean() for mean in means]))
    told = {str(share): _told(mean) for share, mean in zip(OFFSETS, means, strict=True)}
    return {"offsets": OFFSETS[best], "heads": [seeds[0], len(errors[0])], "size": size, "errors": told}


def _log_errors(head: Head, true: TrueHead, views: Sequence[str]) -> F64:
    """Logarithms of rms colour (0..1) all over the picture (a halo is an error too), 1 - IoU, depth (mm),
    angle of normals (degrees) and rms colour inside the true mask, mean over views."""
    rows = []
    for name in views:
        s, rgb = compare_view(head, true.views[name], true.unit_mm)
        colour = float(np.sqrt(np.square(rgb - true.views[name].rgb).mean()))
        inside = 10 ** (-s["psnr"] / 20)
        rows.append([colour, 1 - s["iou"], s["depth_mm"], s["normal_degrees"], inside])
    logs: F64 = np.log(np.maximum(np.array(rows), 1e-3)).mean(0)
    return logs


def _told(errors: F64) -> dict[str, float]:
    names = ("colour", "outline", "depth_mm", "normal_degrees", "colour_inside")
    return {name: round(float(value), 4) for name, value in zip(names, np.exp(errors), strict=True)}


def save(run: Path, found: Mapping[str, Any]) -> Path:
    path = run / CALIBRATION
    path.write_text(json.dumps(dict(found), indent=1))
    return path


def generator_run(
    run: Path, layout: LabelLayout, assets: HeadAssets, seeds: Sequence[int], size: int
) -> dict[str, Any]:
    """Calibrate the generator of a run and leave the result there."""
    with tempfile.TemporaryDirectory() as folder:
        file = release_generator(run, layout, Path(folder) / "plain.safetensors", {}, calibrated=False)
        found = calibrate_generator(open_model(file), assets, seeds, size)
    save(run, found)
    return found


def encoder_run(
    run: Path, layout: LabelLayout, generator: Path, assets: HeadAssets, seeds: Sequence[int], size: int
) -> dict[str, Any]:
    """Calibrate the encoder of a run, trained on the released `generator`, and leave the result there."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(shutil.copy(generator, Path(folder) / "plain.safetensors"))
        release_encoder(run, layout, file, {}, calibrated=False)
        found = calibrate_encoder(open_model(file), assets, seeds, size)
    save(run, found)
    return found


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="Choose what release adjusts, on heads of their own.")
    parser.add_argument("data", type=Path, help="folder of drawn heads (for the label layout)")
    parser.add_argument("--generator", type=Path, help="folder of the generator's run")
    parser.add_argument("--encoder", type=Path, help="folder of the encoder's run")
    parser.add_argument("--released", type=Path, help="generator file that the encoder was trained on")
    parser.add_argument("--heads", help="folder of the head data (default: GEOINV_HEADS)")
    parser.add_argument("--count", type=int, default=16, help="heads (default: 16)")
    parser.add_argument("--size", type=int, default=128, help="pixels a side (default: 128)")
    a = parser.parse_args(arguments)
    if a.encoder and not a.released:
        parser.error("--encoder needs --released, the generator file that it was trained on")
    layout = LabelLayout.from_json(json.loads((a.data / "dataset.json").read_text())["layout"])
    assets, seeds = HeadAssets.open(a.heads), range(CALIBRATION_SEEDS, CALIBRATION_SEEDS + a.count)
    found: dict[str, Any] = {}
    if a.generator:
        found["generator"] = generator_run(a.generator, layout, assets, seeds, a.size)
    if a.encoder:
        found["encoder"] = encoder_run(a.encoder, layout, a.released, assets, seeds, a.size)
    return found


if __name__ == "__main__":
    main()
