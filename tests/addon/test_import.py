"""A bundle as a Blender object."""

from __future__ import annotations

import json
from pathlib import Path

import bpy
import numpy as np
import pytest
from mathutils import Vector
from PIL import Image

from blender_addon import results
from blender_addon.bundle import read_bundle
from blender_addon.errors import Trouble
from blender_addon.importer import changed_labels, faces_of
from blender_addon.session import Offer, Wish
from tests.addon.head_engine import write_head


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_head(tmp_path / "0123456789abcdef")


def place(folder: Path, wish: Wish | None = None, head: str = "0123456789abcdef") -> bpy.types.Object:
    results.place(Offer("Head Test", head, folder), wish or Wish("Head Test", "head"))
    return bpy.context.active_object


def test_a_head_inside_another_object_is_told(tmp_path: Path) -> None:
    bpy.ops.mesh.primitive_cube_add(rotation=(0.0, 0.0, 0.7))
    cube = bpy.context.active_object
    offer = Offer("Head", "abc", write_head(tmp_path / "head"))
    assert results.place(offer, Wish("Head", "head")) == "Added “Head” inside “Cube”, which hides it"
    cube.hide_set(True)
    assert results.place(offer, Wish("Head", "head")) == "Added “Head.001”"


def test_geometry_is_the_bundles_to_the_last_bit(folder: Path) -> None:
    thing, bundle = place(folder), read_bundle(folder)
    points = np.empty(len(thing.data.vertices) * 3, np.float32)
    thing.data.vertices.foreach_get("co", points)
    np.testing.assert_array_equal(points.reshape(-1, 3), bundle.vertices)
    np.testing.assert_array_equal(faces_of(thing.data), bundle.faces)
    assert all(polygon.use_smooth for polygon in thing.data.polygons)
    outward = [
        polygon.normal.dot(polygon.center - thing.data.vertices[0].co) for polygon in thing.data.polygons
    ]
    assert np.mean(np.array(outward) > 0) > 0.5


def test_uv_and_packed_picture(folder: Path) -> None:
    thing, bundle = place(folder), read_bundle(folder)
    layer = thing.data.uv_layers.active
    assert (layer.name, len(thing.data.uv_layers)) == ("UVMap", 1)
    uv = np.empty(len(layer.uv) * 2, np.float32)
    layer.uv.foreach_get("vector", uv)
    np.testing.assert_array_equal(uv.reshape(-1, 2), bundle.corners()[2])
    (material,) = thing.data.materials
    (texture,) = [node for node in material.node_tree.nodes if node.type == "TEX_IMAGE"]
    image = texture.image
    assert image.packed_file is not None
    assert image.colorspace_settings.name == "sRGB"
    assert tuple(image.size) == (64, 64)
    assert image.packed_file.data == bundle.albedo.read_bytes()
    (link,) = texture.outputs["Color"].links
    assert (link.to_node.type, link.to_socket.name) == ("BSDF_PRINCIPLED", "Base Color")
    assert str(folder) not in image.filepath


def test_normal_map_bends_the_surface(folder: Path) -> None:
    Image.new("RGB", (16, 16), (160, 128, 250)).save(folder / "normal.png")
    tree = place(folder).data.materials[0].node_tree
    (bend,) = [node for node in tree.nodes if node.type == "NORMAL_MAP"]
    (link,) = bend.outputs["Normal"].links
    assert (link.to_node.type, link.to_socket.name, bend.space) == ("BSDF_PRINCIPLED", "Normal", "TANGENT")
    (link,) = bend.inputs["Color"].links
    image = link.from_node.image
    assert image.packed_file is not None
    assert image.colorspace_settings.name == "Non-Color"
    assert tree.nodes.active.image.name.endswith("Albedo")


def test_broken_normal_map_leaves_nothing(folder: Path) -> None:
    (folder / "normal.png").write_bytes(b"\x89PNG\r\n\x1a\n broken after that")
    with pytest.raises(Trouble, match=r"normal\.png"):
        place(folder)
    assert not bpy.data.objects
    assert not bpy.data.images


