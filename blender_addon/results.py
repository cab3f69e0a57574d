"""Bring a finished head into the open file: as an object, a variant beside its source, or a shape key."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from . import session as sessions
from .bundle import Bundle, read_bundle
from .importer import HEAD_KEY, add_shape_key, build_object, faces_of, is_head
from .labels import describe
from .session import Offer, Wish

GAP = 1.35
"""Distance of a variant from its source, in widths of the source."""


def place(offer: Offer, wish: Wish, undo: bool = True) -> str:
    """Import `offer` as `wish` says; returns what was added, as a notice.

    undo: push one undo step; False inside an operator with the UNDO option, which makes one itself.

    Raises Trouble where the bundle is damaged; the file is unchanged then.
    """
    bundle = read_bundle(offer.folder)
    bundle.info["warnings"] = list(dict.fromkeys([*offer.warnings, *bundle.warnings]))
    notice = ""
    source = find_source(wish)
    with _window() as context:
        if wish.kind == "shape_key" and source is not None:
            if bundle.same_topology(faces_of(source.data), len(source.data.vertices)):
                key = add_shape_key(source, describe(wish.labels) or offer.title, bundle.vertices)
                key.value = 1.0
                _undo_step(context, "Add Shape Key", undo)
                return f"Added the shape key “{key.name}”"
            notice = (
                "The variant's surface has another topology, so it was added as an object beside the head; "
                "make both with the topology Quads for shape keys."
            )
        title = (
            offer.title if wish.kind == "head" else f"{_base(source, offer)} {describe(wish.labels)}".strip()
        )
        thing = add_object(bundle, title, offer.head, source, context)
        _undo_step(context, "Create Head" if wish.kind == "head" else "Add Variant", undo)
    return notice or f"Added “{thing.name}”{_hidden(thing, source, context)}"


def add_object(
    bundle: Bundle, title: str, head: str, source: bpy.types.Object | None, context: Any
) -> bpy.types.Object:
    """The head as an object of the current scene: at the cursor, or beside `source`."""
    thing = build_object(bundle, title[:58], head)  # names end at 63 bytes, and Blender adds ".001"
    collection = source.users_collection[0] if source is not None and source.users_collection else None
    (collection or context.view_layer.active_layer_collection.collection).objects.link(thing)
    if source is None:
        thing.location = context.scene.cursor.location
    else:
        thing.rotation_mode = source.rotation_mode
        thing.matrix_world = source.matrix_world.copy()
        thing.location.x += GAP * _width(source) * _place_beside(source, context)
        thing["geoinv_source"] = str(source.get(HEAD_KEY, ""))
    if context.mode == "OBJECT":  # never pull the artist out of another mode
        for other in context.view_layer.objects:
            other.select_set(False)
        thing.select_set(True)
        context.view_layer.objects.active = thing
    return thing


def find_source(wish: Wish) -> bpy.types.Object | None:
    """The object a variant was asked for, found anew: undo and deletion make kept references worthless."""
    heads = [thing for thing in bpy.data.objects if is_head(thing)]
    same = [thing for thing in heads if thing.session_uid == wish.source_uid]
    return next(iter(same or [thing for thing in heads if thing[HEAD_KEY] == wish.source_head]), None)


def head_title(photo: Path) -> str:
    return f"Head {photo.stem}"


def _hidden(thing: bpy.types.Object, source: bpy.types.Object | None, context: Any) -> str:
    """Words for a new head that something swallows whole, the cube of a new file above all; else ""."""
    if source is not None:
        return ""
    corners = np.array([[*corner, 1.0] for corner in thing.bound_box])
    corners[:, :3] += thing.location
    for other in context.view_layer.objects:
        if other.type != "MESH" or other == thing or not other.visible_get():
            continue
        low, high = np.array(other.bound_box[0]), np.array(other.bound_box[6])
        inside = (corners @ np.array(other.matrix_world.inverted_safe()).T)[:, :3]
        if ((low < inside) & (inside < high)).all():
            return f" inside “{other.name}”, which hides it"
    return ""


def _base(source: bpy.types.Object | None, offer: Offer) -> str:
    return source.name if source is not None else offer.title


def _width(thing: bpy.types.Object) -> float:
    corners = [corner[0] for corner in thing.bound_box]
    return float(max(corners) - min(corners)) * abs(float(thing.scale.x))


def _place_beside(source: bpy.types.Object, context: Any) -> int:
    """1 for the first variant of a source, 2 for the next, and so on."""
    head = source[HEAD_KEY]
    return 1 + sum(1 for thing in context.scene.objects if thing.get("geoinv_source") == head)


@contextlib.contextmanager
def _window() -> Iterator[Any]:
    """The context with a window and a viewport: in a timer Blender gives neither area nor region."""
    manager = bpy.context.window_manager
    for window in manager.windows if manager is not None and not bpy.app.background else ():
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                region = next(region for region in area.regions if region.type == "WINDOW")
                with bpy.context.temp_override(window=window, screen=window.screen, area=area, region=region):
                    yield bpy.context
                return
        with bpy.context.temp_override(window=window, screen=window.screen):
            yield bpy.context
        return
    yield bpy.context


def _undo_step(context: Any, message: str, undo: bool) -> None:
    """Data changed in a timer makes no step by itself: the next Ctrl+Z would take more than it."""
    if undo and not bpy.app.background and context.preferences.edit.use_global_undo:
        bpy.ops.ed.undo_push(message=message)


def register() -> None:
    sessions.session.place = place


def unregister() -> None:
    sessions.session.place = None
