"""Properties: a scene's settings, a head's sliders, and a view of the session for scripts.

No `from __future__ import annotations` here: Blender reads the annotations when a class is registered.
"""

import bpy

from . import session as sessions
from .labels import SLIDERS


class GEOINV_PG_settings(bpy.types.PropertyGroup):
    """What the next head is made from and how; on the scene, so it is saved with the file."""

    photo: bpy.props.StringProperty(
        name="Photo",
        description="Picture of one person, from the front or nearly so",
        subtype="FILE_PATH",
        options={"PATH_SUPPORTS_BLEND_RELATIVE"} if bpy.app.version >= (4, 5, 0) else set(),
    )
    refine: bpy.props.IntProperty(
        name="Refine Steps",
        description="Steps of optimisation after the first guess; more is closer to the photo and slower. "
        "A model without an encoder takes 200 where this is 0",
        min=0,
        max=10_000,
        soft_max=500,
        default=0,
    )
    texture: bpy.props.EnumProperty(
        name="Texture",
        description="Side of the texture in pixels",
        items=[(size, f"{size} px", "") for size in ("512", "1024", "2048", "4096")],
        default="1024",
    )
    topology: bpy.props.EnumProperty(
        name="Topology",
        description="How the surface is cut into faces",
        items=[
            (
                "quads",
                "Quads",
                "One template for all heads: edge loops, shape keys, and variants that can become keys",
            ),
            ("raw", "Raw Surface", "Every detail as small triangles; each head has its own topology"),
        ],
        default="quads",
    )

    shapes: bpy.props.BoolProperty(
        name="Shape Keys",
        description="Make keys for face tracking, age, weight and gender; takes most of the time. Quads only",
        default=True,
    )

    by_hand: bpy.props.BoolProperty(
        name="Mark the Face",
        description="Say where the face is, for photos in which none, or the wrong one, is found",
    )
    face_box: bpy.props.IntVectorProperty(
        name="Face",
        description="Left, top, right and bottom of the face, in pixels from the photo's top left",
        size=4,
        min=0,
    )


class GEOINV_PG_head(bpy.types.PropertyGroup):
    """The sliders of one head object; they start at the head's own labels."""

    __annotations__ = {
        slider.prop: bpy.props.FloatProperty(
            name=slider.title,
            description=slider.about,
            min=slider.low,
            max=slider.high,
            default=slider.neutral,
            precision=0 if slider.high > 10 else 2,
            step=100 if slider.high > 10 else 1,
            options=set(),
        )
        for slider in SLIDERS
    }


class GEOINV_PG_state(bpy.types.PropertyGroup):
    """The running state as properties that scripts can read.

    Each has a getter and no storage: what runs belongs to this Blender, and must never reach a .blend.
    """

    engine: bpy.props.StringProperty(
        name="Engine",
        description="off, starting, ready, busy or lost",
        get=lambda self: sessions.session.engine_state,
        options={"SKIP_SAVE"},
    )
    running: bpy.props.BoolProperty(
        name="Running", get=lambda self: sessions.session.job is not None, options={"SKIP_SAVE"}
    )
    fraction: bpy.props.FloatProperty(
        name="Progress", get=lambda self: sessions.session.fraction, options={"SKIP_SAVE"}
    )
    stage: bpy.props.StringProperty(
        name="Stage", get=lambda self: sessions.session.stage_title, options={"SKIP_SAVE"}
    )
    problem: bpy.props.StringProperty(
        name="Problem",
        description="Why the last job failed, or empty",
        get=lambda self: str(sessions.session.trouble or ""),
        options={"SKIP_SAVE"},
    )
    notice: bpy.props.StringProperty(
        name="Notice", get=lambda self: sessions.session.notice, options={"SKIP_SAVE"}
    )


CLASSES = (GEOINV_PG_settings, GEOINV_PG_head, GEOINV_PG_state)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Scene.geoinv = bpy.props.PointerProperty(type=GEOINV_PG_settings)
    bpy.types.Object.geoinv = bpy.props.PointerProperty(type=GEOINV_PG_head)
    bpy.types.WindowManager.geoinv = bpy.props.PointerProperty(type=GEOINV_PG_state, options={"SKIP_SAVE"})


def unregister() -> None:
    del bpy.types.WindowManager.geoinv
    del bpy.types.Object.geoinv
    del bpy.types.Scene.geoinv
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
