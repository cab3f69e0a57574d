"""Redraw the sidebars, which alone show running state; the viewport itself is left alone."""

from __future__ import annotations

import bpy


def sidebars() -> None:
    manager = bpy.context.window_manager
    for window in manager.windows if manager is not None else ():
        for area in window.screen.areas:
            if area.type in ("VIEW_3D", "IMAGE_EDITOR"):
                for region in area.regions:
                    if region.type == "UI":
                        region.tag_redraw()
