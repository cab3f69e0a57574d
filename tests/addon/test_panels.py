"""What the panels draw. Blender never draws without a window, so a recorder stands in for the layout.

It checks what Blender would only complain about on the artist's screen: icons, operators and properties.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bpy
import pytest

from blender_addon import preferences, results
from blender_addon.errors import Trouble
from blender_addon.operators.create import head_request
from blender_addon.panels.text import columns
from blender_addon.session import Offer, Wish, session
from tests.addon.head_engine import write_head

ICONS = set(bpy.types.UILayout.bl_rna.functions["label"].parameters["icon"].enum_items.keys())


class Recorder:
    """A layout that notes the texts and operators it is given; sub-layouts note in the same place."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.buttons: list[str] = []
        self.scale_y = 1.0
        self.enabled = True
        self.alignment = "EXPAND"
        self.use_property_split = False
        self.use_property_decorate = True

    def row(self, **_: Any) -> Recorder:
        return self

    column = box = split = row

    def label(self, text: str = "", icon: str = "NONE") -> None:
        assert icon in ICONS
        self.texts.append(text)

    def progress(self, factor: float, type: str, text: str) -> None:
        assert 0 <= factor <= 1
        self.texts.append(text)

    def menu(self, name: str, text: str = "", icon: str = "NONE") -> None:
        assert icon in ICONS
        assert hasattr(bpy.types, name)
        self.texts.append(text)

    def prop(self, data: Any, name: str, icon: str = "NONE", **_: Any) -> None:
        assert icon in ICONS
        assert name in data.bl_rna.properties

    def operator(self, name: str, text: str | None = None, icon: str = "NONE", emboss: bool = True) -> Any:
        assert icon in ICONS
        package, operator = name.split(".")
        assert hasattr(bpy.types, f"{package.upper()}_OT_{operator}")
        self.buttons.append(name)
        return SimpleNamespace()

    @property
    def all(self) -> str:
        return " ".join(self.texts)


def drawn(panel: str) -> Recorder:
    """The panel as it would be drawn now."""
    seen = Recorder()
    getattr(bpy.types, f"GEOINV_PT_{panel}").draw(SimpleNamespace(layout=seen), bpy.context)
    return seen


def write_model(path: Path, **meta: Any) -> Path:
    """The header of a model file, which is all that the add-on reads."""
    texts = {"geoinv": "1", "config": "{}", "meta": json.dumps(meta)}
    header = json.dumps({"__metadata__": texts}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


def test_models_are_chosen_with_their_licence_in_view(tmp_path: Path, data: Path) -> None:
    assert "CC0-1.0" in drawn("options").all
    listed = write_model(data / "models" / "ffhq.safetensors", licence="non-commercial research")
    write_model(data / "models" / "ffhq.encoder.safetensors")
    seen = Recorder()
    bpy.types.GEOINV_MT_model.draw(SimpleNamespace(layout=seen), bpy.context)
    assert seen.buttons == ["geoinv.use_model", "geoinv.use_model", "geoinv.choose_model"]
    assert bpy.ops.geoinv.use_model(model=str(listed)) == {"FINISHED"}
    assert preferences.get().model == str(listed)
    assert "ffhq Licence: non-commercial research" in drawn("options").all
    assert "optimisation" not in drawn("options").all
    (data / "models" / "ffhq.encoder.safetensors").unlink()
    alone = write_model(tmp_path / "alone.safetensors", licence="x")
    assert bpy.ops.geoinv.choose_model(filepath=str(alone)) == {"FINISHED"}
    assert "minutes of optimisation" in drawn("options").all


def test_what_is_no_model_is_refused_and_the_choice_stays(tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(RuntimeError, match=r"no model of GeoInv.*geoinv convert"):
        bpy.ops.geoinv.use_model(model=str(tmp_path / "net.safetensors"))
    assert preferences.get().model == "default"
    preferences.get().model = str(tmp_path / "gone.safetensors")
    assert "cannot be read" in drawn("options").all


@pytest.fixture
def running(settings: Any, photo: Path) -> Iterator[None]:
    preferences.fallback.model = "slow"
    session.submit(*head_request(str(photo), settings))
    yield
    session.cancel()
    session.run_to_end()


def test_idle() -> None:
    assert drawn("main").buttons == ["geoinv.create_head"]
    assert drawn("options").buttons == []


def test_running_shows_stage_and_cancel(running: None) -> None:
    seen = drawn("main")
    assert seen.buttons == ["geoinv.cancel"]
    assert seen.texts[0].endswith(" s)")
    assert "geoinv.create_head" not in drawn("picture").buttons


def test_trouble_is_one_wrapped_sentence_with_its_fix() -> None:
    sentence = "The engine is not set up: choose the python of its environment, which is somewhere."
    session.fail(Trouble(sentence, code="no_python", fix="geoinv.choose_python"))
    seen = drawn("main")
    assert seen.all == sentence
    assert max(map(len, seen.texts)) <= columns(bpy.context, icons=2)
    assert seen.buttons == [
        "geoinv.create_head",
        "geoinv.dismiss",
        "geoinv.choose_python",
        "geoinv.copy_report",
    ]
    bpy.ops.geoinv.dismiss()
    assert drawn("main").texts == []


def test_what_the_artist_can_put_right_needs_no_report() -> None:
    with pytest.raises(RuntimeError, match="No photo is chosen"):
        bpy.ops.geoinv.create_head()
    assert drawn("main").buttons == ["geoinv.create_head", "geoinv.dismiss"]


def test_a_selected_reference_is_offered_as_the_photo(photo: Path) -> None:
    reference = bpy.data.objects.new("reference", None)
    reference.empty_display_type, reference.data = "IMAGE", bpy.data.images.load(str(photo))
    bpy.context.collection.objects.link(reference)
    bpy.context.view_layer.objects.active = reference
    assert drawn("main").buttons == ["geoinv.photo_from_image", "geoinv.create_head"]


def test_finished_head_of_another_file_is_offered(tmp_path: Path) -> None:
    session.offers.append(Offer("Head someone", "abc", tmp_path))
    assert drawn("main").buttons[-2:] == ["geoinv.import_head", "geoinv.decline_offers"]
    bpy.ops.geoinv.decline_offers()
    assert drawn("main").buttons == ["geoinv.create_head"]


def test_head_with_sliders_warnings_and_facts(tmp_path: Path) -> None:
    assert not bpy.types.GEOINV_PT_head.poll(bpy.context)
    folder = write_head(tmp_path / "head", warnings=["The face is small."])
    results.place(Offer("Head", "abc", folder), Wish("Head", "head"))
    assert bpy.types.GEOINV_PT_head.poll(bpy.context)
    seen = drawn("head")
    assert seen.buttons == ["geoinv.reset_sliders", "geoinv.add_variant", "geoinv.add_shape_key"]
    assert "The face is small." in seen.all
    assert "Model: test" in drawn("facts").texts
    bpy.context.active_object["geoinv_model"] = "/models/ffhq.safetensors"
    bpy.context.active_object["geoinv_model_licence"] = "non-commercial research"
    assert "Model: ffhq Licence of the model: non-commercial research" in drawn("facts").all


@pytest.mark.parametrize("state", ["off", "starting", "ready", "busy", "lost"])
def test_engine_states(state: str) -> None:
    before, session.engine_state = session.engine_state, state
    try:
        seen = drawn("engine")
    finally:
        session.engine_state = before
    assert len(seen.texts) >= 1
    assert ("geoinv.start_engine" in seen.buttons) == (state in ("off", "lost"))
    assert ("geoinv.stop_engine" in seen.buttons) == (state not in ("off", "lost"))
