"""Everything that only a GPU can show, in one call of under eight minutes: python build.py bench gpu

Twin tests, compute-sanitizer (if installed), the renderer's benchmarks and training steps. The result
goes to tests/bench/results/renderer-<device>-<date>.json, also when a part of it failed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "tests" / "bench"
TWINS = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/core/test_render_cuda.py"]
LIMITS = {
    "cuda.forward_ratio": ("native_ms", 0.5),
    "cuda.forward_backward_ratio": ("native_ms", 2.0),
    "cuda.grid_ratio": ("native_ms", 1.5),
}
"""Milliseconds that are aimed at on an H200."""


def part(name: str, command: list[str], seconds: float) -> dict[str, Any]:
    """Run one part. Returns its command, exit code, seconds, and what it printed last."""
    print(f"{name} ...", flush=True)
    start = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False, errors="replace"
        )
        code, out, log = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired:
        code, out, log = 124, "", f"not done in {seconds:.0f} s"
    took = time.monotonic() - start
    print(f"   {'ok' if code == 0 else f'exit code {code}'} in {took:.0f} s", flush=True)
    shown = " ".join(Path(c).name if c == sys.executable else c for c in command)
    return {"command": shown, "code": code, "seconds": round(took, 1), "out": out, "log": log[-2000:]}


def parts(heads: str | None) -> dict[str, tuple[list[str], float]]:
    """Name to command and seconds, in order of importance."""
    python = sys.executable
    found = {"twins": ([*TWINS, "-k", "gpu or arch"], 150.0)}
    renderer = [
        python,
        str(BENCH / "renderer.py"),
        "--json",
        "--only",
        "cuda",
        "--size",
        "128",
        "--pairs",
        "8",
    ]
    found["renderer"] = (renderer, 100.0)
    training = [python, str(BENCH / "training.py"), "--json", "--steps", "20"]
    found["training"] = ([*training, *(["--heads", heads] if heads else [])], 80.0)
    if tool := shutil.which("compute-sanitizer"):
        few = [*TWINS, "-k", "gpu and (odd or query or nothing)"]
        found["sanitizer"] = ([tool, "--error-exitcode", "9", *few], 120.0)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", help="folder of the head data, for the training steps")
    parser.add_argument("--parts", default="", help="comma-separated; all by default")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no CUDA device that PyTorch can use here: run this on a machine with an NVIDIA GPU.")
        return 1
    device, date = torch.cuda.get_device_name(), datetime.datetime.now(datetime.UTC).date().isoformat()
    report: dict[str, Any] = {"date": date, "device": device, "torch": torch.__version__}
    wanted = [w for w in options.parts.split(",") if w]
    for name, (command, seconds) in parts(options.heads).items():
        if wanted and name not in wanted:
            continue
        found = part(name, command, seconds)
        out = found.pop("out")
        try:
            found["result"] = json.loads(out.splitlines()[-1])
        except (ValueError, IndexError):
            found["result"] = out[-2000:]
        if found["code"] == 0:
            found.pop("log")
        report[name] = found
    if "sanitizer" not in report:
        report["sanitizer"] = "compute-sanitizer is not installed" if not wanted else "not asked for"
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower().replace("nvidia", "")).strip("-")
    path = BENCH / "results" / f"renderer-{slug}-{date}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(path.relative_to(ROOT))
    measured = report.get("renderer", {}).get("result", {})
    for key, (number, limit) in LIMITS.items():
        if isinstance(measured, dict) and key in measured:
            took, ratio = measured[key][number], measured[key]["median"]
            print(f"{key}: {took:.3f} ms (aim {limit}), {ratio:.1f} times PyTorch")
    return 0 if all(r["code"] == 0 for r in report.values() if isinstance(r, dict)) else 1


if __name__ == "__main__":
    sys.exit(main())
