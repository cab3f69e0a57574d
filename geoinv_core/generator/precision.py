"""What super-resolution calculates in, and what 16 bits cost in exactness.

As in EG3D's released models, 16 bits are for the two blocks of super-resolution alone, whose values are
clamped (`sr_conv_clamp`, 256). Nothing limits the values of other blocks, and the field magnifies every error
of the planes: they, the styles, the skip pictures and all that the renderer draws stay float32. So does
everything that gradients flow through, whose steps per pixel are too small for float16.

Measured on a CPU against the original code's float32 pictures (peak: their largest value; an 8-bit step is
.0078). Largest difference, and the root of the mean square:

    network             peak    float32           bfloat16         float16
    EG3D, tiny, 2X      4.0     2.4e-5  1.5e-6    .029  .0067      .0036  .00067
    EG3D, FFHQ, 8XDC    2.4     3.1e-5  1.6e-6    .037  .0048      .0033  .00054
    PanoHead, tiny, 2X  4.7     2.0e-5  1.7e-6    .130  .0105      .0116  .0012

On processors with bfloat16 of their own it halves the time of an FFHQ picture; float16 is for graphics cards,
a processor takes many times as long.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch

from geoinv_core.errors import ModelError
from geoinv_core.generator.generator import TriplaneGenerator

Precision = Literal["auto", "float32", "bfloat16", "float16"]


def set_precision(generator: TriplaneGenerator, precision: Precision = "auto") -> None:
    """Let the generator's super-resolution calculate in this type from now on; its weights stay float32.

    Args: precision: "auto" is float16 on CUDA, as in EG3D, and float32 elsewhere.
    Raises: ModelError where a 16-bit type is asked for by name and the generator has no part for it.
    """
    chosen = precision
    if precision == "auto":
        chosen = "float16" if generator.w_avg.device.type == "cuda" else "float32"
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if chosen not in dtypes:
        text = f"{precision!r} is no precision; choose one of {', '.join(get_args(Precision))}."
        raise ModelError(text, "precision")
    k = generator.config
    if k.superresolution is None or k.sr_conv_clamp is None:
        if precision in ("bfloat16", "float16"):
            raise ModelError(
                f"{k.name} cannot calculate in {precision}: it has no super-resolution with limited values, "
                "the only part that may; use float32, or auto.",
                "precision",
            )
        return
    for block in (generator.superresolution.block0, generator.superresolution.block1):
        block.dtype = dtypes[chosen]
