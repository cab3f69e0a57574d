"""A picture to judge a model by: rows of heads with captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[Any]
_MARGIN, _HEADER = 120, 24


def sheet(
    columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Array]]], tile: int = 160
) -> Image.Image:
    """Pictures in a table.

    Args:
        columns: their captions. rows: caption (lines are kept) and pictures [S, S, 3] sRGB 0..1. tile: pixels
        a side.
    """
    width, height = _MARGIN + tile * len(columns), _HEADER + tile * len(rows)
    page = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for k, caption in enumerate(columns):
        pen.text((_MARGIN + tile * k + 4, 4), caption, "black", font)
    for i, (caption, pictures) in enumerate(rows):
        pen.multiline_text((4, _HEADER + tile * i + 4), caption, "black", font)
        for k, pixels in enumerate(pictures):
            picture = Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
            page.paste(
                picture.resize((tile, tile), Image.Resampling.LANCZOS),
                (_MARGIN + tile * k, _HEADER + tile * i),
            )
    return page
