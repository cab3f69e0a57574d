"""Choose the model that heads are made with: from a list, or a file."""

from pathlib import Path

import bpy

from .. import preferences, redraw
from ..errors import Trouble
from ..models import BUNDLED, read_model
from .base import Result, refuse


class GEOINV_OT_use_model(bpy.types.Operator):
    """Make the next heads with this model; its licence is shown below"""

    bl_idname = "geoinv.use_model"
    bl_label = "Use Model"
    bl_options = {"INTERNAL"}

    model: bpy.props.StringProperty(
        name="Model", description="“default”, or the path of a .safetensors model", default=BUNDLED
    )

    def execute(self, context: bpy.types.Context) -> Result:
        try:
            facts = read_model(bpy.path.abspath(self.model) if self.model != BUNDLED else BUNDLED)
        except Trouble as trouble:
            return refuse(self, trouble)
        preferences.get(context).model = facts.name
        self.report({"INFO"}, f"{facts.title}, licence: {facts.licence}")
        redraw.sidebars()
        return {"FINISHED"}


class GEOINV_OT_choose_model(bpy.types.Operator):
    """Choose a model file, such as a converted EG3D or PanoHead checkpoint"""

    bl_idname = "geoinv.choose_model"
    bl_label = "Open Model File"

    filepath: bpy.props.StringProperty(name="Model", subtype="FILE_PATH", options={"SKIP_SAVE"})
    filter_glob: bpy.props.StringProperty(default="*.safetensors", options={"HIDDEN"})

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> Result:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> Result:
        return set(bpy.ops.geoinv.use_model(model=str(Path(bpy.path.abspath(self.filepath)))))


CLASSES = (GEOINV_OT_use_model, GEOINV_OT_choose_model)
