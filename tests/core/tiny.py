"""A small generator of EG3D's or PanoHead's kind with a solid, smooth shape in it; no trained weights."""

from __future__ import annotations

from typing import Any

import torch

from geoinv_core.generator import EG3D_AXES, TRUE_AXES, GeneratorConfig, TriplaneGenerator, channel_table
from geoinv_core.render import Field


def solid(panohead: bool = False, seed: int = 3, **changes: Any) -> TriplaneGenerator:
    """Random weights, but for a density that is scaled so that about a quarter of the box is inside."""
    settings: dict[str, Any] = {
        "name": "m", "z_dim": 6, "w_dim": 8, "mapping_hidden": 7, "embed_dim": 5, "plane_channels": 8,
        "channels": channel_table(8, 32, 4), "axes": EG3D_AXES, "features": 8, "decoder_hidden": 12,
        "superresolution": "2X", "image_resolution": 128, "sr_conv_clamp": 256.0,
        "camera_target": (0.0, 0.0, 0.2), "unit_mm": 392.5,
    }  # fmt: skip
    if panohead:
        settings |= {
            "axes": TRUE_AXES, "plane_depth": 3, "crop": 0.1, "mask": True, "torgb_raw": True,
            "activation": "none", "signed": False, "background": channel_table(64, 16, 4),
            "translation": (2, 7, 5), "camera_target": (0.0, 0.0, 0.0),
        }  # fmt: skip
    torch.manual_seed(seed)
    generator = TriplaneGenerator(GeneratorConfig(**(settings | changes))).eval().requires_grad_(False)
    generator.w_avg.normal_()
    with torch.no_grad():
        raw = generator.sample_grid(generator.planes(generator.w_avg.expand(1, generator.num_ws, -1)), 24)
        last = generator.decoder.net[2]
        scale = 20 / float(raw.std())
        last.weight[0] *= scale
        last.bias[0] = (last.bias[0] - raw.quantile(0.75)) * scale + 10
    return generator


def plain(**changes: object) -> tuple[TriplaneGenerator, torch.Tensor, Field]:
    """A small generator without super-resolution, its mean style, and that head's colours."""
    settings = {"superresolution": None, "axes": TRUE_AXES, "camera_target": (0.0, 0.0, 0.0), **changes}
    generator = solid(**settings)
    ws = generator.w_avg.expand(1, generator.num_ws, -1)
    return generator, ws, generator.colour_field(generator.planes(ws), ws)
