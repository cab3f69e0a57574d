"""The add-on's operators against the real server: the way of one photo, and everything that can go wrong.

In the bpy module there is no event loop, so operators run their job to the end. Where a test needs a job in
hand it goes through the session, as an operator with a window does, and pumps by itself.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy
import pytest

from blender_addon import preferences
from blender_addon.jobs import Message
from blender_addon.operators.create import head_request
from blender_addon.protocol import ADDRESS_FILE
from blender_addon.session import session
from tests.addon.head_engine import FAILURE, WARNING

PATIENCE = 60.0


def pump_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        session.pump(wait=0.05)
        assert time.monotonic() < end, session.trouble


def start(photo: Path, settings: Any) -> None:
    """What the operator does with a window: submit and return."""
    session.submit(*head_request(str(photo), settings))


def test_photo_to_object(settings: Any, photo: Path, data: Path) -> None:
    assert bpy.ops.geoinv.create_head(filepath=str(photo)) == {"FINISHED"}
    thing = bpy.context.active_object
    assert thing.name == "Head Frau Müller 写真"
    assert settings.photo == str(photo)
    assert Path(thing["geoinv_bundle"]) == data / "heads" / thing["geoinv_head"]
    assert (data / "heads" / thing["geoinv_head"] / "latent.safetensors").is_file()
    assert not list((data / "heads").glob(".*"))
    assert WARNING in thing["geoinv_warnings"]
    state = bpy.context.window_manager.geoinv
    assert (state.engine, state.running, state.problem) == ("ready", False, "")
    assert state.notice == f"Added “{thing.name}”"


def test_progress_goes_forward_through_named_stages(
    settings: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, str]] = []
    handle = session._handle

    def look(message: Message) -> None:
        handle(message)
        state = bpy.context.window_manager.geoinv
        seen.append((state.fraction, state.stage))

    monkeypatch.setattr(session, "_handle", look)
    bpy.ops.geoinv.create_head(filepath=str(photo))
    fractions = [fraction for fraction, stage in seen if stage]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)
    assert {"Encoding the photo", "Saving"} <= {stage for _, stage in seen}


def test_variant_by_sliders_and_by_labels(head: Any) -> None:
    head.geoinv.jaw_open = 0.7
    assert bpy.ops.geoinv.add_variant() == {"FINISHED"}
    first = bpy.context.active_object
    assert first.name.endswith("jawOpen 0.7")
    assert first.geoinv.jaw_open == pytest.approx(0.7)
    assert first["geoinv_source"] == head["geoinv_head"]
    bpy.context.view_layer.objects.active = head
    assert bpy.ops.geoinv.add_variant(labels='{"smile": 0.8, "age": 70}') == {"FINISHED"}
    second = bpy.context.active_object
    assert dict(second["geoinv_labels"])["age"] == 70
    assert second.location.x > first.location.x > head.location.x
    assert head.geoinv.jaw_open == pytest.approx(0.7)


def test_variant_of_a_variant(head: Any) -> None:
    bpy.ops.geoinv.add_variant(labels='{"smile": 0.8}')
    bpy.ops.geoinv.add_variant(labels='{"age": 70}')
    labels = dict(bpy.context.active_object["geoinv_labels"])
    assert (labels["smile"], labels["age"]) == (0.8, 70)


def test_shape_key_by_operator(head: Any) -> None:
    head.geoinv.jaw_open = 1.0
    assert bpy.ops.geoinv.add_shape_key() == {"FINISHED"}
    assert [thing.name for thing in bpy.data.objects] == [head.name]
    assert "jawOpen 1" in head.data.shape_keys.key_blocks


def test_nothing_changed_is_said(head: Any) -> None:
    with pytest.raises(RuntimeError, match="move a slider"):
        bpy.ops.geoinv.add_variant()
    with pytest.raises(RuntimeError, match="give JSON"):
        bpy.ops.geoinv.add_variant(labels="smile=1")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("", "No photo is chosen"), ("/nowhere/photo.jpg", "There is no photo at /nowhere/photo.jpg")],
)
def test_photo_missing(name: str, sentence: str) -> None:
    bpy.context.scene.geoinv.photo = name
    with pytest.raises(RuntimeError, match=sentence):
        bpy.ops.geoinv.create_head()
    assert sentence in bpy.context.window_manager.geoinv.problem


def test_photo_deleted_after_it_was_chosen(settings: Any, photo: Path) -> None:
    request = head_request(str(photo), settings)
    photo.unlink()
    session.submit(*request)
    session.run_to_end()
    assert "cannot be read" in str(session.trouble)


def test_no_picture_is_the_servers_sentence(settings: Any, tmp_path: Path) -> None:
    text = tmp_path / "photo.jpg"
    text.write_text("This is no picture.")
    with pytest.raises(RuntimeError):
        bpy.ops.geoinv.create_head(filepath=str(text))
    assert session.trouble is not None
    assert session.trouble.code == "job"
    assert "image" in str(session.trouble) or "picture" in str(session.trouble)


def test_failed_job_is_the_servers_sentence_verbatim(settings: Any, photo: Path) -> None:
    preferences.fallback.model = "fails"
    with pytest.raises(RuntimeError):
        bpy.ops.geoinv.create_head(filepath=str(photo))
    assert str(session.trouble) == FAILURE
    assert session.engine_state == "ready"
    preferences.fallback.model = "default"
    assert bpy.ops.geoinv.create_head() == {"FINISHED"}
    assert bpy.context.window_manager.geoinv.problem == ""


def test_model_missing(settings: Any, photo: Path) -> None:
    preferences.fallback.model = "/nowhere/model.safetensors"
    with pytest.raises(RuntimeError, match="does not exist"):
        bpy.ops.geoinv.create_head(filepath=str(photo))


def test_worker_that_dies_costs_the_job_not_the_engine(settings: Any, photo: Path) -> None:
    preferences.fallback.model = "dies"
    with pytest.raises(RuntimeError):
        bpy.ops.geoinv.create_head(filepath=str(photo))
    assert session.trouble is not None
    assert session.trouble.code == "job"
    preferences.fallback.model = "default"
    assert bpy.ops.geoinv.create_head() == {"FINISHED"}


def test_damaged_result(settings: Any, photo: Path) -> None:
    preferences.fallback.model = "broken"
    with pytest.raises(RuntimeError, match=r"damaged .mesh\.npz"):
        bpy.ops.geoinv.create_head(filepath=str(photo))
    assert not bpy.data.objects


def test_cancel_and_go_on(settings: Any, photo: Path) -> None:
    preferences.fallback.model = "slow"
    start(photo, settings)
    pump_until(lambda: session.job is not None and session.job.stage == "refine")
    assert not bpy.ops.geoinv.create_head.poll()
    assert bpy.ops.geoinv.cancel() == {"FINISHED"}
    assert session.stage_title == "Cancelling"
    began = time.monotonic()
    pump_until(lambda: session.job is None)
    assert time.monotonic() - began < 5
    assert session.notice.startswith("Cancelled")
    assert session.trouble is None
    preferences.fallback.model = "default"
    assert bpy.ops.geoinv.create_head(filepath=str(photo)) == {"FINISHED"}


def test_engine_killed_while_it_works(settings: Any, photo: Path) -> None:
    preferences.fallback.model = "slow-once"
    start(photo, settings)
    pump_until(lambda: session.job is not None and session.job.stage == "refine")
    assert session.engine.address is not None
    os.kill(session.engine.address.pid, signal.SIGKILL)
    pump_until(lambda: session.job is None)
    assert session.engine_state == "lost"
    assert "does not answer any more" in str(session.trouble)
    # The new engine takes up the job that was cut off, so Try Again follows that one instead of a second.
    assert session.last is not None
    cut_off = session.last[0].resume
    assert bpy.ops.geoinv.retry() == {"FINISHED"}
    assert session.engine_state == "ready"
    assert bpy.context.active_object["geoinv_head"] == cut_off


def test_engine_killed_while_it_is_idle(head: Any) -> None:
    assert session.engine.address is not None
    os.kill(session.engine.address.pid, signal.SIGKILL)
    pump_until(lambda: session.engine_state == "lost")
    assert "stopped by itself" in str(session.trouble)
    assert bpy.ops.geoinv.start_engine() == {"FINISHED"}
    assert (session.engine_state, session.trouble) == ("ready", None)


def test_wrong_key_mid_session_recovers(head: Any, photo: Path) -> None:
    from dataclasses import replace

    assert session.engine.address is not None
    session.engine.address = replace(session.engine.address, token="0123456789abcdef0123")
    assert bpy.ops.geoinv.create_head(filepath=str(photo)) == {"FINISHED"}


def test_another_file_is_opened_meanwhile(settings: Any, photo: Path, tmp_path: Path) -> None:
    start(photo, settings)
    blend = str(tmp_path / "running.blend")
    bpy.ops.wm.save_as_mainfile(filepath=blend)
    bpy.ops.wm.read_homefile(use_empty=True)
    session.run_to_end()
    assert not bpy.data.objects
    (offer,) = session.offers
    assert "another file" in bpy.context.window_manager.geoinv.notice
    bpy.ops.wm.open_mainfile(filepath=blend)
    assert not bpy.context.window_manager.geoinv.running
    assert bpy.ops.geoinv.import_head(directory=str(offer.folder)) == {"FINISHED"}
    assert bpy.context.active_object["geoinv_head"] == offer.head
    assert session.offers == []


def test_running_state_is_not_in_the_file(settings: Any, photo: Path, tmp_path: Path) -> None:
    preferences.fallback.model = "slow"
    start(photo, settings)
    pump_until(lambda: session.fraction > 0)
    assert bpy.context.window_manager.geoinv.running
    stored = bpy.context.window_manager.get("geoinv")
    assert stored is None or list(stored.keys()) == []
    session.cancel()
    session.run_to_end()


def test_disk_full_while_the_head_is_saved(
    settings: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def full(self: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        if mode == "wb" and self.name == "mesh.npz":
            raise OSError(28, "No space left on device")
        return real(self, mode, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(RuntimeError, match="No space left on device"):
            bpy.ops.geoinv.create_head(filepath=str(photo))
    assert session.trouble is not None
    assert session.trouble.code == "disk"
    assert not list((preferences.data_folder() / "heads").glob(".*"))
    assert bpy.ops.geoinv.retry() == {"FINISHED"}


def test_head_that_the_engine_no_longer_knows(head: Any) -> None:
    head["geoinv_head"] = "0" * 16
    with pytest.raises(RuntimeError, match="no such head"):
        bpy.ops.geoinv.add_variant(labels='{"smile": 1}')


def test_report_has_no_private_folders(head: Any, data: Path) -> None:
    from blender_addon.operators.report import report_text

    text = report_text()
    assert "protocol" in text.lower()
    assert "Engine: ready" in text
    assert str(data) not in text
    assert str(Path.home()) not in text


def test_address_file_is_the_servers(head: Any, data: Path) -> None:
    said = json.loads((data / ADDRESS_FILE).read_text())
    assert session.engine.address is not None
    assert said["pid"] == session.engine.address.pid
