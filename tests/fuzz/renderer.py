"""Random small fields and rays, native against PyTorch: values and every gradient.

    python tests/fuzz/renderer.py --cases 10000
    python tests/fuzz/renderer.py --first 1234 --cases 1      one case again

A case fails when the two differ by more than 2e-4 of the values' size (gradients: 1e-3 of their norm) and
PyTorch in float64 says that it is not because the case itself amplifies rounding: there the native error is
more than four times PyTorch's own in float32. Exit code 1 when one failed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from geoinv_core.render import EG3D_AXES, PANOHEAD_AXES, Field, build, library
from geoinv_core.render.example import random_field
from tests.core import twins

NAMES = ("features", "depth", "opacity", *twins.TENSORS, "origins", "directions")
Case = tuple[Field, Tensor, Tensor, dict[str, Any]]


def random_case(number: int) -> Case:
    """The field, rays [B, R, 3] and options of one case; the same for the same number."""
    source = random.Random(number)
    field = random_field(
        source.randint(1, 35),
        source.randint(1, 70),
        source.choice([0, 1, 6, source.randint(2, 35)]),
        tuple(source.randint(1, 9) for _ in range(source.choice([2, 3]))),
        source.randint(1, 2),
        source.choice([EG3D_AXES, PANOHEAD_AXES]),
        source.choice([0.1, 1.0, 2.0]),
        number,
        density=source.choice(["softplus", "sdf", "raw"]),
        distance_scale=source.choice([0.05, 1.0]),
        distance_radius=source.choice([0.0, 0.3]),
        activation=source.choice(["sigmoid", "lrelu", "none"]),
        signed=source.random() < 0.5,
        crop=source.choice([None, 0.1]),
        white_back=source.random() < 0.3,
        box_warp=source.choice([1.0, 1.6]),
    )
    origins, directions = twins.rays(field.batch, source.randint(1, 40))
    coarse, fine = source.randint(4, 20), source.choice([0, 1, source.randint(2, 20)])
    options: dict[str, Any] = {
        "samples": (coarse, fine),
        "sampling": source.choice(["importance", "uniform", "sphere", "disparity"]),
        "exact": source.random() < 0.5,
    }
    if options["sampling"] == "uniform":
        coarse, fine = coarse + fine, 0
    if source.random() < 0.7:
        options |= {"near": 2.25, "far": 3.3}
    elif options["sampling"] == "disparity":
        options |= {"near": 2.0, "far": 3.5}
    jitter: Any = source.choice(["mid", "zero", "draws"])
    if jitter == "draws":
        seed = torch.Generator().manual_seed(number)
        shape = origins.shape[:2]
        jitter = torch.rand(*shape, coarse, generator=seed), torch.rand(*shape, fine, generator=seed)
    return field, origins, directions, options | {"jitter": jitter}


def outcome(case: Case, backend: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Values and gradients, in the order of NAMES, in float64."""
    field, origins, directions, options = case
    jitter = options["jitter"]
    if isinstance(jitter, tuple):
        options = options | {"jitter": tuple(t.to(dtype) for t in jitter)}
    found = twins.values(field.to(dtype), origins.to(dtype), directions.to(dtype), options, backend)
    return [t.double() for t in (*found[0], *found[1])]


def errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    """Per name: largest difference of a value, over their size or 1; relative difference of a gradient."""
    result = []
    seen = expected[2] > 0.01  # a depth is a ratio: where almost nothing is seen its error has no bound
    for name, x, y in zip(NAMES, found, expected, strict=True):
        if not y.numel():
            error = 0.0
        elif name in NAMES[:3]:
            apart = (x - y).abs()[seen] if name == "depth" else (x - y).abs()
            error = float(apart.max()) / max(1.0, float(y.abs().max())) if apart.numel() else 0.0
        else:
            error = float((x - y).norm()) / max(0.01, float(y.norm()))
        result.append(error if error == error else float("inf"))
    return result


def limit(name: str) -> float:
    return 2e-4 if name in NAMES[:3] else 1e-3


def check(number: int) -> tuple[list[float], list[str]]:
    """Differences from PyTorch by name, and what is wrong: "" per amplified case, else a sentence."""
    case = random_case(number)
    native, twin = outcome(case, "cpu"), outcome(case, "torch")
    apart, wrong = errors(native, twin), []
    if all(e <= limit(n) for n, e in zip(NAMES, apart, strict=True)):
        return apart, wrong
    exact = outcome(case, "torch", torch.float64)
    ours, theirs = errors(native, exact), errors(twin, exact)
    for name, own, other, between in zip(NAMES, ours, theirs, apart, strict=True):
        if between > limit(name):
            fine = own <= limit(name) + 4 * other
            wrong.append("" if fine else f"{name}: {own:.2e} from float64, PyTorch {other:.2e}")
    return apart, wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--lanes", type=int, default=16, choices=(1, 8, 16), help="at most so many")
    options = parser.parse_args()
    build.build()
    torch.set_num_threads(1)
    library.MOST_LANES = options.lanes if options.lanes > 1 else 0
    largest = dict.fromkeys(NAMES, 0.0)
    amplified = failed = grids = 0
    start = time.process_time()
    for number in range(options.first, options.first + options.cases):
        apart, wrong = check(number)
        grids += random_case(number)[0].planes.dim() == 6
        for text in filter(None, wrong):
            print(f"case {number}: {text}", flush=True)
        failed += any(wrong)
        amplified += bool(wrong) and not any(wrong)
        if not wrong:
            largest = {n: max(largest[n], e) for n, e in zip(NAMES, apart, strict=True)}
        if number % 500 == 499:
            print(f"{number + 1} done, {failed} failed", file=sys.stderr, flush=True)
    about = {"library": library.library(torch.float32).suffix, "first": options.first, "cases": options.cases}
    counts = {"trigrids": grids, "amplified": amplified, "failed": failed}
    print(json.dumps(about | counts | {"largest": largest, "seconds": round(time.process_time() - start)}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
