"""The sidebar tab "GeoInv" of the 3D viewport, and its small sister in the Image Editor."""

from __future__ import annotations

import bpy

from . import engine, head, main, picture

CLASSES = (*main.CLASSES, *head.CLASSES, *engine.CLASSES, *picture.CLASSES)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
