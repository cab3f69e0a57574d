"""The whole way from nothing to the shipped files, in steps that a run can take on several machines:
`python -m geoinv_core train model WORK --carry PIECES`.

A step goes on where the last one stopped, ends before its minutes are over, and leaves in PIECES, as files
below 16 MiB, all that the next one needs: on another machine that folder, the code and the head data are
enough. What is drawn is not carried: each machine draws heads of its own, in the background, so training
never sees the same ones twice.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from geoinv_core import weights
from geoinv_core.errors import GeoInvError
from geoinv_core.evaluate.generator import evaluate_generator
from geoinv_core.heads import EVALUATION_SEEDS, HeadAssets, LabelLayout
from geoinv_core.model import open_model
from geoinv_core.train import brows, calibrate, cascade, detail, encoder, flows, generator, pieces
from geoinv_core.train.dataset import HEADS, KEEP_OUT_HELP, parts_named
from geoinv_core.train.release import release_detail, release_encoder, release_generator, scores_of
from geoinv_core.train.samples import draw_samples
from geoinv_core.weights.header import detail_beside, encoder_beside

STAGES = ("generator", "encoder", "cascade", "brows", "detail")
"""What is trained, each on the released files of those before it."""
_SAMPLE_SEEDS = 500_000  # seeds of the generator's own heads lie from here on
_LAST = 1.0  # minutes of a step that are kept for packing


@dataclass(frozen=True)
class Plan:
    """What to train; written beside the pieces by the first step, read by the others."""

    heads: int = 10_000
    """drawn on each machine, each with a variant; 256 pixels and 3 views take 5 MB of memory for both"""
    size: int = 256
    views: str = "front,any,wide"
    keep_out: tuple[str, ...] = ()
    generator_minutes: float = 25
    batch: int = 16
    rays: int = 1024
    """pixels per head and step that the generator draws"""
    samples: int = 1024
    encoder_minutes: float = 15
    encoder_batch: int = 64
    cascade_minutes: float = 6
    brow_minutes: float = 4
    detail_minutes: float = 15
    flows: tuple[int, int, int] = (1400, 12_000, 6000)
    """heads solved for, heads labelled, steps of the mapping"""
    calibrate: tuple[int, int] = (12, 128)
    """heads, pixels"""
    evaluate: tuple[int, int] = (16, 128)
    """heads, pixels"""
    tiny: bool = False
    """small networks and pictures, to rehearse all of it in a minute"""


TINY = Plan(
    heads=8,
    size=32,
    views="front,any",
    generator_minutes=0.1,
    batch=4,
    rays=64,
    samples=4,
    encoder_minutes=0.1,
    encoder_batch=4,
    cascade_minutes=0.1,
    brow_minutes=0.1,
    detail_minutes=0.1,
    flows=(8, 16, 20),
    calibrate=(2, 32),
    evaluate=(1, 32),
    tiny=True,
)


class Work:
    """The folders of a run on this machine."""

    def __init__(self, folder: Path, carry: Path, plan: Plan, heads: str | None) -> None:
        self.folder, self.carry, self.plan, self.heads = folder, carry, plan, heads
        self.data, self.samples = folder / "data", folder / "samples"
        self.release = folder / "release" / "default.safetensors"

    def run(self, stage: str) -> Path:
        return self.folder / stage

    def stage(self) -> str | None:
        """The first stage that is not done; None when all are."""
        for stage in STAGES:
            if not self._spent(stage):
                return stage
        return None if detail_beside(self.release).is_file() else "release"

    def _spent(self, stage: str) -> bool:
        path = self.run(stage) / "run.json"
        if not path.is_file():
            return False
        run = json.loads(path.read_text())
        return bool(run["elapsed"] >= 60 * run["minutes"])

    def restore(self) -> None:
        """Bring over what earlier steps left, on a machine that has nothing yet."""
        for folder in (p for p in self.carry.iterdir() if p.is_dir()):
            for index in folder.glob("*.json"):
                name = index.name.removesuffix(".json")
                if not (self.folder / folder.name / name).exists():
                    pieces.join(folder, name, self.folder / folder.name / name)

    def pack(self) -> None:
        """Leave what the next step needs; a stage that is done needs no checkpoint any more."""
        for stage in (*STAGES, "release"):
            kept = {p.name for p in self.run(stage).glob("*") if p.is_file()}
            if stage != "release" and self._spent(stage):
                kept.discard("checkpoint.pt")
            fresh = self.carry / f".{stage}"
            shutil.rmtree(fresh, ignore_errors=True)
            for name in sorted(kept):
                pieces.split(self.run(stage) / name, fresh)
            shutil.rmtree(self.carry / stage, ignore_errors=True)
            if fresh.is_dir():
                fresh.rename(self.carry / stage)


def step(folder: Path, carry: Path, plan: Plan | None, heads: str | None, minutes: float) -> dict[str, Any]:
    """Go on for at most `minutes`. Returns what was done: stage now (None: all is done), minutes, files.

    plan: for the first step; later ones read it from `carry`, and None will do.
    """
    end = time.monotonic() + 60 * minutes - 60 * min(_LAST, 0.1 * minutes)
    carry.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    work = Work(folder, carry, _kept_plan(carry, plan), heads)
    work.restore()

    def left() -> float:
        return (end - time.monotonic()) / 60

    if work.stage() in STAGES:
        with _drawing(work, left):
            if work.stage() == "generator" and left() > 0:
                _train_generator(work, left())
            if work.stage() == "encoder" and _generator_released(work, left) and _samples_drawn(work, left):
                _train_encoder(work, left())
            if work.stage() == "cascade" and left() > 0:
                _train_cascade(work, left())
            if work.stage() == "brows" and left() > 0:
                _train_brows(work, left())
            if work.stage() == "detail" and _encoder_released(work, left) and left() > 0:
                _train_detail(work, left())
            if left() <= 0 and not (work.run(work.stage() or "") / "run.json").is_file():
                print("This step was over before training began: give --minutes more.", file=sys.stderr)
    if work.stage() == "release":
        release_detail(work.run("detail"), work.release, {})
    work.pack()
    files = sorted(str(p.relative_to(carry)) for p in carry.rglob("*") if p.is_file())
    return {"next": work.stage(), "release": str(work.release.parent), "carried": files}


def _kept_plan(carry: Path, plan: Plan | None) -> Plan:
    path = carry / "plan.json"
    if not path.is_file():
        path.write_text(json.dumps(asdict(plan or Plan())))
    kept: dict[str, Any] = json.loads(path.read_text())
    lists = {k: tuple(v) for k, v in kept.items() if isinstance(v, list)}
    return Plan(**{**kept, **lists})


@contextmanager
def _drawing(work: Work, left: Callable[[], float]) -> Iterator[None]:
    """Heads are drawn in the background meanwhile; begins when there are enough for a batch."""
    plan, count = work.plan, max(1, (os.cpu_count() or 2) - 1)
    first = _first_seed(work)
    command = [sys.executable, "-m", "geoinv_core", "train", "dataset", str(work.data)]
    command += ["--start", str(first), "--count", str(plan.heads), "--size", str(plan.size)]
    command += ["--variants", "--views", plan.views, *(["--heads", work.heads] if work.heads else [])]
    command += ["--keep-out", *plan.keep_out] if plan.keep_out else []
    shards = math.ceil(plan.heads / HEADS)
    parts = min(count, shards)
    workers = [
        subprocess.Popen([*command, "--part", str(k), str(parts)], stdout=subprocess.DEVNULL)
        for k in range(parts)
    ]
    try:
        while not any(work.data.glob("heads-*[0-9].npz")):
            if any(worker.poll() for worker in workers):
                raise GeoInvError("Drawing heads failed; its message is above.", "heads")
            if left() <= 0:
                break
            time.sleep(0.2)
        yield
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()


def _first_seed(work: Work) -> int:
    """Where this machine's seeds begin: each machine has a stretch of its own."""
    mine, counter = work.folder / "machine.json", work.carry / "machines.json"
    if not mine.is_file():
        machines = json.loads(counter.read_text()) if counter.is_file() else 0
        counter.write_text(json.dumps(machines + 1))
        mine.write_text(json.dumps(machines))
    first: int = json.loads(mine.read_text()) * work.plan.heads % (_SAMPLE_SEEDS - work.plan.heads)
    return first