def test_picture_stays_when_the_bundle_is_deleted(folder: Path, tmp_path: Path) -> None:
    thing = place(folder)
    blend = str(tmp_path / "kept.blend")
    bpy.ops.wm.save_as_mainfile(filepath=blend)
    (folder / "albedo.png").unlink()
    name = thing.name
    bpy.ops.wm.open_mainfile(filepath=blend)
    node = bpy.data.objects[name].data.materials[0].node_tree.nodes.active
    # The picture's first row is hair, its last is skin; Blender counts rows from the bottom.
    assert np.allclose(np.array(node.image.pixels[:3]) * 255, (214, 160, 132), atol=1)


def test_facts_and_sliders(folder: Path) -> None:
    thing = place(folder)
    assert thing["geoinv_head"] == "0123456789abcdef"
    assert (thing["geoinv_model"], thing["geoinv_photo_hash"]) == ("test", "ab" * 32)
    assert thing["geoinv_bundle"] == str(folder)
    assert list(thing["geoinv_landmarks"]) == list(range(68))
    assert thing.geoinv.age == 40.0
    assert thing.geoinv.smile == pytest.approx(0.1)
    assert changed_labels(thing) == {}
    thing.geoinv.smile = 0.8
    thing.geoinv.brow_up = 0.5
    assert changed_labels(thing) == {"smile": pytest.approx(0.8), "browUp": 0.5}
    bpy.ops.geoinv.reset_sliders()
    assert changed_labels(thing) == {}


def test_place_is_the_cursor_in_metres(folder: Path) -> None:
    bpy.context.scene.cursor.location = (1.0, 2.0, 3.0)
    thing = place(folder)
    assert tuple(thing.location) == (1.0, 2.0, 3.0)
    assert tuple(thing.scale) == (1.0, 1.0, 1.0)
    assert tuple(thing.dimensions) == pytest.approx((0.16, 0.2, 0.24), abs=0.005)
    assert thing.select_get()


def test_shape_keys_start_at_rest(folder: Path) -> None:
    thing = place(folder)
    keys = thing.data.shape_keys.key_blocks
    assert [key.name for key in keys] == ["Basis", "mouthSmile"]
    assert (keys[1].value, keys[1].slider_min, keys[1].slider_max) == (0.0, 0.0, 1.0)
    moved = keys[1].data[7].co - keys[0].data[7].co
    assert tuple(moved) == pytest.approx((0.01, 0.01, 0.01), abs=1e-5)


def test_regions_are_vertex_groups(folder: Path) -> None:
    thing = place(folder)
    points = np.array([vertex.co for vertex in thing.data.vertices])
    assert [group.name for group in thing.vertex_groups] == ["scalp", "eye.L"]
    for number, expected in enumerate((points[:, 2] > 0.15, points[:, 0] > 0.07)):
        member = [any(g.group == number for g in vertex.groups) for vertex in thing.data.vertices]
        np.testing.assert_array_equal(member, expected)


def test_landmarks_are_an_attribute_and_empties_that_follow(folder: Path) -> None:
    thing = place(folder)
    number = [item.value for item in thing.data.attributes["landmark"].data]
    assert [number.index(k) for k in range(68)] == list(thing["geoinv_landmarks"])
    assert bpy.ops.geoinv.add_landmarks() == {"FINISHED"}
    assert len(thing.children) == 68
    seventh = bpy.data.objects[f"{thing.name} Landmark 07"]
    at = int(thing["geoinv_landmarks"][7])
    for value in (0.0, 1.0):
        thing.data.shape_keys.key_blocks["mouthSmile"].value = value
        bpy.context.view_layer.update()
        expected = thing.matrix_world @ (thing.data.vertices[at].co + value * Vector((0.01, 0.01, 0.01)))
        assert (seventh.matrix_world.translation - expected).length < 1e-5


def test_heads_saved_before_there_were_groups(folder: Path) -> None:
    with np.load(folder / "mesh.npz") as old:
        kept = {name: old[name] for name in old.files if "group" not in name}
    np.savez(folder / "mesh.npz", **kept)
    assert len(place(folder).vertex_groups) == 0


