"""Renderer against PyTorch, paired and interleaved: python build.py bench renderer --json

One thread, process CPU time, so that a busy machine disturbs both sides alike. PyTorch's side is the chunked
backend, which stays in the caches. Ratios are PyTorch's time over ours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from geoinv_core import camera
from geoinv_core.render import Field, build, render, sample_grid
from geoinv_core.render.example import ball_field
from geoinv_core.render.job import forget_planes

Work = Callable[[str], Any]


def summary(values: list[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def paired(work: Work, native: str, pairs: int, clock: Callable[[], float]) -> dict[str, float]:
    """Ratio of torch's to the native backend's time, pair by pair in alternating order."""
    for backend in (native, "torch"):
        work(backend)
    ratios = []
    for k in range(pairs):
        took = {}
        for backend in ("torch", native) if k % 2 else (native, "torch"):
            start = clock()
            work(backend)
            took[backend] = clock() - start
        ratios.append(took["torch"] / took[native])
    return summary(ratios) | {"native_ms": took[native] * 1e3, "torch_ms": took["torch"] * 1e3}


def forward(field: Field, size: int, exact: bool) -> Work:
    origins, directions = (t.to(field.planes) for t in camera.rays(camera.orbit(20, 5)[None], size))

    def work(backend: str) -> None:
        forget_planes()  # every picture pays for its own planes
        with torch.no_grad():
            render(field, origins, directions, 2.25, 3.3, backend=backend, exact=exact)

    return work


def both_ways(field: Field, size: int) -> Work:
    origins, directions = (t.to(field.planes) for t in camera.rays(camera.orbit(20, 5)[None], size))
    leaves: dict[str, Any] = {
        name: getattr(field, name).clone().requires_grad_() for name in ("planes", "w1", "b1", "w2", "b2")
    }
    trained = replace(field, **leaves)

    def work(backend: str) -> None:
        forget_planes()
        out = render(trained, origins, directions, 2.25, 3.3, backend=backend)
        torch.autograd.grad(out.features.square().mean() + out.depth.mean(), list(leaves.values()))

    return work


def thread_scaling(work: Work, repeats: int) -> dict[str, float]:
    """Wall time on one thread over wall time on two; says something on an idle machine only."""
    found = []
    for _ in range(repeats):
        took = []
        for count in (1, 2):
            torch.set_num_threads(count)
            start = time.perf_counter()
            work("cpu")
            took.append(time.perf_counter() - start)
        found.append(took[0] / took[1])
    torch.set_num_threads(1)
    return summary(found)


def peak_bytes(work: Work, field: Field) -> dict[str, float]:
    """Growth of peak memory over one forward and backward at 128², less the plane gradient. Linux only."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work("cpu")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return summary([float(max(0, grown - field.planes.numel() * field.planes.element_size()))])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument(
        "--size", type=int, default=64, help="picture side in rays (128 for the published figure)"
    )
    parser.add_argument("--grid", type=int, default=128, help="lattice side (256 for the published figure)")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", default="", help="comma-separated parts of keys to measure")
    options = parser.parse_args()
    wanted = [w for w in options.only.split(",") if w]
    build.build()
    torch.set_num_threads(1)
    field = ball_field()
    results: dict[str, Any] = {}

    def grid(backend: str) -> None:
        sample_grid(field, options.grid, backend=backend)

    training = both_ways(field, options.size)
    jobs: dict[str, Callable[[], dict[str, float]]] = {
        "cpu.backward_bytes": lambda: peak_bytes(both_ways(field, 128), field),
        "cpu.forward_ratio": lambda: paired(
            forward(field, options.size, False), "cpu", options.pairs, time.process_time
        ),
        "cpu.exact_forward_ratio": lambda: paired(
            forward(field, options.size, True), "cpu", options.pairs, time.process_time
        ),
        "cpu.forward_backward_ratio": lambda: paired(training, "cpu", options.pairs, time.process_time),
        "cpu.grid_ratio": lambda: paired(grid, "cpu", max(1, options.pairs // 2), time.process_time),
        "cpu.thread_scaling": lambda: thread_scaling(forward(field, 128, True), options.pairs),
    }
    for name, job in jobs.items():
        if not wanted or any(w in name for w in wanted):
            results[name] = job()
            if not options.json:
                print(name, {k: round(v, 3) for k, v in results[name].items()}, flush=True)
    if options.json:
        print(json.dumps({"size": options.size, "grid": options.grid} | results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