def _layout(work: Work) -> LabelLayout:
    return LabelLayout.from_json(json.loads((work.data / "dataset.json").read_text())["layout"])


def _train_generator(work: Work, session: float) -> None:
    plan = work.plan
    settings = generator.Settings(batch=plan.batch, rays=plan.rays)
    if plan.tiny:
        settings = replace(settings, surface=256, near=128, free=128, core=16, bfloat16=False, log_every=10)
    folder, budget = work.run("generator"), plan.generator_minutes
    start = work.folder / "start.safetensors"
    if not (folder / "checkpoint.pt").is_file() and not start.is_file():
        assets = HeadAssets.open(work.heads)
        config = (generator.tiny_config if plan.tiny else generator.default_config)(LabelLayout.of(assets))
        solved, labelled, steps = plan.flows
        flows.begin(start, assets, config, None, solved, labelled, steps)
    generator.train(work.data, folder, budget, settings, plan.tiny, _threads(), start=start, session=session)


def _generator_released(work: Work, left: Callable[[], float]) -> bool:
    """Calibrate, measure and release the trained generator; False when the step is over before that.

    All of it before anything is trained on the file, because encoder and detail know it by its hash.
    """
    scores = work.run("release") / "scores.json"
    if scores.is_file():
        return True
    if left() <= (0 if work.plan.tiny else 5):
        return False
    run, layout, assets = work.run("generator"), _layout(work), HeadAssets.open(work.heads)
    count, size = work.plan.calibrate
    calibrate.generator_run(run, layout, assets, _calibration_seeds(count), size)
    release_generator(run, layout, work.release, {})
    count, size = work.plan.evaluate
    seeds = range(EVALUATION_SEEDS, EVALUATION_SEEDS + count)
    report = evaluate_generator(open_model(work.release), assets, seeds, size)
    report.sheet.save(work.release.with_name("sheet.png"))
    about = {"scores": scores_of({"heads": count, "size": size, **report.scores})}
    release_generator(run, layout, work.release, about)
    scores.write_text(json.dumps(report.scores))
    return True


