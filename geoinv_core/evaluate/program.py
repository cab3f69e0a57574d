"""`geoinv evaluate WHAT`: arguments in, figures and a sheet out."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from geoinv_core.evaluate import inversion, photos
from geoinv_core.evaluate.detail import evaluate_detail
from geoinv_core.evaluate.gallery import gallery
from geoinv_core.evaluate.generator import evaluate_generator, table
from geoinv_core.evaluate.mesh import evaluate_mesh
from geoinv_core.heads import EVALUATION_SEEDS, HeadAssets
from geoinv_core.model import Model, open_model

Arguments = argparse.Namespace
OnHead = Callable[[int, str], None]
Measured = tuple[dict[str, Any], Image.Image | None]


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Returns the figures, rounded; with --sheet a picture is written."""
    a = _parser().parse_args(arguments)
    if a.threads:
        torch.set_num_threads(a.threads)
    model = open_model(a.model, a.device)
    about: dict[str, Any] = {"what": a.what, "model": model.name, "hash": model.hash}
    if a.what == "photo":
        scores, sheet = _photo(a, model)
        about["photo"] = str(a.photo)
    else:
        if a.what == "generator" and a.quick:
            a.count, a.size = min(a.count, 8), min(a.size, 128)
        about |= {"heads": a.count, "size": a.size}
        start = time.monotonic()

        def on_head(done: int, text: str) -> None:
            left = (time.monotonic() - start) / done * max(a.count - done, 0)
            print(f"head {done} of {a.count}: {text}, {left:.0f} s left", file=sys.stderr, flush=True)

        scores, sheet = _WHAT[a.what](a, model, HeadAssets.open(a.heads), on_head)
    if sheet is not None and a.sheet:
        a.sheet.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(a.sheet)
    return {**about, **rounded(scores)}


def seeds_of(a: Arguments) -> range:
    return range(EVALUATION_SEEDS, EVALUATION_SEEDS + a.count)


def _photo(a: Arguments, model: Model) -> Measured:
    seen = photos.evaluate_photo(model, a.photo, a.refine)
    print(photos.table(seen.scores), file=sys.stderr)
    return seen.scores, seen.sheet


def _generator(a: Arguments, model: Model, assets: HeadAssets, on_head: OnHead) -> Measured:
    report = evaluate_generator(model, assets, seeds_of(a), a.size, not a.no_edits, not a.no_surface, on_head)
    print(table(report.scores), file=sys.stderr)
    return report.scores, report.sheet


def _inversion(a: Arguments, model: Model, assets: HeadAssets, on_head: OnHead) -> Measured:
    names = inversion.QUICK if a.quick else a.methods
    surface = not (a.quick or a.no_surface)
    found = inversion.evaluate_inversion(
        model, assets, seeds_of(a), a.size, names, surface, a.lpips, on_head, a.even
    )
    print(inversion.table(found.scores), file=sys.stderr)
    return found.scores, found.sheet


def _detail(a: Arguments, model: Model, assets: HeadAssets, on_head: OnHead) -> Measured:
    return evaluate_detail(model, assets, list(seeds_of(a)), a.size, not a.no_edits)


def _mesh(a: Arguments, model: Model, assets: HeadAssets, on_head: OnHead) -> Measured:
    return evaluate_mesh(model, assets, list(seeds_of(a)), a.size, not a.no_keys, a.photo, on_head), None


def _samples(a: Arguments, model: Model, assets: HeadAssets, on_head: OnHead) -> Measured:
    return {}, gallery(model, assets, seeds_of(a), min(a.turning, a.count), a.size, on_head)


_WHAT: dict[str, Callable[[Arguments, Model, HeadAssets, OnHead], Measured]] = {
    "generator": _generator,
    "inversion": _inversion,
    "detail": _detail,
    "mesh": _mesh,
    "samples": _samples,
}


def rounded(value: Any) -> Any:
    """Floats to three places, everywhere inside."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return round(value, 3) if isinstance(value, float) else value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="geoinv evaluate", description="Measure a model on held-out heads.")
    names = parser.add_subparsers(dest="what", required=True, metavar="WHAT")

    def program(name: str, text: str, pictures: bool = True) -> argparse.ArgumentParser:
        one = names.add_parser(name, help=text, description=text)
        one.add_argument("--model", default="default", help='"default" or a .safetensors file')
        if pictures:
            one.add_argument("--sheet", type=Path, metavar="FILE", help="write a picture to judge by eye")
        one.add_argument("--device", default="auto")
        one.add_argument("--threads", type=int, default=0, help="of PyTorch (default: its own choice)")
        return one

    def of_heads(
        name: str, text: str, count: int, size: int, pictures: bool = True
    ) -> argparse.ArgumentParser:
        one = program(name, text, pictures)
        one.add_argument("--heads", help="folder of the head data (default: GEOINV_HEADS)")
        one.add_argument("--count", type=int, default=count, help=f"heads (default: {count})")
        one.add_argument("--size", type=int, default=size, help=f"pixels a side (default: {size})")
        return one

    one = of_heads("generator", "The generator with true labels: pictures, surface, edits.", 64, 256)
    one.add_argument("--quick", action="store_true", help="8 heads at 128 pixels")
    one.add_argument("--no-edits", action="store_true", help="leave the edits out")
    one.add_argument("--no-surface", action="store_true", help="leave the surface out")
    one = of_heads("inversion", "Inversions of pictures of true heads, by all methods.", 64, 256)
    rows = ", ".join(method.name for method in inversion.METHODS)
    one.add_argument("--methods", nargs="+", default=(), metavar="NAME", help=f"of: {rows} (default: all)")
    one.add_argument("--quick", action="store_true", help="only what takes no optimisation, and no surface")
    one.add_argument("--no-surface", action="store_true", help="leave the Chamfer distance out")
    one.add_argument("--even", action="store_true", help="heads whose expressions are spread evenly")
    one.add_argument("--lpips", nargs="+", type=Path, default=(), metavar="FILE", help="your LPIPS weights")
    one = of_heads("detail", "What the local branch adds to inversions, and to edits of them.", 8, 256)
    one.add_argument("--no-edits", action="store_true", help="leave the edits out")
    one = of_heads(
        "mesh", "Meshes of front pictures: fit, texture, keys; --size is the texture's.", 16, 2048, False
    )
    one.add_argument("--photo", type=Path, metavar="FILE", help="one more head, from a photo")
    one.add_argument("--no-keys", action="store_true", help="leave the shape keys out")
    one = of_heads("samples", "Random heads of the model, to look at.", 16, 256)
    one.add_argument(
        "--turning", type=int, default=4, metavar="N", help="heads shown all around (default: 4)"
    )
    one = program("photo", "A real photo and hardships of it.")
    one.add_argument("photo", type=Path)
    one.add_argument("--refine", type=int, default=0, metavar="N", help="steps of refinement")
    return parser
