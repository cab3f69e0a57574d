"""Create a head from a photo; cancel; try again."""

from pathlib import Path
from typing import Any

import bpy

from .. import preferences, results
from .. import session as sessions
from ..errors import Trouble, disk_trouble
from ..jobs import Request
from ..session import Wish
from .base import Result, begin, poll_idle, refuse

PHOTOS = ".jpg;.jpeg;.png;.webp;.bmp;.tif;.tiff"


def heads_folder() -> Path:
    """Where finished heads are kept. Trouble when the place cannot be had."""
    try:
        return preferences.data_folder() / "heads"
    except OSError as error:
        raise disk_trouble(error, "use its data folder") from error


def common_settings(settings: Any) -> dict[str, Any]:
    """What every job is told. The model is named because the engine may have been started with another."""
    asked: dict[str, Any] = {
        "texture": int(settings.texture),
        "topology": settings.topology,
        "shapes": settings.shapes,
    }
    model = preferences.get().model
    return {**asked, "model": model} if model else asked


def head_request(photo: str, settings: Any) -> tuple[Request, Wish]:
    """The job for a photo. Trouble when no photo is chosen or it is not there."""
    if not photo.strip():
        raise Trouble("No photo is chosen: choose a picture of one person first.", code="photo")
    path = Path(bpy.path.abspath(photo)).expanduser()
    if not path.is_file():
        raise Trouble(f"There is no photo at {path}: it was moved or deleted, choose it again.", code="photo")
    asked = common_settings(settings)
    asked["refine"] = settings.refine
    if settings.by_hand:
        left, top, right, bottom = settings.face_box
        if right <= left or bottom <= top:
            raise Trouble(
                "The marked face is empty: give the left, top, right and bottom of the face in pixels.",
                code="photo",
            )
        asked["face_box"] = [left, top, right, bottom]
    return Request("invert", asked, path, heads_folder()), Wish(results.head_title(path), "head")


class GEOINV_OT_create_head(bpy.types.Operator):
    """Make a head from the photo; it comes in at the 3D cursor when it is ready"""

    bl_idname = "geoinv.create_head"
    bl_label = "Create Head"
    bl_options = {"REGISTER"}

    filepath: bpy.props.StringProperty(
        name="Photo",
        description="Empty: the photo chosen in the panel",
        subtype="FILE_PATH",
        options={"SKIP_SAVE"},
    )
    directory: bpy.props.StringProperty(subtype="DIR_PATH", options={"SKIP_SAVE", "HIDDEN"})
    files: bpy.props.CollectionProperty(
        type=bpy.types.OperatorFileListElement, options={"SKIP_SAVE", "HIDDEN"}
    )
    filter_image: bpy.props.BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return poll_idle(cls)

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> Result:
        if self.filepath or self.files or context.scene.geoinv.photo.strip() or bpy.app.background:
            return self.execute(context)
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> Result:
        settings = context.scene.geoinv
        photo = self.filepath
        if self.files and self.directory:  # dropped files; the first one counts
            photo = str(Path(self.directory) / self.files[0].name)
        if photo:
            settings.photo = photo
        try:
            request, wish = head_request(settings.photo, settings)
        except Trouble as trouble:
            return refuse(self, trouble)
        return begin(self, request, wish)


class GEOINV_OT_cancel(bpy.types.Operator):
    """Stop the running job"""

    bl_idname = "geoinv.cancel"
    bl_label = "Cancel"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return sessions.session.job is not None

    def execute(self, context: bpy.types.Context) -> Result:
        sessions.session.cancel()
        return {"FINISHED"}


class GEOINV_OT_retry(bpy.types.Operator):
    """Do the last job once more, with a new engine where the old one is gone"""

    bl_idname = "geoinv.retry"
    bl_label = "Try Again"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if sessions.session.last is None:
            cls.poll_message_set("There is no job to repeat")
            return False
        return poll_idle(cls)

    def execute(self, context: bpy.types.Context) -> Result:
        last = sessions.session.last
        assert last is not None  # poll
        return begin(self, *last)


class GEOINV_FH_photo(bpy.types.FileHandler):
    """A picture dropped on the viewport starts a head; Blender asks whether a reference is meant instead."""

    bl_idname = "GEOINV_FH_photo"
    bl_label = "GeoInv Head from Photo"
    bl_import_operator = "geoinv.create_head"
    bl_file_extensions = PHOTOS

    @classmethod
    def poll_drop(cls, context: bpy.types.Context) -> bool:
        return context.area is not None and context.area.type == "VIEW_3D"


CLASSES = (GEOINV_OT_create_head, GEOINV_OT_cancel, GEOINV_OT_retry, GEOINV_FH_photo)
