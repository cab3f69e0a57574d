"""`geoinv evaluate generator|inversion|mesh`: arguments in, figures and a sheet out."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

from geoinv_core.evaluate.generator import evaluate_generator, table
from geoinv_core.evaluate.inversion import evaluate_inversion
from geoinv_core.evaluate.mesh import evaluate_mesh
from geoinv_core.heads import EVALUATION_SEEDS, HeadAssets
from geoinv_core.model import open_model


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Returns the figures, rounded; with --sheet a picture is written."""
    a = _parser().parse_args(arguments)
    if a.threads:
        torch.set_num_threads(a.threads)
    model, assets = open_model(a.model, a.device), HeadAssets.open(a.heads)
    count, size = a.count, a.size
    if a.what == "generator" and a.quick:
        count, size = min(count, 8), min(size, 128)
    seeds = range(EVALUATION_SEEDS, EVALUATION_SEEDS + count)
    if a.what == "generator":
        start = time.monotonic()

        def on_head(done: int, text: str) -> None:
            left = (time.monotonic() - start) / done * (count - done)
            print(f"head {done} of {count}: {text}, {left:.0f} s left", file=sys.stderr, flush=True)

        report = evaluate_generator(model, assets, seeds, size, not a.no_edits, not a.no_surface, on_head)
        scores, sheet = report.scores, report.sheet
        print(table(scores), file=sys.stderr)
    elif a.what == "inversion":
        scores, sheet = evaluate_inversion(model, assets, list(seeds), size, a.refine)
    else:

        def on_mesh(done: int, text: str) -> None:
            print(f"head {done} of {count}: {text}", file=sys.stderr, flush=True)

        scores = evaluate_mesh(model, assets, list(seeds), size, not a.no_keys, a.photo, on_mesh)
    if a.what != "mesh" and a.sheet:
        a.sheet.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(a.sheet)
    about = {"what": a.what, "model": model.name, "hash": model.hash, "heads": count, "size": size}
    return {**about, **rounded(scores)}


def rounded(value: Any) -> Any:
    """Floats to three places, everywhere inside."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return round(value, 3) if isinstance(value, float) else value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="geoinv evaluate", description="Measure a model on held-out heads.")
    names = parser.add_subparsers(dest="what", required=True, metavar="generator|inversion|mesh")

    def program(name: str, text: str, count: int, size: int) -> argparse.ArgumentParser:
        one = names.add_parser(name, help=text, description=text)
        one.add_argument("--model", default="default", help='"default" or a .safetensors file')
        one.add_argument("--heads", help="folder of the head data (default: GEOINV_HEADS)")
        one.add_argument("--count", type=int, default=count, help=f"heads (default: {count})")
        one.add_argument("--size", type=int, default=size, help=f"pixels a side (default: {size})")
        one.add_argument("--device", default="auto")
        one.add_argument("--threads", type=int, default=0, help="of PyTorch (default: its own choice)")
        return one

    one = program("generator", "The generator with true labels: pictures, surface, edits.", 64, 256)
    one.add_argument("--sheet", type=Path, metavar="FILE", help="write a picture to judge by eye")
    one.add_argument("--quick", action="store_true", help="8 heads at 128 pixels")
    one.add_argument("--no-edits", action="store_true", help="leave the edits out")
    one.add_argument("--no-surface", action="store_true", help="leave the surface out")
    one = program("inversion", "Inversions of front pictures of true heads.", 16, 128)
    one.add_argument("--sheet", type=Path, metavar="FILE", help="write a picture to judge by eye")
    one.add_argument("--refine", type=int, default=0, metavar="N", help="steps of refinement")
    one = program(
        "mesh", "Meshes of front pictures: fit, texture, shape keys; --size is the texture's.", 16, 2048
    )
    one.add_argument("--photo", type=Path, metavar="FILE", help="one more head, from a photo")
    one.add_argument("--no-keys", action="store_true", help="leave the shape keys out")
    return parser