def _encoder_released(work: Work, left: Callable[[], float]) -> bool:
    """The same for the encoder, on which detail is trained."""
    if encoder_beside(work.release).is_file():
        return True
    if left() <= (0 if work.plan.tiny else 3):
        return False
    run, layout, assets = work.run("brows"), _layout(work), HeadAssets.open(work.heads)
    count, size = work.plan.calibrate
    calibrate.encoder_run(run, layout, work.release, assets, _calibration_seeds(count), size)
    release_encoder(run, layout, work.release, {})
    return True


def _calibration_seeds(count: int) -> range:
    return range(calibrate.CALIBRATION_SEEDS, calibrate.CALIBRATION_SEEDS + count)


def _samples_drawn(work: Work, left: Callable[[], float]) -> bool:
    """Draw the generator's own heads; False when the step is over before all are there."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, assets = weights.load(work.release, device), HeadAssets.open(work.heads)
    size = min(work.plan.size, 128)
    for first in range(0, work.plan.samples, HEADS):
        if left() <= 0:
            return False
        count = min(HEADS, work.plan.samples - first)
        draw_samples(model, assets, work.samples, _SAMPLE_SEEDS + first, count, size)
    return True


def _train_encoder(work: Work, session: float) -> None:
    plan = work.plan
    settings = encoder.Settings(batch=plan.encoder_batch)
    if plan.tiny:
        settings = replace(settings, bfloat16=False, through_generator=2, log_every=2)
    encoder.train(
        work.data,
        work.run("encoder"),
        plan.encoder_minutes,
        work.release,
        samples=work.samples,
        settings=settings,
        threads=_threads(),
        widths=(16, 16, 16, 32, 32) if plan.tiny else None,
        session=session,
    )


def _train_cascade(work: Work, session: float) -> None:
    plan = work.plan
    settings = cascade.Settings(batch=plan.encoder_batch)
    if plan.tiny:
        settings = replace(settings, pool=16, log_every=2)
    trained, run = work.run("encoder") / "encoder.safetensors", work.run("cascade")
    cascade.train(
        work.data, run, trained, plan.cascade_minutes, settings, threads=_threads(), session=session
    )


def _train_brows(work: Work, session: float) -> None:
    plan, settings = work.plan, brows.Settings()
    if plan.tiny:
        settings = replace(settings, batch=4, pool=16, log_every=2)
    trained, run = work.run("cascade") / "encoder.safetensors", work.run("brows")
    brows.train(work.data, run, trained, plan.brow_minutes, settings, threads=_threads(), session=session)


def _train_detail(work: Work, session: float) -> None:
    plan, settings = work.plan, detail.Settings()
    if plan.tiny:
        settings = replace(settings, rays=64, log_every=2)
    detail.train(
        work.data,
        work.run("detail"),
        plan.detail_minutes,
        work.release,
        encoder_beside(work.release),
        settings=settings,
        tiny=plan.tiny,
        threads=_threads(),
        session=session,
    )


def _threads() -> int:
    return 1 if torch.cuda.is_available() else max(1, torch.get_num_threads())


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description="Train the shipped model in steps; repeat the same call until it prints next: null."
    )
    parser.add_argument("work", type=Path, help="folder on this machine (drawn heads, checkpoints)")
    parser.add_argument("--carry", type=Path, required=True, help="folder of pieces that goes along")
    parser.add_argument("--heads", help="folder of the head data (default: GEOINV_HEADS)")
    parser.add_argument("--minutes", type=float, default=9, help="of this step (default: 9)")
    parser.add_argument("--generator-minutes", type=float, default=Plan.generator_minutes)
    parser.add_argument("--encoder-minutes", type=float, default=Plan.encoder_minutes)
    parser.add_argument("--cascade-minutes", type=float, default=Plan.cascade_minutes)
    parser.add_argument("--brow-minutes", type=float, default=Plan.brow_minutes)
    parser.add_argument("--detail-minutes", type=float, default=Plan.detail_minutes)
    parser.add_argument("--count", type=int, default=Plan.heads, help="heads drawn on each machine")
    parser.add_argument("--size", type=int, default=Plan.size, help="pixels of the drawn heads")
    parser.add_argument("--batch", type=int, default=Plan.batch)
    parser.add_argument("--keep-out", nargs="+", default=(), metavar="KIND=NAME", help=KEEP_OUT_HELP)
    parser.add_argument("--tiny", action="store_true", help="rehearse all of it with small settings")
    a = parser.parse_args(arguments)
    parts_named(a.keep_out)
    plan = (
        TINY
        if a.tiny
        else Plan(
            heads=a.count,
            size=a.size,
            keep_out=tuple(a.keep_out),
            generator_minutes=a.generator_minutes,
            encoder_minutes=a.encoder_minutes,
            cascade_minutes=a.cascade_minutes,
            brow_minutes=a.brow_minutes,
            detail_minutes=a.detail_minutes,
            batch=a.batch,
        )
    )
    return step(a.work, a.carry, plan, a.heads, a.minutes)


if __name__ == "__main__":
    main()
