"""The first panel: photo, Create Head, progress, and what went wrong."""

from __future__ import annotations

from typing import Any

import bpy

from .. import session as sessions
from .model import draw_model
from .text import sentence

TAB = "GeoInv"
FIX_ICONS = {
    "geoinv.choose_python": "FILEBROWSER",
    "geoinv.copy_report": "COPYDOWN",
    "geoinv.open_preferences": "PREFERENCES",
    "geoinv.retry": "FILE_REFRESH",
    "geoinv.start_engine": "PLAY",
}


class GEOINV_PT_main(bpy.types.Panel):
    bl_label = "Create Head"
    bl_idname = "GEOINV_PT_main"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = TAB

    def draw(self, context: bpy.types.Context) -> None:
        session, layout = sessions.session, self.layout
        settings = context.scene.geoinv
        layout.prop(settings, "photo", text="", placeholder="Photo of One Person", icon="IMAGE_DATA")
        thing = context.active_object
        if thing is not None and thing.type == "EMPTY" and thing.data is not None:  # a reference picture
            name = thing.data.name
            layout.operator(
                "geoinv.photo_from_image", text=f"Use “{name}”", icon="IMAGE_REFERENCE"
            ).image = name
        if session.job is None:
            row = layout.row()
            row.scale_y = 1.4
            row.operator("geoinv.create_head", icon="USER")
        else:
            draw_job(layout)
        if session.trouble is not None:
            draw_trouble(layout, context)
        elif session.notice:
            row = layout.row()
            sentence(row.column(), context, session.notice, "INFO", buttons=1)
            row.operator("geoinv.dismiss", text="", icon="X", emboss=False)
        for offer in session.offers:
            row = layout.row(align=True)
            row.operator("geoinv.import_head", text=f"Import {offer.title}", icon="IMPORT").directory = str(
                offer.folder
            )
            row.operator("geoinv.decline_offers", text="", icon="X")


class GEOINV_PT_options(bpy.types.Panel):
    bl_label = "Options"
    bl_idname = "GEOINV_PT_options"
    bl_parent_id = "GEOINV_PT_main"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = TAB
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        layout, settings = self.layout, context.scene.geoinv
        layout.use_property_split = True
        layout.use_property_decorate = False
        draw_model(layout, context)
        layout.prop(settings, "topology")
        row = layout.row()
        row.enabled = settings.topology == "quads"
        row.prop(settings, "shapes")
        layout.prop(settings, "texture")
        layout.prop(settings, "refine")
        layout.prop(settings, "by_hand")
        if settings.by_hand:
            column = layout.column(align=True)
            for number, side in enumerate(("Left (px)", "Top (px)", "Right (px)", "Bottom (px)")):
                column.prop(settings, "face_box", index=number, text=side)


def draw_job(layout: Any) -> None:
    """Bar with the stage's name, the time so far, and Cancel."""
    session = sessions.session
    column = layout.column(align=True)
    column.progress(
        factor=session.fraction, type="BAR", text=f"{session.stage_title} ({session.elapsed:.0f} s)"
    )
    row = column.row(align=True)
    row.enabled = session.job is not None and not session.job.cancelled_at
    row.operator("geoinv.cancel", icon="CANCEL")


def draw_trouble(layout: Any, context: bpy.types.Context) -> None:
    """The sentence and the buttons that help: the fix, once more, a report."""
    session, trouble = sessions.session, sessions.session.trouble
    assert trouble is not None
    box = layout.box()
    row = box.row()
    sentence(row.column(), context, str(trouble), "ERROR", buttons=1)
    row.operator("geoinv.dismiss", text="", icon="X", emboss=False)
    helps = [trouble.fix] if trouble.fix else []
    if trouble.code not in ("photo", "labels"):  # those are for the artist to put right
        helps += ["geoinv.retry"] * (session.last is not None) + ["geoinv.copy_report"]
    column = box.column(align=True)
    for operator in dict.fromkeys(helps):
        column.operator(operator, icon=FIX_ICONS.get(operator, "NONE"))


CLASSES = (GEOINV_PT_main, GEOINV_PT_options)
