"""The demo's Blender scene: lights and a camera around the imported heads, pictures by Cycles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy
from mathutils import Vector

LENS_MM, SENSOR_MM = 85.0, 36.0


def arrange(heads: Sequence[Any], gap: float = 0.06) -> None:
    """Side by side along x, in the given order, standing on the same height, `gap` metres between them."""
    x = 0.0
    for head in heads:
        low, high = bounds([head])
        head.location.x += x - low.x
        head.location.y -= (low.y + high.y) / 2
        x += high.x - low.x + gap
    bpy.context.view_layer.update()


def bounds(heads: Sequence[Any]) -> tuple[Vector, Vector]:
    """Lowest and highest corner in metres, world axes."""
    bpy.context.view_layer.update()
    corners = [head.matrix_world @ Vector(corner) for head in heads for corner in head.bound_box]
    low, high = ([pick(corner[i] for corner in corners) for i in range(3)] for pick in (min, max))
    return Vector(low), Vector(high)


def light() -> None:
    """A studio: soft key light from the upper left, fill, rim, a dim surround.

    Suns, whose strength does not depend on the distance: about pi W/m2, so that skin stays below white.
    """
    for name, towards, strength, softness in (
        ("Key", (0.55, 0.75, -0.6), 2.1, 25.0),
        ("Fill", (-0.7, 0.7, -0.1), 0.55, 60.0),
        ("Rim", (-0.35, -0.8, -0.5), 1.4, 15.0),
    ):
        lamp = bpy.data.lights.new(name, "SUN")
        lamp.energy, lamp.angle = strength, math.radians(softness)
        thing = bpy.data.objects.new(name, lamp)
        thing.rotation_euler = Vector(towards).to_track_quat("-Z", "Y").to_euler()
        bpy.context.scene.collection.objects.link(thing)
    world = bpy.data.worlds.new("Studio")
    world.use_nodes = True
    world.node_tree.nodes["Background"].inputs["Color"].default_value = (0.28, 0.29, 0.31, 1.0)
    bpy.context.scene.world = world
    bpy.context.scene.render.film_transparent = True


def look_at(heads: Sequence[Any], aspect: float, yaw: float = 0.0, margin: float = 1.12) -> None:
    """Points the scene's camera at the heads so that all are inside the picture.

    aspect: width / height of the picture; yaw: degrees, positive from the subject's left.
    """
    scene = bpy.context.scene
    if scene.camera is None:
        scene.camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
        scene.collection.objects.link(scene.camera)
    camera = scene.camera
    camera.data.lens, camera.data.sensor_width, camera.data.sensor_fit = LENS_MM, SENSOR_MM, "HORIZONTAL"
    low, high = bounds(heads)
    size, turn = high - low, math.radians(yaw)
    across = abs(size.x * math.cos(turn)) + abs(size.y * math.sin(turn))
    deep = abs(size.x * math.sin(turn)) + abs(size.y * math.cos(turn))
    needed = max(across, size.z * aspect) * margin
    distance = needed * LENS_MM / SENSOR_MM + deep / 2
    camera.location = (low + high) / 2 + Vector((math.sin(turn), -math.cos(turn), 0.0)) * distance
    camera.rotation_euler = (math.pi / 2, 0.0, turn)


def use_cycles(samples: int) -> list[str]:
    """Cycles on the processor, denoised where Blender can. Returns warnings."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.cycles.samples = samples
    scene.cycles.use_adaptive_sampling = True
    scene.cycles.max_bounces = 4
    scene.render.use_persistent_data = True
    scene.view_settings.view_transform = "Standard"  # AgX, the default, dulls the photo's colours
    try:
        scene.cycles.denoiser = "OPENIMAGEDENOISE"
    except TypeError:
        scene.cycles.use_denoising = False
        return ["This Blender has no denoiser: the rendered pictures are grainy."]
    scene.cycles.use_denoising = True
    return []


def render(target: Path, width: int, height: int, seconds: float) -> Path:
    """One PNG through the scene's camera; on a slow or busy machine it takes fewer samples, not more time."""
    bpy.context.scene.cycles.time_limit = seconds
    settings = bpy.context.scene.render
    settings.resolution_x, settings.resolution_y, settings.resolution_percentage = width, height, 100
    settings.image_settings.file_format, settings.filepath = "PNG", str(target)
    bpy.ops.render.render(write_still=True)
    return target


@contextmanager
def alone_in_clay(head: Any) -> Iterator[None]:
    """Shows one head only, in plain clay, so that its shape and not its texture is seen."""
    layer = bpy.context.view_layer
    others = [thing for thing in bpy.context.scene.objects if thing.type == "MESH" and thing is not head]
    hidden = [thing.hide_render for thing in others]
    clay = bpy.data.materials.new("Clay")
    clay.use_nodes = True
    shader = clay.node_tree.nodes["Principled BSDF"]
    shader.inputs["Base Color"].default_value = (0.62, 0.6, 0.57, 1.0)
    shader.inputs["Roughness"].default_value = 0.6
    try:
        for thing in others:
            thing.hide_render = True
        layer.material_override = clay
        yield
    finally:
        layer.material_override = None
        for thing, was in zip(others, hidden, strict=True):
            thing.hide_render = was
        bpy.data.materials.remove(clay)
