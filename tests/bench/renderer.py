"""Renderer against PyTorch, paired and interleaved: python build.py bench renderer --json

On a CPU one thread and process CPU time, so that a busy machine disturbs both sides alike; on a GPU the time
until it is done. PyTorch's side is the chunked backend. Ratios are PyTorch's time over ours.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
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
from geoinv_core.render import Field, build, render, sample_grid, torch_backend
from geoinv_core.render.example import ball_field
from geoinv_core.render.job import forget_planes
from geoinv_core.render.march import March

Work = Callable[[str], Any]
Summary = dict[str, float]


def summary(values: list[float]) -> Summary:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def paired(work: Work, native: str, pairs: int, clock: Callable[[], float]) -> Summary:
    """Ratio of torch's to the native backend's time, pair by pair in alternating order."""
    for backend in (native, "torch"):
        work(backend)
    ratios = []
    times: dict[str, list[float]] = {native: [], "torch": []}
    for k in range(pairs):
        took = {}
        for backend in ("torch", native) if k % 2 else (native, "torch"):
            start = clock()
            work(backend)
            took[backend] = clock() - start
            times[backend].append(took[backend])
        ratios.append(took["torch"] / took[native])
    ms = {side: statistics.median(found) * 1e3 for side, found in times.items()}
    return summary(ratios) | {"native_ms": ms[native], "torch_ms": ms["torch"]}


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


def thread_scaling(work: Work, repeats: int) -> Summary:
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


def peak_bytes(work: Work, field: Field) -> Summary:
    """Growth of peak memory over one forward and backward, less the plane gradient. Linux only."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work("cpu")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return summary([float(max(0, grown - field.planes.numel() * field.planes.element_size()))])


def cuda_bytes(work: Work, backend: str) -> float:
    """Most memory that was allocated beyond what lay there before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work(backend)
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated() - before)


def eager(field: Field, size: int) -> Work:
    """Forward and backward in PyTorch as one graph over all samples, as EG3D's own renderer does."""
    origins, directions = (t.to(field.planes) for t in camera.rays(camera.orbit(20, 5)[None], size))
    near = torch.full(origins.shape[:2], 2.25).to(field.planes)
    leaf = field.planes.clone().requires_grad_()

    def work(_backend: str) -> None:
        job = March(origins, directions, near, near + 1.05, None, None, 48, 48)
        sums = torch_backend.render(replace(field, planes=leaf), job)
        torch.autograd.grad(sums.total.square().mean() + sums.depth.mean(), leaf)

    return work


def cpu_jobs(options: argparse.Namespace) -> dict[str, Callable[[], Summary]]:
    field = ball_field()
    bundled = ball_field(128, features=6, beta=0.004, depth=4)  # the bundled model's shape
    training, clock, pairs = both_ways(field, options.size), time.process_time, options.pairs

    def grid(backend: str) -> None:
        sample_grid(field, options.grid, backend=backend)

    def sparse(of: Field) -> Summary:
        """A lattice of twice the side: ours whole, over ours near the surface only."""

        def work(backend: str) -> None:
            sample_grid(of, 2 * options.grid, backend="cpu", sparse=backend == "cpu")

        return paired(work, "cpu", max(1, pairs // 2), clock)

    return {
        "cpu.backward_bytes": lambda: peak_bytes(both_ways(field, 128), field),
        "cpu.forward_ratio": lambda: paired(forward(field, options.size, False), "cpu", pairs, clock),
        "cpu.exact_forward_ratio": lambda: paired(forward(field, options.size, True), "cpu", pairs, clock),
        "cpu.forward_backward_ratio": lambda: paired(training, "cpu", pairs, clock),
        "cpu.trigrid_forward_ratio": lambda: paired(
            forward(bundled, options.size, False), "cpu", pairs, clock
        ),
        "cpu.trigrid_exact_forward_ratio": lambda: paired(
            forward(bundled, options.size, True), "cpu", pairs, clock
        ),
        "cpu.grid_ratio": lambda: paired(grid, "cpu", max(1, pairs // 2), clock),
        "cpu.sparse_grid_ratio": lambda: sparse(field),
        "cpu.trigrid_sparse_grid_ratio": lambda: sparse(bundled),
        "cpu.thread_scaling": lambda: thread_scaling(forward(field, 128, True), pairs),
    }


def cuda_jobs(options: argparse.Namespace) -> dict[str, Callable[[], Summary]]:
    field = ball_field().to("cuda")
    training, pairs = both_ways(field, options.size), 4 * options.pairs

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    def grid(backend: str) -> None:
        sample_grid(field, options.grid, backend=backend)

    def memory() -> Summary:
        ours = cuda_bytes(training, "cuda")
        theirs = cuda_bytes(eager(field, options.size), "torch")
        chunked = cuda_bytes(training, "torch")
        return summary([theirs / ours]) | {"bytes": ours, "eager": theirs, "chunked": chunked}

    return {
        "cuda.forward_ratio": lambda: paired(forward(field, options.size, False), "cuda", pairs, clock),
        "cuda.exact_forward_ratio": lambda: paired(forward(field, options.size, True), "cuda", pairs, clock),
        "cuda.forward_backward_ratio": lambda: paired(training, "cuda", pairs, clock),
        "cuda.grid_ratio": lambda: paired(grid, "cuda", pairs, clock),
        "cuda.memory_ratio": memory,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument(
        "--size", type=int, default=64, help="picture side in rays (128 for the published figure)"
    )
    parser.add_argument("--grid", type=int, default=256, help="lattice side")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", default="", help="comma-separated parts of keys to measure")
    options = parser.parse_args()
    wanted = [w for w in options.only.split(",") if w]
    build.build()
    torch.set_num_threads(1)
    jobs = cpu_jobs(options) | (cuda_jobs(options) if torch.cuda.is_available() else {})
    results: dict[str, Any] = {}
    for name, measure in jobs.items():
        if not wanted or any(w in name for w in wanted):
            results[name] = measure()
            print(name, {k: round(v, 3) for k, v in results[name].items()}, file=sys.stderr, flush=True)
    if options.json:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
        about = {"device": device, "torch": torch.__version__, "load": os.getloadavg()[0]}
        print(json.dumps(about | {"size": options.size, "grid": options.grid} | results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
