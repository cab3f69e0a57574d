"""The 68 landmarks of a head as empties."""

import bpy

from ..importer import LANDMARKS_KEY, is_head, landmark_empties
from .base import Result


class GEOINV_OT_add_landmarks(bpy.types.Operator):
    """Put an empty on each of the head's 68 landmarks, which follows the skin through shape keys"""

    bl_idname = "geoinv.add_landmarks"
    bl_label = "Add Landmarks"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        thing = context.active_object
        if not is_head(thing) or LANDMARKS_KEY not in thing:
            cls.poll_message_set("Select a head that was made with the quad topology")
            return False
        marks = thing[LANDMARKS_KEY]
        if max(marks) >= len(thing.data.vertices):
            cls.poll_message_set("The head's vertices have been changed, so its landmarks are lost")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> Result:
        made = landmark_empties(context.active_object, context.collection)
        self.report({"INFO"}, f"{len(made)} landmarks added")
        return {"FINISHED"}


CLASSES = (GEOINV_OT_add_landmarks,)
