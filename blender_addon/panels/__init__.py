"""The sidebar tab "GeoInv" of the 3D viewport, and its small sister in the Image Editor."""

from __future__ import annotations

import bpy

from . import engine, head, main, model, picture

CLASSES = (*main.CLASSES, *head.CLASSES, *engine.CLASSES, *model.CLASSES, *picture.CLASSES)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
