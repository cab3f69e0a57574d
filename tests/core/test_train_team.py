"""Training in several processes: torchrun starts two, which end with the same weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from geoinv_core.heads import HeadAssets
from geoinv_core.train.dataset import draw_all

SCRIPT = """
import sys
from pathlib import Path

import torch

from geoinv_core.train import generator
from geoinv_core.train.team import Team

settings = generator.Settings(batch=2, surface=64, near=32, free=32, core=8, bfloat16=False, log_every=5)
kept = []
averaged = Team.average


def average(team, parameters):
    parameters = list(parameters)
    before = parameters[0].grad.clone()
    averaged(team, parameters)
    kept.append((before, parameters))


def everyone(x):
    rows = [torch.empty_like(x) for _ in range(2)]
    torch.distributed.all_gather(rows, x.contiguous())
    return rows


def leave(team):
    assert team.size == 2
    own = everyone(kept[-1][0])
    assert not torch.equal(*own), "the processes saw the same heads"
    for parameter in kept[-1][1]:
        assert torch.equal(*everyone(parameter.detach())), "the processes drifted apart"
    assert len(set(float(x) for x in everyone(torch.tensor(float(len(kept)))))) == 1
    left(team)
    threads = [(task / "comm").read_text() for task in Path("/proc/self/task").glob("*")]
    assert not any("gloo" in name for name in threads), "a thread that may outlive Python"
    print("agreed", flush=True)


left = Team.leave
Team.average, Team.leave = average, leave
generator.train(Path(sys.argv[1]), Path(sys.argv[2]), 0.05, settings, tiny=True)
"""


def test_processes_stay_together(assets: HeadAssets, tmp_path: Path) -> None:
    list(draw_all(tmp_path / "drawn", str(assets.folder), 0, 8, 32, 1, ("front", "any")))
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *launch, script, tmp_path / "drawn", tmp_path / "run"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("agreed") == 2
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert lines
    assert (tmp_path / "run" / "generator.safetensors").exists()
    assert done.stdout.count('"step"') == len(lines)  # one process speaks
