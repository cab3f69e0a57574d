"""Trained checkpoints to the model that is shipped: `python -m geoinv_core.train.release`.

Writes NAME.safetensors, NAME.encoder.safetensors and NAME.detail.safetensors in half precision, with licence,
provenance and scores inside. What `calibrate` chose for a run is applied.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from geoinv_core import weights
from geoinv_core.detail import load_detail, save_detail
from geoinv_core.encoder import load_encoder, save_encoder
from geoinv_core.errors import ModelError
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.heads.layout import LabelLayout
from geoinv_core.train.dataset import UNIT_MM
from geoinv_core.train.generator import RAY_SPAN
from geoinv_core.weights.header import detail_beside

DATA = "synthetic heads drawn from MakeHuman's CC0 assets"
NECK_Y = -0.36
"""World height of the neck's cut: the base of the neck on the average head."""
CALIBRATION = "calibration.json"
"""What `calibrate` leaves in a run's folder; without it a run is released as it was trained."""


def scores_of(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of an evaluation that a model carries along."""
    return {"heads": evaluation["heads"], "size": evaluation["size"], **evaluation["summary"]}


def record(meta: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """What a shipped file says about itself: the run's own figures, today's date, then `about`."""
    kept = ("steps", "cascade_steps", "brow_steps", "minutes", "heads", "kept_out", "device")
    found = {key: meta[key] for key in kept if key in meta}
    return {"licence": "CC0-1.0", "data": DATA, "date": date.today().isoformat(), **found, **about}


def calibration_of(run: Path) -> dict[str, Any]:
    """What `calibrate` chose for a run; empty where it was not asked."""
    path = run / CALIBRATION
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def adjusted(generator: TriplaneGenerator, sharpen: float = 1.0, shrink: float = 0.0) -> TriplaneGenerator:
    """A copy that draws crisper outlines. Training leaves them a little too wide, as a surface that is unsure
    of its place is seen in front of it.

    Args: sharpen: of the density's width; shrink: world units by which the surface is moved inwards.
    """
    config = replace(generator.config, distance_radius=generator.config.distance_radius - shrink)
    copy = TriplaneGenerator(config)
    copy.load_state_dict(generator.state_dict())
    copy.decoder.log_beta.data += math.log(sharpen)
    return copy.to(generator.axes.device).eval().requires_grad_(False)


def release_generator(
    run: Path, layout: LabelLayout, target: Path, about: Mapping[str, Any], calibrated: bool = True
) -> Path:
    """The averaged weights of a generator run, as float16, ready to ship."""
    trained = weights.load(run / "generator.safetensors")
    chosen = calibration_of(run) if calibrated else {}
    generator = adjusted(trained, chosen.get("sharpen", 1.0), chosen.get("shrink", 0.0))
    near, far = RAY_SPAN
    generator.config = replace(generator.config, ray_start=near, ray_end=far, unit_mm=UNIT_MM)
    meta = weights.info(run / "generator.safetensors")["meta"]
    shipped = {**record(meta, about), **_recorded(chosen), "layout": layout.to_json(), "neck_y": NECK_Y}
    return weights.save(generator, target, shipped, half=True)


def release_encoder(
    run: Path, layout: LabelLayout, generator: Path, about: Mapping[str, Any], calibrated: bool = True
) -> Path:
    """The averaged weights of an encoder run, tied to the generator's file."""
    encoder, _, meta = load_encoder(run / "encoder.safetensors")
    chosen = calibration_of(run) if calibrated else {}
    for parameter in encoder.delta[-1].parameters():
        parameter.data.mul_(chosen.get("offsets", 1.0))
    target = generator.with_name(generator.stem + ".encoder.safetensors")
    shipped = {**record(meta, about), **_recorded(chosen), "generator": weights.info(generator)["sha256"]}
    save_encoder(encoder, layout, target, shipped, half=True)
    return target


def _recorded(calibration: Mapping[str, Any]) -> dict[str, Any]:
    return {"calibration": dict(calibration)} if calibration else {}


def release_detail(run: Path, generator: Path, about: Mapping[str, Any]) -> Path:
    """The averaged weights of a run of the local branch, beside the shipped generator that it was trained on.

    Raises: ModelError where it was another one.
    """
    network, meta = load_detail(run / "detail.safetensors")
    if meta["generator"] != weights.info(generator)["sha256"]:
        raise ModelError(f"The detail in {run} was not trained on {generator.name}; train it on that file.")
    target = detail_beside(generator)
    save_detail(network, target, {**record(meta, about), "generator": meta["generator"]}, half=True)
    return target


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Turn trained checkpoints into the model that is shipped.")
    parser.add_argument("data", type=Path, help="folder of drawn heads (for the label layout)")
    parser.add_argument("target", type=Path, help="generator file to write")
    parser.add_argument("--generator", type=Path, help="folder of the generator's run; omit to keep the file")
    parser.add_argument("--encoder", type=Path, help="folder of the encoder's run")
    parser.add_argument("--detail", type=Path, help="folder of the local branch's run")
    parser.add_argument("--about", default="{}", help="JSON object: device, date, data ...")
    parser.add_argument("--scores", type=Path, help="what `geoinv evaluate generator --json` printed")
    a = parser.parse_args(arguments)
    layout = LabelLayout.from_json(json.loads((a.data / "dataset.json").read_text())["layout"])
    about = json.loads(a.about)
    if a.scores:
        about["scores"] = scores_of(json.loads(a.scores.read_text()))
    if a.generator:
        release_generator(a.generator, layout, a.target, about)
    if a.encoder:
        release_encoder(a.encoder, layout, a.target, about)
    if a.detail:
        release_detail(a.detail, a.target, about)


if __name__ == "__main__":
    main()
