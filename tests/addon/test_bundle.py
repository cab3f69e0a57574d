"""Reading bundles: what the library writes is understood, what is damaged becomes one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blender_addon.bundle import read_bundle
from blender_addon.errors import Trouble
from tests.addon.head_engine import ball, write_head


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    bundle = read_bundle(write_head(tmp_path / "head", warnings=["Be warned."]))
    expected = ball(16, 24, {"jawOpen": 0.0})
    np.testing.assert_array_equal(bundle.vertices, expected.vertices)
    np.testing.assert_array_equal(bundle.faces, expected.faces)
    assert bundle.labels == {"age": 40.0, "smile": 0.1, "jawOpen": 0.0}
    assert bundle.warnings == ["Be warned."]
    assert list(bundle.shapes) == ["mouthSmile"]
    np.testing.assert_allclose(bundle.shapes["mouthSmile"], 0.01, atol=1e-5)


def test_corners_follow_triangles_and_quads(tmp_path: Path) -> None:
    bundle = read_bundle(write_head(tmp_path / "head"))
    starts, corners, uv = bundle.corners()
    quads = int((bundle.faces[:, 3] >= 0).sum())
    assert len(corners) == len(uv) == 4 * quads + 3 * (len(bundle.faces) - quads)
    np.testing.assert_array_equal(corners[starts], bundle.faces[:, 0])
    last = len(bundle.faces) - 1
    np.testing.assert_array_equal(corners[starts[last] :], bundle.faces[last, :3])
    np.testing.assert_array_equal(uv[starts[last] :], bundle.uv[last, :3])


def test_landmarks_that_the_model_does_not_know_are_left_out(tmp_path: Path) -> None:
    folder = write_head(tmp_path / "head")
    _change(folder, landmarks=np.full(68, -1, np.int32))
    assert len(read_bundle(folder).landmarks) == 0


def test_shapes_may_be_missing(tmp_path: Path) -> None:
    folder = write_head(tmp_path / "head")
    (folder / "shapes.npz").unlink()
    assert read_bundle(folder).shapes == {}


def _change(folder: Path, **arrays: Any) -> None:
    with np.load(folder / "mesh.npz") as old:
        kept = {name: old[name] for name in old.files if arrays.get(name, 0) is not None}
    np.savez(folder / "mesh.npz", **{**kept, **{n: a for n, a in arrays.items() if a is not None}})


def _not_finite(folder: Path) -> None:
    _change(folder, vertices=np.full((386, 3), np.nan, np.float32))


def _cut(folder: Path) -> None:
    (folder / "mesh.npz").write_bytes((folder / "mesh.npz").read_bytes()[:900])


def _version(folder: Path) -> None:
    head = json.loads((folder / "head.json").read_text())
    (folder / "head.json").write_text(json.dumps({**head, "format_version": 99}))


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda f: (f / "head.json").unlink(), "head.json: it is missing"),
        (lambda f: (f / "head.json").write_text("{"), "head.json: its content is broken"),
        (lambda f: (f / "head.json").write_text("[]"), "head.json: it holds no head"),
        (_version, "made by a newer GeoInv"),
        (lambda f: (f / "mesh.npz").write_bytes(b""), "mesh.npz: its content is broken"),
        (
            lambda f: (f / "mesh.npz").write_bytes((f / "mesh.npz").read_bytes()[:900]),
            "its content is broken",
        ),
        (lambda f: _change(f, uv=None), "mesh.npz: it has no uv"),
        (lambda f: _change(f, uv=np.zeros((3, 4, 2), np.float32)), "its uv does not fit"),
        (lambda f: _change(f, faces=np.full((4, 4), 9999, np.int32)), "vertices that do not exist"),
        (lambda f: _change(f, faces=np.zeros((0, 4), np.int32)), "it has no faces"),
        (_not_finite, "not finite"),
        (lambda f: (f / "shapes.npz").write_bytes(b"PK"), "shapes.npz: its content is broken"),
        (lambda f: np.savez(f / "shapes.npz", names=["a"], deltas=np.zeros((1, 2, 3))), "do not fit"),
        (lambda f: (f / "albedo.png").write_bytes(b"JFIF"), "albedo.png: it is no PNG"),
        (lambda f: (f / "albedo.png").unlink(), "albedo.png: it is missing"),
        (lambda f: (f / "normal.png").write_bytes(b"JFIF"), "normal.png: it is no PNG"),
    ],
)
def test_damage_is_told_in_a_sentence(tmp_path: Path, harm: Callable[[Path], object], why: str) -> None:
    folder = write_head(tmp_path / "head")
    harm(folder)
    with pytest.raises(Trouble, match=why) as told:
        read_bundle(folder)
    assert told.value.code == "bundle"
    assert str(told.value).endswith(".")


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    folder = write_head(tmp_path / "head")
    _change(folder, vertices=np.array([{"not": "numbers"}], object))
    with pytest.raises(Trouble, match="broken"):
        read_bundle(folder)
