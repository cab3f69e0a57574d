"""The engine's state and its buttons, in the sidebar and in the preferences."""

from __future__ import annotations

from typing import Any

import bpy

from .. import session as sessions
from .main import TAB
from .text import sentence

STATES = {
    "off": ("Engine is off; it starts with the first head", "RADIOBUT_OFF"),
    "starting": ("Engine is starting", "SORTTIME"),
    "ready": ("Engine is ready", "CHECKMARK"),
    "busy": ("Engine is working", "SORTTIME"),
    "lost": ("Engine has stopped", "ERROR"),
}


def draw_engine(layout: Any, context: bpy.types.Context) -> None:
    session = sessions.session
    text, icon = STATES[session.engine_state]
    column = layout.column()
    sentence(column, context, text, icon)
    if session.engine.address is not None:
        whose = "" if session.engine.owned else ", shared with another Blender"
        sentence(column, context, f"Version {session.engine.address.version}{whose}", "BLANK1")
    if session.engine_state in ("off", "lost"):
        layout.operator("geoinv.start_engine", icon="PLAY")
    else:
        layout.operator("geoinv.stop_engine", icon="SNAP_FACE")


class GEOINV_PT_engine(bpy.types.Panel):
    bl_label = "Engine"
    bl_idname = "GEOINV_PT_engine"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = TAB
    bl_options = {"DEFAULT_CLOSED"}
    bl_order = 10

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        draw_engine(layout, context)
        column = layout.column(align=True)
        column.operator("geoinv.import_head", icon="IMPORT").directory = ""
        column.operator("geoinv.open_folder", icon="FILE_FOLDER")
        column.operator("geoinv.open_preferences", icon="PREFERENCES")


CLASSES = (GEOINV_PT_engine,)
