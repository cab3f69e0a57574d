"""`geoinv evaluate generator|inversion|detail|samples|photo`: arguments in, figures and a sheet out."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from geoinv_core.evaluate import inversion, photos
from geoinv_core.evaluate.detail import evaluate_detail
from geoinv_core.evaluate.gallery import gallery
from geoinv_core.evaluate.generator import evaluate_generator, table
from geoinv_core.heads import EVALUATION_SEEDS, HeadAssets
from geoinv_core.model import open_model


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Returns the figures, rounded; with --sheet a picture is written."""
    a = _parser().parse_args(arguments)
    if a.threads:
        torch.set_num_threads(a.threads)
    model = open_model(a.model, a.device)
    if a.what == "photo":
        about = {"what": a.what, "model": model.name, "hash": model.hash, "photo": str(a.photo)}
        seen = photos.evaluate_photo(model, a.photo, a.refine)
        print(photos.table(seen.scores), file=sys.stderr)
        _write(seen.sheet, a.sheet)
        return {**about, **rounded(seen.scores)}
    assets = HeadAssets.open(a.heads)
    count, size = a.count, a.size
    if a.what == "generator" and a.quick:
        count, size = min(count, 8), min(size, 128)
    seeds = range(EVALUATION_SEEDS, EVALUATION_SEEDS + count)
    start = time.monotonic()

    def on_head(done: int, text: str) -> None:
        left = (time.monotonic() - start) / done * (count - done)
        print(f"head {done} of {count}: {text}, {left:.0f} s left", file=sys.stderr, flush=True)

    scores: dict[str, Any] = {}
    if a.what == "generator":
        report = evaluate_generator(model, assets, seeds, size, not a.no_edits, not a.no_surface, on_head)
        scores, sheet = report.scores, report.sheet
        print(table(scores), file=sys.stderr)
    elif a.what == "detail":
        scores, sheet = evaluate_detail(model, assets, list(seeds), size, not a.no_edits)
    elif a.what == "samples":
        sheet = gallery(model, assets, seeds, min(a.turning, count), size, on_head)
    else:
        names = inversion.QUICK if a.quick else a.methods
        found = inversion.evaluate_inversion(
            model, assets, seeds, size, names, not (a.quick or a.no_surface), a.lpips, on_head
        )
        scores, sheet = found.scores, found.sheet
        print(inversion.table(scores), file=sys.stderr)
    _write(sheet, a.sheet)
    about = {"what": a.what, "model": model.name, "hash": model.hash, "heads": count, "size": size}
    return {**about, **rounded(scores)}


def _write(sheet: Image.Image, path: Path | None) -> None:
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)


def rounded(value: Any) -> Any:
    """Floats to three places, everywhere inside."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return round(value, 3) if isinstance(value, float) else value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="geoinv evaluate", description="Measure a model on held-out heads.")
    names = parser.add_subparsers(dest="what", required=True, metavar="WHAT")

    def program(name: str, text: str, count: int, size: int) -> argparse.ArgumentParser:
        one = names.add_parser(name, help=text, description=text)
        one.add_argument("--model", default="default", help='"default" or a .safetensors file')
        one.add_argument("--heads", help="folder of the head data (default: GEOINV_HEADS)")
        one.add_argument("--count", type=int, default=count, help=f"heads (default: {count})")
        one.add_argument("--size", type=int, default=size, help=f"pixels a side (default: {size})")
        one.add_argument("--sheet", type=Path, metavar="FILE", help="write a picture to judge by eye")
        one.add_argument("--device", default="auto")
        one.add_argument("--threads", type=int, default=0, help="of PyTorch (default: its own choice)")
        return one

    one = program("generator", "The generator with true labels: pictures, surface, edits.", 64, 256)
    one.add_argument("--quick", action="store_true", help="8 heads at 128 pixels")
    one.add_argument("--no-edits", action="store_true", help="leave the edits out")
    one.add_argument("--no-surface", action="store_true", help="leave the surface out")
    one = program("inversion", "Inversions of pictures of true heads, by all methods.", 64, 256)
    rows = ", ".join(method.name for method in inversion.METHODS)
    one.add_argument("--methods", nargs="+", default=(), metavar="NAME", help=f"of: {rows} (default: all)")
    one.add_argument("--quick", action="store_true", help="only what takes no optimisation, and no surface")
    one.add_argument("--no-surface", action="store_true", help="leave the Chamfer distance out")
    one.add_argument("--lpips", nargs="+", type=Path, default=(), metavar="FILE", help="your LPIPS weights")
    one = names.add_parser("photo", help="A real photo and hardships of it.", description=photos.__doc__)
    one.add_argument("photo", type=Path)
    one.add_argument("--model", default="default", help='"default" or a .safetensors file')
    one.add_argument("--refine", type=int, default=0, metavar="N", help="steps of refinement")
    one.add_argument("--sheet", type=Path, metavar="FILE", help="write a picture to judge by eye")
    one.add_argument("--device", default="auto")
    one.add_argument("--threads", type=int, default=0, help="of PyTorch (default: its own choice)")
    one = program("detail", "What the local branch adds to inversions, and to edits of them.", 8, 256)
    one.add_argument("--no-edits", action="store_true", help="leave the edits out")
    one = program("samples", "Random heads of the model, to look at.", 16, 256)
    one.add_argument(
        "--turning", type=int, default=4, metavar="N", help="heads shown all around (default: 4)"
    )
    return parser
