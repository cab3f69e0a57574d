"""Trained checkpoints to the model that is shipped: `python -m geoinv_core.train.release`.

Writes NAME.safetensors and NAME.encoder.safetensors in half precision, with licence, provenance and scores
inside.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from geoinv_core import weights
from geoinv_core.encoder import Encoder, EncoderConfig, save_encoder
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.heads.layout import LabelLayout
from geoinv_core.train.generator import default_config

UNIT_MM = 410.0
"""Millimetres in a world unit, the mean over the training heads (standard deviation 31: children are
smaller)."""
NECK_Y = -0.36
"""World height of the neck's cut: the base of the neck on the average head."""


def release_generator(run: Path, layout: LabelLayout, target: Path, about: dict[str, object]) -> Path:
    """The averaged weights of a generator run, as float16, ready to ship."""
    state = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)
    # Heads lie between these distances from any orbit camera: tighter than EG3D's, so samples are not wasted.
    generator = TriplaneGenerator(
        replace(default_config(layout), ray_start=2.2, ray_end=3.2, unit_mm=UNIT_MM)
    )
    generator.load_state_dict(state["ema"])
    meta = {
        "licence": "CC0-1.0",
        "layout": layout.to_json(),
        "neck_y": NECK_Y,
        "steps": state["step"],
        "minutes": round(state["elapsed"] / 60, 1),
        **about,
    }
    return weights.save(generator, target, meta, half=True)


def release_encoder(run: Path, layout: LabelLayout, generator: Path, about: dict[str, object]) -> Path:
    """The averaged weights of an encoder run, tied to the generator's file."""
    state = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)
    made_for = weights.load(generator)
    encoder = Encoder(EncoderConfig.of(layout, made_for.num_ws, made_for.config.w_dim))
    encoder.load_state_dict(state["ema"])
    target = generator.with_name(generator.stem + ".encoder.safetensors")
    meta = {
        "licence": "CC0-1.0",
        "generator": weights.info(generator)["sha256"],
        "steps": state["step"],
        "minutes": round(state["elapsed"] / 60, 1),
        **about,
    }
    save_encoder(encoder, layout, target, meta, half=True)
    return target


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Turn trained checkpoints into the model that is shipped.")
    parser.add_argument("data", type=Path, help="folder of drawn heads (for the label layout)")
    parser.add_argument("target", type=Path, help="generator file to write")
    parser.add_argument("--generator", type=Path, help="folder of the generator's run; omit to keep the file")
    parser.add_argument("--encoder", type=Path, help="folder of the encoder's run")
    parser.add_argument("--about", default="{}", help="JSON object: device, date, data, scores ...")
    a = parser.parse_args(arguments)
    layout = LabelLayout.from_json(json.loads((a.data / "dataset.json").read_text())["layout"])
    about = json.loads(a.about)
    if a.generator:
        release_generator(a.generator, layout, a.target, about)
    if a.encoder:
        release_encoder(a.encoder, layout, a.target, about)


if __name__ == "__main__":
    main()
