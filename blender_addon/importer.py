"""A head bundle as a Blender object: mesh, UV map, material, vertex groups, shape keys, facts about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from .bundle import Bundle
from .labels import SLIDERS
from .materials import head_material

HEAD_KEY = "geoinv_head"
"""Custom property: the id under which the engine knows the head. Its presence makes an object a head."""

BUNDLE_KEY = "geoinv_bundle"
LABELS_KEY = "geoinv_labels"
LANDMARKS_KEY = "geoinv_landmarks"
LANDMARK = "landmark"
"""Attribute of the vertices: the landmark's number in the iBUG order of 68, -1 elsewhere."""
LANDMARK_SIZE = 0.002
"""Metres: radius of the sphere that a landmark's empty is drawn as."""
WARNINGS_KEY = "geoinv_warnings"


def build_object(bundle: Bundle, name: str, head: str) -> bpy.types.Object:
    """A new object, not yet in any collection. Trouble when the picture is broken; nothing is left then."""
    material = head_material(bundle.albedo, bundle.normal, name)
    mesh = build_mesh(bundle, name)
    mesh.materials.append(material)
    thing = bpy.data.objects.new(name, mesh)
    for region, vertices in bundle.groups.items():
        thing.vertex_groups.new(name=region).add(vertices.tolist(), 1.0, "REPLACE")
    if bundle.shapes:
        thing.shape_key_add(name="Basis", from_mix=False)
        for key, offsets in bundle.shapes.items():
            add_shape_key(thing, key, bundle.vertices + offsets)
    write_facts(thing, bundle, head)
    return thing


def build_mesh(bundle: Bundle, name: str) -> bpy.types.Mesh:
    """Vertices in metres, quads and triangles, smooth, with the UV map "UVMap"."""
    starts, corners, uv = bundle.corners()
    mesh = bpy.data.meshes.new(name)
    mesh.vertices.add(len(bundle.vertices))
    mesh.vertices.foreach_set("co", bundle.vertices.ravel())
    mesh.loops.add(len(corners))
    mesh.loops.foreach_set("vertex_index", corners)
    mesh.polygons.add(len(starts))
    mesh.polygons.foreach_set("loop_start", starts)
    mesh.polygons.foreach_set("use_smooth", np.ones(len(starts), bool))
    mesh.uv_layers.new(name="UVMap").uv.foreach_set("vector", uv.ravel())
    if len(bundle.landmarks):
        number = np.full(len(bundle.vertices), -1, np.int32)
        number[bundle.landmarks] = np.arange(len(bundle.landmarks))
        mesh.attributes.new(LANDMARK, "INT", "POINT").data.foreach_set("value", number)
    mesh.update(calc_edges=True)
    # Drops faces that Blender cannot hold (a vertex twice, two faces alike), which raw surfaces may have.
    mesh.validate(clean_customdata=False)
    return mesh


def add_shape_key(thing: bpy.types.Object, name: str, points: npt.NDArray[np.float32]) -> bpy.types.ShapeKey:
    """A relative key with the vertices `points` [V, 3]; makes the Basis where there is none."""
    if thing.data.shape_keys is None:
        thing.shape_key_add(name="Basis", from_mix=False)
    key = thing.shape_key_add(name=name, from_mix=False)
    key.data.foreach_set("co", np.ascontiguousarray(points, np.float32).ravel())
    key.slider_min, key.slider_max, key.value = 0.0, 1.0, 0.0
    thing.data.update()
    return key


def faces_of(mesh: bpy.types.Mesh) -> npt.NDArray[np.int32]:
    """int32 [F, 4] as in a bundle, -1 for a triangle's fourth corner; empty when there are n-gons."""
    count = len(mesh.polygons)
    totals = np.empty(count, np.int32)
    mesh.polygons.foreach_get("loop_total", totals)
    if count == 0 or totals.max() > 4:
        return np.empty((0, 4), np.int32)
    corners = np.empty(len(mesh.loops), np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    faces = np.full((count, 4), -1, np.int32)
    faces[np.arange(4) < totals[:, None]] = corners
    return faces


def write_facts(thing: bpy.types.Object, bundle: Bundle, head: str) -> None:
    """Custom properties that say where the head comes from, and the sliders at the head's own labels."""
    model = bundle.info.get("model")
    told = model if isinstance(model, Mapping) else {"name": model or ""}
    thing[HEAD_KEY] = head
    for fact in ("name", "hash", "licence"):
        key = "geoinv_model" if fact == "name" else f"geoinv_model_{fact}"
        thing[key] = str(told.get(fact) or "")
    thing["geoinv_photo_hash"] = str(bundle.info.get("photo_hash") or "")
    thing["geoinv_unit_mm"] = float(bundle.info.get("unit_mm") or 0.0)
    thing[BUNDLE_KEY] = str(bundle.folder)
    thing[LABELS_KEY] = bundle.labels
    thing[WARNINGS_KEY] = "\n".join(bundle.warnings)
    if len(bundle.landmarks):
        thing[LANDMARKS_KEY] = bundle.landmarks.tolist()
    reset_sliders(thing)


def reset_sliders(thing: bpy.types.Object) -> None:
    """Put the sliders to the head's own labels."""
    own = own_labels(thing)
    for slider in SLIDERS:
        setattr(thing.geoinv, slider.prop, slider.start(own))


def own_labels(thing: bpy.types.Object) -> dict[str, float]:
    """The labels that the head was made with."""
    stored: Any = thing.get(LABELS_KEY)
    return {str(name): float(value) for name, value in stored.items()} if stored is not None else {}


def changed_labels(thing: bpy.types.Object) -> dict[str, float]:
    """The labels whose slider the artist moved away from the head's own value."""
    own, moved = own_labels(thing), {}
    for slider in SLIDERS:
        value = float(getattr(thing.geoinv, slider.prop))
        if abs(value - slider.start(own)) > 1e-4 * max(1.0, slider.high - slider.low):
            moved[slider.label] = round(value, 4)
    return moved


def landmark_empties(thing: bpy.types.Object, collection: bpy.types.Collection) -> list[bpy.types.Object]:
    """An empty on each landmark of a head, its child, which follows its vertex through shape keys."""
    number = {int(vertex): place for place, vertex in enumerate(thing[LANDMARKS_KEY])}
    made = []
    for vertex, place in sorted(number.items(), key=lambda item: item[1]):
        empty = bpy.data.objects.new(f"{thing.name} Landmark {place:02d}", None)
        empty.empty_display_type, empty.empty_display_size = "SPHERE", LANDMARK_SIZE
        empty.parent, empty.parent_type = thing, "VERTEX"
        empty.parent_vertices = (vertex, vertex, vertex)
        collection.objects.link(empty)
        made.append(empty)
    return made


def is_head(thing: bpy.types.Object | None) -> bool:
    return thing is not None and thing.type == "MESH" and HEAD_KEY in thing
