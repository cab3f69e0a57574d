"""Pictures of Blender as photos: opened ones, painted ones, reference empties."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import numpy as np
from PIL import Image

from blender_addon.operators.photo import shown_image


def test_an_opened_picture_is_used_as_it_lies_on_the_disk(photo: Path) -> None:
    image = bpy.data.images.load(str(photo))
    assert bpy.ops.geoinv.photo_from_image(image=image.name) == {"FINISHED"}
    assert bpy.context.scene.geoinv.photo == str(photo)


def test_a_painted_picture_keeps_its_colours() -> None:
    image = bpy.data.images.new("painted", 8, 8)
    image.pixels.foreach_set(np.tile(np.float32([0.8, 0.5, 0.4, 1.0]), 64))
    view = bpy.context.scene.view_settings
    before = view.view_transform
    assert before == "AgX"  # which would dull it
    assert bpy.ops.geoinv.photo_from_image(image="painted") == {"FINISHED"}
    with Image.open(bpy.context.scene.geoinv.photo) as saved:
        found = np.asarray(saved.convert("RGB"), int)
    assert np.abs(found - np.round([0.8 * 255, 0.5 * 255, 0.4 * 255])).max() <= 1
    assert view.view_transform == before


def test_the_selected_reference_is_the_photo(photo: Path, settings: Any) -> None:
    """What dropping a picture on the viewport leaves when the artist chose a reference."""
    reference = bpy.data.objects.new("reference", None)
    reference.empty_display_type, reference.data = "IMAGE", bpy.data.images.load(str(photo))
    bpy.context.collection.objects.link(reference)
    assert shown_image(bpy.context) is None
    bpy.context.view_layer.objects.active = reference
    assert shown_image(bpy.context) == reference.data
    assert bpy.ops.geoinv.photo_from_image() == {"FINISHED"}
    assert settings.photo == str(photo)
