"""Which model heads are made with, under which licence: a list of those at hand, or any file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import bpy

from .. import preferences
from ..errors import Trouble
from ..models import BUNDLED, ModelFacts, models_in, read_model
from .text import sentence


class GEOINV_MT_model(bpy.types.Menu):
    bl_idname = "GEOINV_MT_model"
    bl_label = "Model"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.operator("geoinv.use_model", text="Bundled Model", icon="USER").model = BUNDLED
        for path in models_in(preferences.data_folder() / "models"):
            layout.operator("geoinv.use_model", text=path.stem, icon="FILE").model = str(path)
        layout.operator("geoinv.choose_model", icon="FILEBROWSER")


def draw_model(layout: Any, context: bpy.types.Context) -> None:
    """The chosen model, its licence, and what to expect of it."""
    name = preferences.get(context).model
    try:
        facts = _facts(name, _changed(name))
    except Trouble as trouble:
        _menu(layout, "Choose a Model")
        sentence(layout, context, str(trouble), "ERROR")
        return
    _menu(layout, facts.title)
    sentence(layout, context, f"Licence: {facts.licence}")
    if facts.slow:
        text = "No encoder: heads take minutes of optimisation, 200 steps unless told otherwise"
        sentence(layout, context, text, "INFO")


def _menu(layout: Any, title: str) -> None:
    """The list of models, labelled and aligned like the properties below it."""
    row = layout.split(factor=0.4)
    label = row.row()
    label.alignment = "RIGHT"
    label.label(text="Model")
    row.menu("GEOINV_MT_model", text=title)


@lru_cache(maxsize=4)
def _facts(name: str, changed: int) -> ModelFacts:
    return read_model(name)


def _changed(name: str) -> int:
    try:
        return Path(name).stat().st_mtime_ns
    except OSError:
        return 0


CLASSES = (GEOINV_MT_model,)
