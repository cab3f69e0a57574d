"""The head bundle: what is written comes back, and nothing half-written is ever left."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geoinv_core.errors import Cancelled, ModelError, OutputError
from geoinv_core.mesh import bundle
from geoinv_core.mesh.bundle import BundleContents
from geoinv_core.mesh.head_mesh import HeadMesh, from_triangles, nearest_vertices
from geoinv_core.progress import Progress


def tetrahedron(texture: int = 64) -> HeadMesh:
    rng = np.random.default_rng(3)
    vertices = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
    return from_triangles(
        vertices,
        faces,
        rng.random((4, 3, 2)).astype(np.float32),
        rng.integers(0, 256, (texture, texture, 3)).astype(np.uint8),
        shapes={
            "jawOpen": rng.normal(0, 0.01, (4, 3)).astype(np.float16),
            "smile": np.zeros((4, 3), np.float16),
        },
    )


def contents(**changes: object) -> BundleContents:
    head = {
        "model": {"name": "default", "hash": "ab" * 32},
        "photo_hash": "cd" * 32,
        "camera": [float(i) for i in range(25)],
        "unit_mm": 400.0,
        "origin": [0.0, -0.4, 0.0],
        "labels": {"age": 41.25},
        "timings": {"encode": np.float32(1.5)},
        "warnings": ["Zwei Gesichter: das größte wurde genommen."],
    }
    tensors = {"w_plus": np.arange(6, dtype=np.float32).reshape(1, 2, 3), "index": np.arange(3)}
    value = BundleContents(head, tensors, tetrahedron(), Image.new("RGB", (100, 100), (9, 8, 7)))
    return replace(value, **changes)


def entries(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_round_trip(tmp_path: Path) -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8))
    seen: list[Progress] = []
    target = bundle.write(tmp_path / "Köpfe und mehr" / "head 1", contents(photo=photo), seen.append)
    assert entries(target) == sorted(bundle.FILES)
    assert entries(target.parent) == ["head 1"]
    back = bundle.read(target)
    mesh = tetrahedron()
    for name in ("vertices", "faces", "uv", "landmarks", "albedo"):
        expected = getattr(mesh, name)
        assert getattr(back.mesh, name).dtype == expected.dtype
        np.testing.assert_array_equal(getattr(back.mesh, name), expected)
    assert list(back.mesh.shapes) == ["jawOpen", "smile"]
    np.testing.assert_array_equal(back.mesh.shapes["jawOpen"], mesh.shapes["jawOpen"])
    np.testing.assert_array_equal(back.tensors["w_plus"], contents().tensors["w_plus"])
    assert back.head["warnings"] == contents().head["warnings"]
    assert back.head["timings"] == {"encode": 1.5}
    assert back.head["format_version"] == bundle.FORMAT_VERSION
    assert back.preview.size == (512, 512)
    assert back.photo is not None
    np.testing.assert_array_equal(np.asarray(back.photo), np.asarray(photo))
    assert [p.stage for p in seen] == ["save"] * len(seen)
    assert seen[-1].fraction == 1.0


def test_maps_come_back_and_do_not_outlive_their_head(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    maps = {
        "mask_photo": rng.integers(0, 256, (16, 16)).astype(np.uint8),
        "normal": rng.integers(0, 256, (32, 32, 3)).astype(np.uint8),
    }
    target = bundle.write(tmp_path / "h", contents(mesh=replace(tetrahedron(), maps=maps)))
    back = bundle.read(target).mesh.maps
    assert list(back) == ["mask_photo", "normal"]
    for name, picture in maps.items():
        np.testing.assert_array_equal(back[name], picture)
    (target / "mask of mine.png").write_bytes(b"a painting")
    bundle.write(target, contents())
    assert dict(bundle.read(target).mesh.maps) == {}
    assert [name for name in entries(target) if name not in bundle.FILES] == ["mask of mine.png"]
    (target / "mask_photo.png").write_bytes(b"no picture")
    with pytest.raises(ModelError, match=r"mask_photo\.png"):
        bundle.read(target)
    for name, picture in (
        ("../x", maps["mask_photo"]),
        ("albedo", maps["normal"]),
        ("mask_a", maps["normal"]),
    ):
        with pytest.raises(ValueError, match="map"):
            bundle.write(tmp_path / "bad", contents(mesh=replace(tetrahedron(), maps={name: picture})))
    assert not (tmp_path / "bad").exists()


def test_a_folder_on_another_file_system(tmp_path: Path) -> None:
    """The link lies on one, what it points to on another: the temporary folder has to lie on the second."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system to write to")
    with tempfile.TemporaryDirectory(dir=memory) as other:
        (tmp_path / "link").symlink_to(Path(other) / "heads", target_is_directory=True)
        (Path(other) / "heads").mkdir()
        for _ in range(2):  # new, and replaced
            target = bundle.write(tmp_path / "link" / "h", contents())
            assert target == Path(other) / "heads" / "h"
            assert entries(target.parent) == ["h"]
        assert entries(tmp_path) == ["link"]


def test_no_shapes_and_no_photo(tmp_path: Path) -> None:
    target = bundle.write(tmp_path / "h", contents(mesh=replace(tetrahedron(), shapes={})))
    assert "photo.png" not in entries(target)
    back = bundle.read(target)
    assert back.photo is None
    assert dict(back.mesh.shapes) == {}


