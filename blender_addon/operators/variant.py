"""Variants of a head: another object beside it, or a shape key on it."""

import json
from typing import Any

import bpy

from ..errors import Trouble
from ..importer import HEAD_KEY, changed_labels, is_head, reset_sliders
from ..jobs import Request
from ..session import Wish
from .base import Result, begin, poll_idle, refuse
from .create import common_settings, heads_folder


def asked_labels(thing: bpy.types.Object, text: str) -> dict[str, float]:
    """The changes: JSON `text` where given, else the sliders that were moved. Trouble when there are none."""
    if text:
        try:
            labels = {str(name): float(value) for name, value in json.loads(text).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise Trouble(
                f'The labels {text} cannot be read: give JSON like {{"smile": 0.8, "age": 70}}.',
                code="labels",
            ) from error
    else:
        labels = changed_labels(thing)
    if not labels:
        raise Trouble("Nothing is changed yet: move a slider of the head first.", code="labels")
    return labels


def poll_head(cls: Any, context: bpy.types.Context) -> bool:
    if not is_head(context.active_object):
        cls.poll_message_set("Select a head that GeoInv made")
        return False
    return poll_idle(cls)


class _Variant:
    """Shared by the two operators: ask the engine for the changed head."""

    labels: bpy.props.StringProperty(
        name="Labels",
        description='Changes as JSON, like {"smile": 0.8}; empty: the sliders that were moved',
        options={"SKIP_SAVE"},
    )
    kind = ""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return poll_head(cls, context)

    def execute(self, context: bpy.types.Context) -> Result:
        thing, settings = context.active_object, context.scene.geoinv
        try:
            labels = asked_labels(thing, self.labels)
            heads = heads_folder()
        except Trouble as trouble:
            return refuse(self, trouble)
        head = str(thing[HEAD_KEY])
        asked = {**common_settings(settings), "head": head, "labels": labels}
        if self.kind == "shape_key":  # only its vertices are used
            asked["shapes"] = False
        wish = Wish(thing.name, self.kind, thing.session_uid, head, labels)
        return begin(self, Request("edit", asked, None, heads), wish)


class GEOINV_OT_add_variant(_Variant, bpy.types.Operator):
    """Make the head once more with the sliders' values and put it beside this one"""

    bl_idname = "geoinv.add_variant"
    bl_label = "Add Variant"
    bl_options = {"REGISTER"}
    kind = "variant"


class GEOINV_OT_add_shape_key(_Variant, bpy.types.Operator):
    """Make the head with the sliders' values and keep it as a shape key of this one"""

    bl_idname = "geoinv.add_shape_key"
    bl_label = "Add as Shape Key"
    bl_options = {"REGISTER"}
    kind = "shape_key"


class GEOINV_OT_reset_sliders(bpy.types.Operator):
    """Put the sliders back to the head's own values"""

    bl_idname = "geoinv.reset_sliders"
    bl_label = "Reset Sliders"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return is_head(context.active_object)

    def execute(self, context: bpy.types.Context) -> Result:
        reset_sliders(context.active_object)
        return {"FINISHED"}


CLASSES = (GEOINV_OT_add_variant, GEOINV_OT_add_shape_key, GEOINV_OT_reset_sliders)
