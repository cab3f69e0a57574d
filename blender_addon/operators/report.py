"""Copy Report: what a helper needs to know, without names of the user's folders."""

import platform
from pathlib import Path

import bpy

from .. import preferences
from .. import session as sessions
from ..engine import log_tail
from ..protocol import PROTOCOL
from .base import Result


def report_text() -> str:
    """Versions, states, the last sentence and the engine's log."""
    session = sessions.session
    address = session.engine.address
    lines = [
        "GeoInv report",
        f"Blender {bpy.app.version_string}, Python {platform.python_version()}, {platform.platform()}",
        f"Engine: {session.engine_state}, version {address.version if address else 'unknown'}",
        f"Protocol: {PROTOCOL}",
        f"Problem: {session.trouble or 'none'} ({session.trouble.code if session.trouble else ''})",
        f"Notice: {session.notice or 'none'}",
    ]
    if session.last is not None:
        request = session.last[0]
        lines.append(f"Last job: {request.kind} {dict(request.settings)}")
    lines += ["Engine's log:", log_tail(preferences.data_folder()) or "(empty)"]
    text = "\n".join(lines)
    for private, name in (
        (preferences.data_folder(), "DATA"),
        (preferences.SOURCE, "GEOINV"),
        (Path.home(), "~"),
    ):
        text = text.replace(str(private), name)
    return text


class GEOINV_OT_copy_report(bpy.types.Operator):
    """Copy versions, the problem and the end of the engine's log, without your folders' names"""

    bl_idname = "geoinv.copy_report"
    bl_label = "Copy Report"

    def execute(self, context: bpy.types.Context) -> Result:
        context.window_manager.clipboard = report_text()
        self.report({"INFO"}, "The report is in the clipboard")
        return {"FINISHED"}


class GEOINV_OT_dismiss(bpy.types.Operator):
    """Hide this message"""

    bl_idname = "geoinv.dismiss"
    bl_label = "Dismiss"
    bl_options = {"INTERNAL"}

    def execute(self, context: bpy.types.Context) -> Result:
        sessions.session.trouble, sessions.session.notice = None, ""
        return {"FINISHED"}


CLASSES = (GEOINV_OT_copy_report, GEOINV_OT_dismiss)
