"""Start and stop the engine; choose its Python; open the preferences."""

from pathlib import Path

import bpy

from .. import preferences, redraw
from .. import session as sessions
from ..engine import python_in
from ..errors import Trouble
from .base import Result, finish, refuse


class GEOINV_OT_start_engine(bpy.types.Operator):
    """Start the engine now, so that the first head does not wait for it"""

    bl_idname = "geoinv.start_engine"
    bl_label = "Start Engine"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return sessions.session.engine_state in ("off", "lost")

    def execute(self, context: bpy.types.Context) -> Result:
        try:
            sessions.session.start_engine()
        except Trouble as trouble:
            return refuse(self, trouble)
        return finish(self) if bpy.app.background else {"FINISHED"}


class GEOINV_OT_stop_engine(bpy.types.Operator):
    """End the engine and give its memory back; a running job is cancelled"""

    bl_idname = "geoinv.stop_engine"
    bl_label = "Stop Engine"

    def execute(self, context: bpy.types.Context) -> Result:
        try:
            sessions.session.stop_engine()
        except Trouble as trouble:
            return refuse(self, trouble)
        sessions.session.trouble = None
        return {"FINISHED"}


class GEOINV_OT_choose_python(bpy.types.Operator):
    """Choose the folder that GeoInv was set up in, or the python of another environment that has it"""

    bl_idname = "geoinv.choose_python"
    bl_label = "Choose GeoInv Folder"

    filepath: bpy.props.StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> Result:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> Result:
        chosen = Path(bpy.path.abspath(self.filepath)).expanduser()
        folder = chosen if chosen.is_dir() else chosen.parent
        if not chosen.is_file():
            chosen = python_in(folder)
        if not chosen.is_file():
            return refuse(
                self,
                Trouble(
                    f"There is no engine in {folder}: choose the folder in which "
                    "`python build.py setup` was run, or the python program inside its .venv.",
                    code="no_python",
                    fix="geoinv.choose_python",
                ),
            )
        preferences.get(context).python = str(chosen)
        sessions.session.trouble = None
        redraw.sidebars()
        return {"FINISHED"}


class GEOINV_OT_open_preferences(bpy.types.Operator):
    """Show GeoInv's preferences"""

    bl_idname = "geoinv.open_preferences"
    bl_label = "Open Preferences"

    def execute(self, context: bpy.types.Context) -> Result:
        package = preferences.__package__
        if package not in context.preferences.addons or bpy.app.background:
            self.report({"WARNING"}, "GeoInv runs from its source and has no page in the preferences.")
            return {"CANCELLED"}
        bpy.ops.preferences.addon_show(module=package)
        return {"FINISHED"}


CLASSES = (
    GEOINV_OT_start_engine,
    GEOINV_OT_stop_engine,
    GEOINV_OT_choose_python,
    GEOINV_OT_open_preferences,
)
