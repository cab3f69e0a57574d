"""What the artist can do. Operators are thin: gather settings, ask the session, report."""

from __future__ import annotations

import bpy

from . import create, engine, files, landmarks, model, photo, report, variant

CLASSES = (
    *create.CLASSES,
    *variant.CLASSES,
    *engine.CLASSES,
    *model.CLASSES,
    *files.CLASSES,
    *landmarks.CLASSES,
    *photo.CLASSES,
    *report.CLASSES,
)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
