"""The way of somebody else's checkpoint: convert, load, map, planes, render, mesh, bundle, Blender object."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import pytest
import torch

import geoinv_core as gi
from blender_addon import results
from blender_addon.importer import changed_labels, own_labels
from blender_addon.session import Offer, Wish
from geoinv_core.edit import Directions, save_directions
from tests.core import pickling
from tests.core.tiny import solid

PHOTO = Path(__file__).resolve().parents[1] / "data" / "head-900003.png"


@pytest.fixture
def model(tmp_path: Path) -> gi.Model:
    (tmp_path / "m.pkl").write_bytes(
        pickling.dump(pickling.checkpoint(solid(), avg_camera_pivot=[0, 0, 0.2]))
    )
    done = gi.weights.convert(tmp_path / "m.pkl", tmp_path / "m.safetensors")
    directions = Directions({"smile": torch.ones(done.config.w_dim)}, {"smile": (-1.0, 1.0)})
    save_directions(directions, tmp_path / "m.directions.safetensors", gi.weights.info(done.path)["sha256"])
    return gi.open_model(done.path, device="cpu")


def test_from_checkpoint_to_blender_object(model: gi.Model, tmp_path: Path) -> None:
    # load -> map -> planes -> render
    generator = model.generator
    ws = generator.map(torch.zeros(1, 6), model.conditioning(), truncation=0.7)
    view = generator.render(generator.planes(ws), model.front()[None], 16)
    assert view.features.shape == (1, 8, 16, 16)
    assert float(view.opacity.max()) > 0.5
    # photo -> head -> mesh -> bundle
    head = model.invert(PHOTO, refine=5, tune=4)
    assert any("no encoder" in warning and "geoinv train encoder" in warning for warning in head.warnings)
    assert model.labels == {"smile": (-1.0, 1.0, 0.0)}
    edited = head.edit({"smile": 0.5})
    assert edited.labels == {"smile": 0.5}
    assert head.labels == {"smile": 0.0}
    folder = edited.save(tmp_path / "head", topology="raw", texture=64)
    again = gi.load_head(folder, device="cpu")
    assert again.inversion.tuned.keys() == head.inversion.tuned.keys() != set()
    assert np.abs(np.asarray(again.render(size=64), int) - np.asarray(edited.render(size=64), int)).max() <= 2
    back = again.edit({"smile": 0.0})
    torch.testing.assert_close(back.inversion.w_plus, head.inversion.w_plus)
    with pytest.raises(gi.GeoInvError, match="no such direction; it has smile"):
        head.edit({"age": 70})
    # bundle -> Blender
    results.place(Offer("Head", "abc", folder, tuple(again.warnings)), Wish("Head", "head"))
    thing = bpy.context.active_object
    mesh = edited.mesh(topology="raw", texture=64)
    assert len(thing.data.vertices) == len(mesh.vertices)
    assert max(thing.dimensions) < 0.4  # metres: a box of one unit is 392 mm
    assert max(thing.dimensions) > 0.05
    assert thing["geoinv_model"] == str(model.path)
    assert own_labels(thing) == {"smile": 0.5}
    assert changed_labels(thing) == {}
    points = np.empty(3 * len(thing.data.vertices), np.float32)
    thing.data.vertices.foreach_get("co", points)
    np.testing.assert_allclose(points.reshape(-1, 3), mesh.vertices, atol=1e-4)


def test_a_panohead_checkpoint_keeps_to_its_crop(tmp_path: Path) -> None:
    generator = solid(panohead=True)
    gi.weights.store.save(generator, tmp_path / "p.safetensors", {"family": "panohead", "licence": "test"})
    head = gi.open_model(tmp_path / "p.safetensors", device="cpu").head_of(
        torch.zeros(1, 6), torch.zeros(1, 25)
    )
    mesh = head.mesh(topology="raw", texture=64)
    side = (0.5 - 0.1) * 2 * head.unit_mm / 1000  # x and z are cropped, y is not
    extent = mesh.vertices.max(0) - mesh.vertices.min(0)  # Blender's y is the world's -z
    assert extent[0] <= side + 0.006
    assert extent[1] <= side + 0.006
    assert np.asarray(head.render(size=64)).std() > 1  # through background and super-resolution
