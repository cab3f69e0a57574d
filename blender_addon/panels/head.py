"""The panel of the selected head: sliders, variants, warnings, facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

from ..importer import WARNINGS_KEY, changed_labels, is_head, own_labels
from ..labels import SLIDERS
from ..models import BUNDLED
from .main import TAB
from .text import sentence


class GEOINV_PT_head(bpy.types.Panel):
    bl_label = "Edit Head"
    bl_idname = "GEOINV_PT_head"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = TAB

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return is_head(context.active_object)

    def draw(self, context: bpy.types.Context) -> None:
        layout, thing = self.layout, context.active_object
        layout.use_property_split = True
        layout.use_property_decorate = False
        row = layout.row()
        row.label(text=thing.name, icon="USER")
        row.operator("geoinv.reset_sliders", text="", icon="LOOP_BACK", emboss=False)
        if not own_labels(thing):
            sentence(
                layout, context, "This head's model knows no labels, so sliders cannot change it", "INFO"
            )
            draw_warnings(layout, context, thing)
            return
        for group in dict.fromkeys(slider.group for slider in SLIDERS):
            column = layout.column(align=True)
            for slider in SLIDERS:
                if slider.group == group:
                    column.prop(thing.geoinv, slider.prop, slider=True)
        column = layout.column(align=True)
        column.enabled = bool(changed_labels(thing))
        column.operator("geoinv.add_variant", icon="DUPLICATE")
        column.operator("geoinv.add_shape_key", icon="SHAPEKEY_DATA")
        if not column.enabled:
            sentence(layout, context, "Move a slider to make a variant")
        draw_warnings(layout, context, thing)


def draw_warnings(layout: Any, context: bpy.types.Context, thing: bpy.types.Object) -> None:
    for warning in str(thing.get(WARNINGS_KEY, "")).splitlines():
        sentence(layout, context, warning, "ERROR")


class GEOINV_PT_facts(bpy.types.Panel):
    bl_label = "Source"
    bl_idname = "GEOINV_PT_facts"
    bl_parent_id = "GEOINV_PT_head"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = TAB
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        layout, thing = self.layout, context.active_object
        column = layout.column(align=True)
        model = str(thing.get("geoinv_model", ""))
        column.label(text=f"Model: {'Bundled Model' if model == BUNDLED else Path(model).stem}")
        licence = thing.get("geoinv_model_licence", "")
        if licence:
            sentence(column, context, f"Licence of the model: {licence}")
        column.label(text=f"Photo's hash: {str(thing.get('geoinv_photo_hash', ''))[:12]}")
        column.label(text=f"{len(thing.data.vertices):,} vertices, {len(thing.data.polygons):,} faces")
        layout.operator("geoinv.open_folder", icon="FILE_FOLDER")
        layout.operator("geoinv.add_landmarks", icon="EMPTY_DATA")


CLASSES = (GEOINV_PT_head, GEOINV_PT_facts)