def test_replacing_keeps_the_users_own_files(tmp_path: Path) -> None:
    photo = Image.new("RGB", (8, 8))
    target = bundle.write(tmp_path / "h", contents(photo=photo))
    (target / "scene.blend").write_text("mine")
    head = {**contents().head, "labels": {"age": 7}}
    bundle.write(tmp_path / "h", contents(head=head))
    assert bundle.read(target).head["labels"] == {"age": 7}
    assert (target / "scene.blend").read_text() == "mine"
    assert "photo.png" not in entries(target), "a replaced bundle must leave nothing of its own behind"
    assert entries(tmp_path) == ["h"]


def test_empty_folder_is_taken_and_other_folders_are_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    bundle.write(tmp_path / "empty", contents())
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.tex").write_text("words")
    (other / "head.json").write_text('{"format": "something else"}')
    with pytest.raises(OutputError, match="not overwritten"):
        bundle.write(other, contents())
    assert entries(other) == ["chapter1.tex", "head.json"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        bundle.write(tmp_path / "file", contents())
    with pytest.raises(OutputError, match="could not be saved"):
        bundle.write(tmp_path / "file" / "below", contents())


def test_a_link_is_followed(tmp_path: Path) -> None:
    target = bundle.write(tmp_path / "real", contents())
    (tmp_path / "link").symlink_to(target)
    bundle.write(tmp_path / "link", contents(head={**contents().head, "labels": {"age": 8}}))
    assert (tmp_path / "link").is_symlink()
    assert bundle.read(target).head["labels"] == {"age": 8}


def test_full_disk_leaves_the_old_bundle(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system cannot limit the size of files")
    target = bundle.write(tmp_path / "h", contents())
    before = {name: (target / name).read_bytes() for name in entries(target)}
    big = contents(mesh=tetrahedron(512))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match="disk is full"):
            bundle.write(tmp_path / "h", big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert {name: (target / name).read_bytes() for name in entries(target)} == before
    assert entries(tmp_path) == ["h"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with pytest.raises(OutputError, match="may not be written"):
        bundle.write(closed / "h", contents())
    assert entries(closed) == []


def test_cancel_leaves_nothing(tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.fraction > 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        bundle.write(tmp_path / "h", contents(), stop)
    assert entries(tmp_path) == []


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("camera", [1.0] * 24, "camera"),
        ("camera", [float("nan")] * 25, "camera"),
        ("unit_mm", 0, "unit_mm"),
        ("unit_mm", None, "unit_mm"),
        ("origin", [0, 0], "origin"),
        ("labels", {"age": "old"}, "labels"),
        ("warnings", "one", "warnings"),
        ("model", "default", "model"),
    ],
)
def test_inconsistent_heads_are_refused_on_both_sides(
    tmp_path: Path, field: str, value: object, match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        bundle.write(tmp_path / "h", contents(head={**contents().head, field: value}))
    assert entries(tmp_path) == []
    target = bundle.write(tmp_path / "h", contents())
    head = json.loads((target / "head.json").read_text())
    (target / "head.json").write_text(json.dumps({**head, field: value}))
    with pytest.raises(ModelError, match=match):
        bundle.read(target)


@pytest.mark.parametrize("name", [n for n in bundle.FILES if n != "photo.png"])
def test_damaged_files(tmp_path: Path, name: str) -> None:
    target = bundle.write(tmp_path / "h", contents())
    data = (target / name).read_bytes()
    for broken in (b"", data[: len(data) // 2], b"\x93NUMPY" + data):
        (target / name).write_bytes(broken)
        with pytest.raises(ModelError, match="h”") as caught:
            bundle.read(target)
        assert str(caught.value).endswith(".")
    (target / name).unlink()
    with pytest.raises(ModelError, match=name):
        bundle.read(target)


def test_newer_and_missing_bundles(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a saved head"):
        bundle.read(tmp_path / "nowhere")
    target = bundle.write(tmp_path / "h", contents())
    head = json.loads((target / "head.json").read_text())
    (target / "head.json").write_text(json.dumps({**head, "format_version": bundle.FORMAT_VERSION + 1}))
    with pytest.raises(ModelError, match="update GeoInv"):
        bundle.read(target)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"vertices": np.full((4, 3), np.nan, np.float32)}, "finite"),
        ({"faces": np.array([[0, 1, 4, -1]] * 4, np.int32)}, "do not exist"),
        ({"uv": np.full((4, 4, 2), 1.5, np.float32)}, r"0\.\.1"),
        ({"landmarks": np.full(68, 9, np.int32)}, "landmarks"),
        ({"albedo": np.zeros((4, 5, 3), np.uint8)}, "square"),
        ({"shapes": {"x": np.zeros((5, 3), np.float16)}}, "shape x"),
        ({"shapes": {"x": np.full((4, 3), np.inf, np.float16)}}, "shape x"),
    ],
)
def test_inconsistent_meshes(tmp_path: Path, change: dict[str, object], match: str) -> None:
    bad = replace(tetrahedron(), **change)
    with pytest.raises(ValueError, match=match):
        bundle.write(tmp_path / "h", contents(mesh=bad))


def test_quads_are_split_into_triangles() -> None:
    mesh = HeadMesh(
        np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32),
        np.array([[0, 1, 2, 3], [0, 1, 2, -1]], np.int32),
        np.arange(16, dtype=np.float32).reshape(2, 4, 2) / 16,
        np.full(68, -1, np.int32),
        np.zeros((2, 2, 3), np.uint8),
    )
    assert mesh.problem() is None
    faces, uv = mesh.triangles()
    assert faces.tolist() == [[0, 1, 2], [0, 1, 2], [0, 2, 3]]
    np.testing.assert_array_equal(uv[2], mesh.uv[0][[0, 2, 3]])
    points = mesh.vertices[[2, 0]] + 0.1
    assert nearest_vertices(mesh.vertices, points).tolist() == [2, 0]
