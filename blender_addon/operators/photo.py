"""Photos from inside Blender: the picture of an Image Editor, a render among them, or a reference empty."""

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
        name="Image", description="Empty: the picture that is shown or selected", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return poll_idle(cls)

    def execute(self, context: bpy.types.Context) -> Result:
        image = bpy.data.images.get(self.image) if self.image else shown_image(context)
        if image is None:
            return refuse(self, Trouble("There is no picture here: open or render one first.", code="photo"))
        try:
            context.scene.geoinv.photo = str(_own_file(image) or _save(image, context.scene))
        except Trouble as trouble:
            return refuse(self, trouble)
        self.report({"INFO"}, f"“{image.name}” is the photo now")
        return {"FINISHED"}


def shown_image(context: bpy.types.Context) -> bpy.types.Image | None:
    """The picture of an Image Editor, or of the selected reference empty in a viewport."""
    thing = context.active_object
    reference = thing.data if thing is not None and thing.type == "EMPTY" else None
    return getattr(context.space_data, "image", reference)


def _own_file(image: bpy.types.Image) -> Path | None:
    """The file that a picture was opened from, where it shows just that."""
    if image.source != "FILE" or image.packed_file is not None or image.is_dirty:
        return None
    path = Path(bpy.path.abspath(image.filepath, library=image.library))
    return path if path.is_file() else None


def _save(image: bpy.types.Image, scene: bpy.types.Scene) -> Path:
    """Write the picture as PNG as it is seen: renders through the scene's view transform, others without.

    Trouble when that fails.
    """
    folder = preferences.data_folder() / "photos"
    # A name of its own per picture, so that the photos of earlier heads stay as they were.
    path = folder / f"{hashlib.sha256(image.name.encode()).hexdigest()[:12]}.png"
    settings, view = scene.render.image_settings, scene.view_settings
    before = settings.file_format, settings.color_mode
    seen = view.view_transform, view.look, view.exposure, view.gamma
    try:
        folder.mkdir(parents=True, exist_ok=True)
        settings.file_format, settings.color_mode = "PNG", "RGB"
        if image.type != "RENDER_RESULT" and not image.use_view_as_render:
            view.view_transform, view.look, view.exposure, view.gamma = "Standard", "None", 0.0, 1.0
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
        view.view_transform, view.look, view.exposure, view.gamma = seen
    return path


CLASSES = (GEOINV_OT_photo_from_image,)
