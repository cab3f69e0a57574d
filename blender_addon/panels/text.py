"""Sentences in a panel: Blender's labels do not wrap by themselves."""

from __future__ import annotations

import textwrap
from typing import Any

import bpy

LETTER_PIXELS = 6.6
"""Mean width of a letter of the interface font at a scale of 1; a little much, so that nothing is cut off."""

TABS_PIXELS, ICON_PIXELS = 48, 24
"""The tabs with the panel's borders; an icon, or a button beside the text with its gap."""


def columns(context: bpy.types.Context, icons: int = 0) -> int:
    """How many letters fit in a line of the region beside so many icons."""
    scale = context.preferences.system.ui_scale or 1.0  # 0 where Blender has no screen
    width = context.region.width if context.region is not None else 280
    return max(18, int((width / scale - TABS_PIXELS - ICON_PIXELS * icons) / LETTER_PIXELS))


def sentence(
    layout: Any, context: bpy.types.Context, text: str, icon: str = "NONE", buttons: int = 0
) -> None:
    """`text` in as many lines as it needs, the icon before the first, room for buttons at its right."""
    room = columns(context, buttons + (icon != "NONE"))
    column = layout.column(align=True)
    column.scale_y = 0.8
    for number, line in enumerate(textwrap.wrap(text, room, break_on_hyphens=False)):
        column.label(text=line, icon=icon if number == 0 else "BLANK1" if icon != "NONE" else "NONE")
