"""Photos from inside Blender: the picture of an Image Editor, a render among them."""

import hashlib
from pathlib import Path

import bpy

from .. import preferences
from ..errors import Trouble, disk_trouble
from .base import Result, poll_idle, refuse


class GEOINV_OT_photo_from_image(bpy.types.Operator):
    """Take the shown picture, a render for instance, as the photo"""

    bl_idname = "geoinv.photo_from_image"
    bl_label = "Use as Photo"
    bl_options = {"REGISTER"}

    image: bpy.props.StringProperty(
        name="Image", description="Empty: the picture of this Image Editor", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return poll_idle(cls)

    def execute(self, context: bpy.types.Context) -> Result:
        image = bpy.data.images.get(self.image) if self.image else getattr(context.space_data, "image", None)
        if image is None:
            return refuse(self, Trouble("There is no picture here: open or render one first.", code="photo"))
        try:
            context.scene.geoinv.photo = str(_save(image, context.scene))
        except Trouble as trouble:
            return refuse(self, trouble)
        self.report({"INFO"}, f"“{image.name}” is the photo now")
        return {"FINISHED"}


def _save(image: bpy.types.Image, scene: bpy.types.Scene) -> Path:
    """Write the picture as PNG as it is seen, through the scene's view transform. Trouble when that fails."""
    folder = preferences.data_folder() / "photos"
    # A name of its own per picture, so that the photos of earlier heads stay as they were.
    path = folder / f"{hashlib.sha256(image.name.encode()).hexdigest()[:12]}.png"
    settings = scene.render.image_settings
    before = settings.file_format, settings.color_mode
    try:
        folder.mkdir(parents=True, exist_ok=True)
        settings.file_format, settings.color_mode = "PNG", "RGB"
        image.save_render(str(path), scene=scene)
    except OSError as error:
        raise disk_trouble(error, "save the picture") from error
    except RuntimeError as error:
        reason = str(error).strip().rstrip(".")
        raise Trouble(
            f"“{image.name}” cannot be used as a photo ({reason}): render or open it again.",
            code="photo",
        ) from error
    finally:
        settings.file_format, settings.color_mode = before
    return path


CLASSES = (GEOINV_OT_photo_from_image,)
