"""The add-on's preferences, and where they fall back to when the add-on runs from its source folder."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

import bpy

from .engine import Launch, find_python

SOURCE = Path(__file__).resolve().parent.parent
"""The checkout that this add-on lies in, when it runs from one."""


@dataclass
class Fallback:
    """The same names as the preferences, for scripts that call `register()` without enabling the add-on."""

    python: str = ""
    data: str = ""
    model: str = "default"
    port: int = 0
    extra: str = ""


fallback = Fallback()


class GEOINV_AP_preferences(bpy.types.AddonPreferences):
    bl_idname = __package__

    python: bpy.props.StringProperty(
        name="Engine Python",
        description="The python program of the environment that `python build.py setup` made; "
        "empty: the environment variable GEOINV_PYTHON, or the .venv beside the add-on's source",
    )
    data: bpy.props.StringProperty(
        name="Data Folder",
        description="Where heads and the engine's job list are kept; empty: the add-on's own user folder",
        subtype="DIR_PATH",
    )
    model: bpy.props.StringProperty(
        name="Model", description="“default”, or the path of a .safetensors model", default="default"
    )
    port: bpy.props.IntProperty(
        name="Port",
        description="Port of the engine on this computer; 0: any free one. A port in use is not waited for",
        min=0,
        max=65535,
        default=0,
    )
    extra: bpy.props.StringProperty(
        name="More Arguments", description="Further arguments for the engine, as on a command line"
    )

    def draw(self, context: bpy.types.Context) -> None:
        from .panels.engine import draw_engine  # the panels need the preferences, so not at the top

        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        draw_engine(layout, context)
        row = layout.row(align=True)
        row.prop(self, "python")
        row.operator("geoinv.choose_python", text="", icon="FILEBROWSER")
        layout.prop(self, "data")
        row = layout.row(align=True)
        row.prop(self, "model")
        row.operator("geoinv.choose_model", text="", icon="FILEBROWSER")
        layout.prop(self, "port")
        layout.prop(self, "extra")


def get(context: bpy.types.Context | None = None) -> "GEOINV_AP_preferences | Fallback":
    """The preferences, or their fallback when this package is not enabled as an add-on."""
    addon = (context or bpy.context).preferences.addons.get(__package__)
    return addon.preferences if addon is not None and addon.preferences is not None else fallback


def data_folder() -> Path:
    """Where heads and the engine's files are kept: preference, GEOINV_DATA, else the add-on's user folder."""
    named = get().data or os.environ.get("GEOINV_DATA", "")
    if named:
        return Path(bpy.path.abspath(named)).expanduser().absolute()
    if __package__.startswith("bl_ext."):
        return Path(bpy.utils.extension_path_user(__package__, path="data", create=True))
    return Path(bpy.utils.user_resource("DATAFILES")) / "geoinv"


def launch() -> Launch:
    """How the engine is started as things stand. Trouble when the named Python does not exist."""
    prefs, data = get(), data_folder()
    python = find_python(bpy.path.abspath(prefs.python) if prefs.python else "", SOURCE)
    # A checkout runs its own code; elsewhere the environment has the engine installed.
    checkouts = [SOURCE] if python is None else [python.absolute().parent.parent.parent, SOURCE]
    home = next((folder for folder in checkouts if (folder / "server" / "__main__.py").is_file()), data)
    data.mkdir(parents=True, exist_ok=True)
    extra = shlex.split(prefs.extra or os.environ.get("GEOINV_ENGINE_ARGS", ""))
    return Launch(python, home, data, prefs.model or "default", _free(prefs.port), extra)


def _free(port: int) -> int:
    """`port` when nothing listens there, else 0 (any): a taken port must not keep the artist from working."""
    import socket

    if port == 0:
        return 0
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        return 0 if probe.connect_ex(("127.0.0.1", port)) == 0 else port


def register() -> None:
    bpy.utils.register_class(GEOINV_AP_preferences)


def unregister() -> None:
    bpy.utils.unregister_class(GEOINV_AP_preferences)