def test_variants_line_up_beside_their_source(folder: Path, tmp_path: Path) -> None:
    first = place(folder)
    places = []
    for number, age in enumerate((50.0, 70.0)):
        made = write_head(tmp_path / f"v{number}", {"age": age})
        wish = Wish("Head Test", "variant", first.session_uid, "0123456789abcdef", {"age": age})
        thing = place(made, wish, f"fedcba987654321{number}")
        assert thing.name == f"Head Test age {age:.0f}"
        assert thing.geoinv.age == age
        places.append(thing.location.x)
    width = first.dimensions.x
    assert first.location.x + width < places[0] < places[1] - width


def test_shape_key_on_the_same_topology(folder: Path, tmp_path: Path) -> None:
    first = place(folder)
    made = write_head(tmp_path / "v", {"jawOpen": 1.0})
    wish = Wish("Head Test", "shape_key", first.session_uid, "0123456789abcdef", {"jawOpen": 1.0})
    results.place(Offer("Head Test", "ffff", made), wish)
    assert len(bpy.data.objects) == 1
    key = first.data.shape_keys.key_blocks["jawOpen 1"]
    basis = first.data.shape_keys.key_blocks["Basis"]
    drop = np.array([a.co.z - b.co.z for a, b in zip(key.data, basis.data, strict=True)])
    assert drop.min() == pytest.approx(-0.02, abs=1e-6)
    assert drop.max() == 0.0
    assert key.value == 1.0


def test_another_topology_becomes_an_object_and_says_so(folder: Path, tmp_path: Path) -> None:
    first = place(folder)
    made = write_head(tmp_path / "v", {"age": 70.0}, topology="raw")
    wish = Wish("Head Test", "shape_key", first.session_uid, "0123456789abcdef", {"age": 70.0})
    notice = results.place(Offer("Head Test", "ffff", made), wish)
    assert "another topology" in notice
    assert len(bpy.data.objects) == 2
    assert "age 70" not in first.data.shape_keys.key_blocks


def test_variant_of_a_deleted_head_still_comes_in(folder: Path) -> None:
    thing = place(folder, Wish("Head Test", "shape_key", 12345, "gone", {"age": 70.0}))
    assert thing["geoinv_head"] == "0123456789abcdef"


def test_mode_and_selection_of_the_artist_are_kept(folder: Path, tmp_path: Path) -> None:
    first = place(folder)
    bpy.ops.object.mode_set(mode="EDIT")
    results.place(Offer("Second", "eeee", write_head(tmp_path / "second")), Wish("Second", "head"))
    assert bpy.context.mode == "EDIT_MESH"
    assert bpy.context.active_object == first
    assert "Second" in bpy.context.scene.objects


def test_broken_picture_leaves_nothing_behind(folder: Path) -> None:
    (folder / "albedo.png").write_bytes(b"\x89PNG\r\n\x1a\n broken after that")
    with pytest.raises(Trouble, match=r"albedo\.png"):
        place(folder)
    assert not bpy.data.objects
    assert not bpy.data.images
    assert not bpy.data.materials
    assert not bpy.data.meshes


def test_import_operator_takes_a_folder(folder: Path) -> None:
    assert bpy.ops.geoinv.import_head(directory=str(folder)) == {"FINISHED"}
    assert bpy.context.active_object["geoinv_head"] == folder.name
    with pytest.raises(RuntimeError, match="damaged"):
        bpy.ops.geoinv.import_head(directory=str(folder.parent))


def test_warnings_of_the_head_reach_the_object(tmp_path: Path) -> None:
    folder = write_head(tmp_path / "head", warnings=["Small face."])
    results.place(Offer("W", "h", folder, ("Two faces.", "Small face.")), Wish("W", "head"))
    assert bpy.context.active_object["geoinv_warnings"].splitlines() == ["Two faces.", "Small face."]
    assert json.loads((folder / "head.json").read_text())["warnings"] == ["Small face."]
