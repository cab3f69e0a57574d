"""In the Image Editor: the shown picture, a render for instance, as the photo."""

from __future__ import annotations

import bpy

from .. import session as sessions
from .main import TAB, draw_job


class GEOINV_PT_picture(bpy.types.Panel):
    bl_label = "Head from Picture"
    bl_idname = "GEOINV_PT_picture"
    bl_space_type = "IMAGE_EDITOR"
    bl_region_type = "UI"
    bl_category = TAB

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return getattr(context.space_data, "image", None) is not None

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.operator("geoinv.photo_from_image", icon="IMAGE_DATA")
        if sessions.session.job is None:
            layout.operator("geoinv.create_head", icon="USER")
        else:
            draw_job(layout)


CLASSES = (GEOINV_PT_picture,)
