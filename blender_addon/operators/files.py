"""Finished heads as folders: bring one in, decline one, open its folder."""

from pathlib import Path

import bpy

from .. import preferences, results
from .. import session as sessions
from ..errors import Trouble
from ..importer import BUNDLE_KEY, is_head
from ..session import Offer, Wish
from .base import Result, refuse


def folder_to_open(context: bpy.types.Context) -> Path:
    """The active head's bundle, else the folder of all heads."""
    thing = context.active_object
    if is_head(thing) and Path(str(thing.get(BUNDLE_KEY, ""))).is_dir():
        return Path(str(thing[BUNDLE_KEY]))
    return preferences.data_folder() / "heads"


class GEOINV_OT_import_head(bpy.types.Operator):
    """Bring in a finished head: a folder with a head.json"""

    bl_idname = "geoinv.import_head"
    bl_label = "Import Head"
    bl_options = {"REGISTER", "UNDO"}

    directory: bpy.props.StringProperty(name="Folder", subtype="DIR_PATH", options={"SKIP_SAVE"})
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> Result:
        if self.directory:
            return self.execute(context)
        self.directory = str(preferences.data_folder() / "heads")
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> Result:
        folder = Path(bpy.path.abspath(self.directory)).expanduser()
        offers = sessions.session.offers
        offer = next((one for one in offers if one.folder == folder), None)
        # The engine knows a head by its job's id, which names the folder that the add-on keeps it in.
        made = offer or Offer(f"Head {folder.name}", folder.name, folder)
        try:
            notice = results.place(made, Wish(made.title, "head"), undo=False)
        except Trouble as trouble:
            return refuse(self, trouble)
        if offer is not None:
            offers.remove(offer)
        self.report({"INFO"}, notice)
        return {"FINISHED"}


class GEOINV_OT_decline_offers(bpy.types.Operator):
    """Leave the finished heads where they are; Import Head finds them later"""

    bl_idname = "geoinv.decline_offers"
    bl_label = "Not Now"
    bl_options = {"INTERNAL"}

    def execute(self, context: bpy.types.Context) -> Result:
        sessions.session.offers.clear()
        return {"FINISHED"}


class GEOINV_OT_open_folder(bpy.types.Operator):
    """Open the head's folder in the file manager"""

    bl_idname = "geoinv.open_folder"
    bl_label = "Open Folder"

    def execute(self, context: bpy.types.Context) -> Result:
        folder = folder_to_open(context)
        if not folder.is_dir():
            return refuse(self, Trouble("There are no heads yet: create one first.", code="folder"))
        bpy.ops.wm.path_open(filepath=str(folder))
        return {"FINISHED"}


CLASSES = (GEOINV_OT_import_head, GEOINV_OT_decline_offers, GEOINV_OT_open_folder)
