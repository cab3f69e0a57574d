"""Exports: .glb and .obj have what the bundle has, in the axes that viewers expect."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geoinv_core.errors import Cancelled, ModelError, OutputError
from geoinv_core.mesh import bundle
from geoinv_core.mesh.bundle import BundleContents
from geoinv_core.mesh.export import export, write
from geoinv_core.mesh.head_mesh import HeadMesh
from geoinv_core.progress import Progress


def box_mesh() -> HeadMesh:
    """A box of quads, its top two triangles, 20 cm high, deeper towards -Y; one UV island a face."""
    x, y, z = np.meshgrid([-0.08, 0.08], [-0.1, 0.09], [0.0, 0.2], indexing="ij")
    vertices = np.stack([x, y, z], -1).reshape(-1, 3).astype(np.float32)
    faces = np.array(
        [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [1, 5, 7, -1], [1, 7, 3, -1]], np.int32
    )
    uv = np.zeros((6, 4, 2), np.float32)
    for face in range(6):
        left = face / 6
        uv[face] = [[left, 0.1], [left + 0.15, 0.1], [left + 0.15, 0.9], [left, 0.9]]
    uv[4:, 3] = 0
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:8] = (250, 10, 20)  # the top rows: v near 1
    one = np.zeros((8, 3), np.float16)
    one[1] = (0.0, -0.03, 0.01)  # forward and up
    rng = np.random.default_rng(1)
    shapes = {"jawOpen": one, "âge 70": rng.normal(0, 0.01, (8, 3)).astype(np.float16), "still": one * 0}
    return HeadMesh(vertices, faces, uv, np.arange(68, dtype=np.int32) % 8, picture, shapes)


def relief_mesh() -> HeadMesh:
    """The same with a normal map that bends to the right."""
    return replace(box_mesh(), maps={"normal": np.full((16, 16, 3), (160, 128, 250), np.uint8)})


def saved(folder: Path) -> Path:
    head = {
        "model": {"name": "default", "hash": ""},
        "camera": [0.0] * 25,
        "unit_mm": 400,
        "origin": [0, 0, 0],
        "labels": {},
        "timings": {},
        "warnings": [],
    }
    preview = Image.new("RGB", (512, 512))
    return bundle.write(folder, BundleContents(head, {"w": np.zeros(3, np.float32)}, box_mesh(), preview))


def parse(data: bytes) -> tuple[dict, bytes]:
    magic, version, length = struct.unpack_from("<III", data)
    assert (magic, version, length) == (0x46546C67, 2, len(data))
    size, kind = struct.unpack_from("<II", data, 12)
    assert (kind, size % 4) == (0x4E4F534A, 0)
    start = 20 + size
    binary, kind = struct.unpack_from("<II", data, start)
    assert (kind, binary % 4, start + 8 + binary) == (0x004E4942, 0, len(data))
    return json.loads(data[20:start]), data[start + 8 :]


def accessor(document: dict, binary: bytes, index: int) -> np.ndarray:
    a = document["accessors"][index]
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[a["type"]]
    kind = {5126: "<f4", 5125: "<u4"}[a["componentType"]]

    def load(view: int, count: int, dtype: str) -> np.ndarray:
        v = document["bufferViews"][view]
        assert v["byteOffset"] % 4 == 0
        assert v["byteOffset"] + v["byteLength"] <= document["buffers"][0]["byteLength"]
        return np.frombuffer(binary, dtype, count, v["byteOffset"])

    if "sparse" in a:
        sparse = a["sparse"]
        values = np.zeros((a["count"], width), kind)
        rows = load(sparse["indices"]["bufferView"], sparse["count"], "<u4")
        assert (np.diff(rows.astype(int)) > 0).all()
        values[rows] = load(sparse["values"]["bufferView"], sparse["count"] * width, kind).reshape(-1, width)
    else:
        values = load(a["bufferView"], a["count"] * width, kind).reshape(-1, width)
    if "min" in a:
        np.testing.assert_array_equal(values.min(0), np.float32(a["min"]))
        np.testing.assert_array_equal(values.max(0), np.float32(a["max"]))
    return values


def test_glb_structure(tmp_path: Path) -> None:
    target = tmp_path / "sub folder" / "Kopf.glb"
    assert export(saved(tmp_path / "h"), target) == [target]
    document, binary = parse(target.read_bytes())
    primitive = document["meshes"][0]["primitives"][0]
    position = accessor(document, binary, primitive["attributes"]["POSITION"])
    uv = accessor(document, binary, primitive["attributes"]["TEXCOORD_0"])
    normal = accessor(document, binary, primitive["attributes"]["NORMAL"])
    triangles = accessor(document, binary, primitive["indices"]).reshape(-1, 3)
    mesh = box_mesh()
    assert len(triangles) == 10
    assert len(position) == len(uv) == len(normal) == 22, "one vertex per pair of vertex and UV"
    assert position[:, 1].max() == pytest.approx(0.2), "up is +Y"
    assert position[:, 2].max() == pytest.approx(0.1), "the face looks along +Z"
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-6)
    corners, corner_uv = mesh.triangles()
    blender = position[:, [0, 2, 1]] * np.float32([1, -1, 1])
    np.testing.assert_allclose(blender[triangles], mesh.vertices[corners], atol=1e-7)
    np.testing.assert_allclose(uv[triangles] * [1, -1] + [0, 1], corner_uv, atol=1e-6)
    a, b, c = (position[triangles[:, i]] for i in range(3))
    assert np.einsum("ij,ij->i", np.cross(b - a, c - a), (a + b + c) / 3 - [0, 0.1, 0.005]).min() > 0
    assert document["meshes"][0]["extras"]["targetNames"] == ["jawOpen", "âge 70", "still"]
    offsets = [accessor(document, binary, t["POSITION"]) for t in primitive["targets"]]
    moved = np.abs(offsets[0]).sum(1) > 0
    np.testing.assert_allclose(offsets[0][moved][0], [0, 0.01, 0.03], atol=1e-4)
    np.testing.assert_allclose(position[moved][0], [-0.08, 0.2, 0.1], atol=1e-6)
    assert "sparse" in document["accessors"][primitive["targets"][0]["POSITION"]]
    assert not offsets[2].any()
    view = document["bufferViews"][document["images"][0]["bufferView"]]
    data = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), mesh.albedo)


def test_glb_brings_the_normal_map(tmp_path: Path) -> None:
    target = tmp_path / "head.glb"
    write(relief_mesh(), target)
    document, binary = parse(target.read_bytes())
    texture = document["textures"][document["materials"][0]["normalTexture"]["index"]]
    view = document["bufferViews"][document["images"][texture["source"]]["bufferView"]]
    data = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), relief_mesh().maps["normal"])
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    tangent, normal = (accessor(document, binary, attributes[name]) for name in ("TANGENT", "NORMAL"))
    np.testing.assert_allclose(np.linalg.norm(tangent[:, :3], axis=1), 1, atol=1e-6)
    np.testing.assert_allclose((tangent[:, :3] * normal).sum(1), 0, atol=1e-6)
    assert set(np.abs(tangent[:, 3])) == {1.0}


IMPORT = """
import bpy, json, sys
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.import_scene.gltf(filepath=sys.argv[1])
o = next(o for o in bpy.data.objects if o.type == "MESH")
m, w = o.data, o.matrix_world
keys = m.shape_keys.key_blocks
image = next(i for i in bpy.data.images if i.size[0])
print("RESULT" + json.dumps({
    "vertices": [list(w @ v.co) for v in m.vertices],
    "uv": [[[*m.uv_layers[0].data[i].uv] for i in p.loop_indices] for p in m.polygons],
    "faces": [list(p.vertices) for p in m.polygons],
    "normals": [list(w.to_3x3() @ p.normal) for p in m.polygons],
    "keys": {k.name: [list(w.to_3x3() @ (a.co - b.co)) for a, b in zip(k.data, keys[0].data)] for k in keys},
    "image": list(image.size),
    "pixel": list(image.pixels[-4:]),
    "material": m.materials[0].name,
}))
"""


def test_glb_comes_back_in_blender(tmp_path: Path) -> None:
    pytest.importorskip("bpy", reason="Blender's Python package is not installed")
    mesh = box_mesh()
    target = tmp_path / "head.glb"
    write(mesh, target)
    # a process of its own: bpy keeps global state, and its add-ons warn while loading
    run = subprocess.run(
        [sys.executable, "-c", IMPORT, str(target)], capture_output=True, text=True, timeout=120
    )
    line = next((line for line in run.stdout.splitlines() if line.startswith("RESULT")), None)
    assert line is not None, run.stdout + run.stderr
    found = json.loads(line.removeprefix("RESULT"))
    corners, corner_uv = mesh.triangles()
    vertices, faces = np.array(found["vertices"]), np.array(found["faces"])

    def ordered(points: np.ndarray, uv: np.ndarray) -> np.ndarray:
        """Triangles with their UVs in an order of their own, whichever corner comes first."""
        both = np.concatenate([points, uv], -1).round(4)
        turned = [np.roll(t, -np.lexsort(t.T[::-1])[0], 0) for t in both]
        return np.array(sorted(turned, key=lambda t: t.ravel().tolist()))

    np.testing.assert_allclose(
        ordered(vertices[faces], np.array(found["uv"])), ordered(mesh.vertices[corners], corner_uv), atol=2e-4
    )
    assert list(found["keys"]) == ["Basis", "jawOpen", "âge 70", "still"]
    where = np.linalg.norm(vertices - mesh.vertices[1], axis=1) < 1e-4
    np.testing.assert_allclose(
        np.array(found["keys"]["jawOpen"])[where], [[0, -0.03, 0.01]] * where.sum(), atol=1e-4
    )
    assert not np.array(found["keys"]["jawOpen"])[~where].any()
    assert found["image"] == [64, 64]
    np.testing.assert_allclose(found["pixel"][:3], np.array([250, 10, 20]) / 255, atol=0.01)
    assert found["material"] == "skin"


VALIDATE = """
const file = require("fs").readFileSync(process.argv[1]);
const report = require("gltf-validator").validateBytes(new Uint8Array(file));
report.then((found) => console.log(JSON.stringify(found.issues)));
"""


def test_glb_passes_the_khronos_validator(tmp_path: Path) -> None:
    node = shutil.which("node")
    have = (
        node
        and subprocess.run([node, "-e", 'require("gltf-validator")'], capture_output=True).returncode == 0
    )
    if not node or not have:
        pytest.skip("node finds no gltf-validator (npm install gltf-validator; NODE_PATH=.../node_modules)")
    target = tmp_path / "head.glb"
    write(relief_mesh(), target)
    run = subprocess.run([node, "-e", VALIDATE, str(target)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    issues = json.loads(run.stdout)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]


def test_obj(tmp_path: Path) -> None:
    target = tmp_path / "my head.obj"
    names = [path.name for path in export(saved(tmp_path / "h"), target)]
    assert sorted(names) == ["my head.mtl", "my head.obj", "my head.png"]
    lines = target.read_text().splitlines()
    mesh = box_mesh()
    points = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    np.testing.assert_allclose(points[:, [0, 2, 1]] * [1, -1, 1], mesh.vertices, atol=1e-6)
    uv = np.array([line.split()[1:] for line in lines if line.startswith("vt ")], float)
    faces = [
        [[int(n) - 1 for n in c.split("/")] for c in line.split()[1:]] for line in lines if line[:2] == "f "
    ]
    assert [len(face) for face in faces] == [4, 4, 4, 4, 3, 3]
    for face, expected, expected_uv in zip(faces, mesh.faces, mesh.uv, strict=True):
        assert [c[0] for c in face] == [i for i in expected.tolist() if i >= 0]
        np.testing.assert_allclose(uv[[c[1] for c in face]], expected_uv[: len(face)], atol=1e-6)
    assert "mtllib my head.mtl" in lines
    assert "map_Kd my head.png" in (tmp_path / "my head.mtl").read_text()
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "my head.png")), mesh.albedo)


def test_obj_brings_the_normal_map(tmp_path: Path) -> None:
    names = [path.name for path in write(relief_mesh(), tmp_path / "head.obj")]
    assert sorted(names) == ["head-normal.png", "head.mtl", "head.obj", "head.png"]
    assert "norm head-normal.png" in (tmp_path / "head.mtl").read_text().splitlines()
    kept = np.asarray(Image.open(tmp_path / "head-normal.png"))
    np.testing.assert_array_equal(kept, relief_mesh().maps["normal"])


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    folder = saved(tmp_path / "h")
    with pytest.raises(OutputError, match=r"\.glb and \.obj"):
        export(folder, tmp_path / "head.fbx")
    with pytest.raises(ModelError, match="cannot be used"):
        export(tmp_path / "nothing", tmp_path / "head.glb")
    with pytest.raises(OutputError, match="could not be saved"):
        export(folder, folder / "head.json" / "head.glb")
    (tmp_path / "taken.obj").mkdir()
    with pytest.raises(OutputError, match="could not be saved"):
        export(folder, tmp_path / "taken.obj")

    assert not list(tmp_path.glob("taken.*[lg]"))

    def stop(progress: Progress) -> None:
        if progress.fraction >= 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        export(folder, tmp_path / "head.glb", stop)
    assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / "head.glb").exists()
