"""Random heads of a model to look at: many from the front, some all around."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from geoinv_core.camera import orbit
from geoinv_core.evaluate.generator import layout_of
from geoinv_core.evaluate.sheet import sheet
from geoinv_core.heads import HeadAssets, sample
from geoinv_core.model import Model

TURNS = tuple(range(0, 360, 45))
_COLUMNS = 8


def gallery(
    model: Model,
    assets: HeadAssets,
    seeds: range,
    turning: int,
    size: int,
    on_head: Callable[[int, str], None] = lambda done, text: None,
) -> Image.Image:
    """Heads with the labels of `seeds`: all from the front, the first `turning` also from eight sides.

    on_head is told the number of heads done and what is drawn.
    """
    layout = layout_of(model)
    fronts: list[NDArray[Any]] = []
    rows: list[tuple[str, list[NDArray[Any]]]] = []
    for i, seed in enumerate(seeds):
        z, c = (torch.from_numpy(v)[None].to(model.device) for v in layout.encode(sample(assets, seed)))
        head = model.head_of(z, c)
        yaws = TURNS if i < turning else TURNS[:1]
        views = [np.asarray(head.look(orbit(float(yaw)), size)[0]) for yaw in yaws]
        fronts.append(views[0])
        if i < turning:
            rows.append((f"{seed}\naround", views))
        on_head(i + 1, f"{len(views)} views")
    lines = [fronts[i : i + _COLUMNS] for i in range(0, len(fronts), _COLUMNS)]
    captions = [str(yaw) for yaw in TURNS]
    return sheet(captions, [*(("front", line) for line in lines), *rows], size)
