"""Sentences in a panel: Blender's labels do not wrap by themselves."""

from __future__ import annotations

import textwrap
from typing import Any

import bpy

LETTER_PIXELS = 6.6
"""Mean width of a letter of the interface font at a scale of 1; a little much, so that nothing is cut off."""

MARGIN_PIXELS = 96
"""The tabs, the box, the icon and the button that hides the message."""


def columns(context: bpy.types.Context) -> int:
    """How many letters fit in a line of the region."""
    scale = context.preferences.system.ui_scale or 1.0  # 0 where Blender has no screen
    width = context.region.width if context.region is not None else 280
    return max(18, int((width / scale - MARGIN_PIXELS) / LETTER_PIXELS))


def sentence(layout: Any, context: bpy.types.Context, text: str, icon: str = "NONE") -> None:
    """`text` in as many lines as it needs, the icon before the first."""
    column = layout.column(align=True)
    column.scale_y = 0.8
    for number, line in enumerate(textwrap.wrap(text, columns(context), break_long_words=True)):
        column.label(text=line, icon=icon if number == 0 else "BLANK1" if icon != "NONE" else "NONE")
