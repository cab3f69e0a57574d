"""Conversion of checkpoints: spellings of old and new torch and numpy, and what cannot be converted."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from geoinv_core import weights
from geoinv_core.errors import Cancelled, ModelError
from geoinv_core.generator import EG3D_AXES, GeneratorConfig, TriplaneGenerator, channel_table
from geoinv_core.invert import measure_for
from geoinv_core.weights import memory
from geoinv_core.weights.header import about, models_in

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tiny() -> TriplaneGenerator:
    torch.manual_seed(3)
    config = GeneratorConfig(
        name="m", z_dim=6, w_dim=8, mapping_hidden=7, embed_dim=5, channels=channel_table(8, 32, 4),
        axes=EG3D_AXES, plane_channels=4, features=8, decoder_hidden=6, superresolution="2X",
        image_resolution=128, sr_conv_clamp=256.0,
    )  # fmt: skip
    generator = TriplaneGenerator(config).eval()
    generator.w_avg.normal_()
    return generator


SPELLINGS: list[dict[str, Any]] = [
    {},
    {"numpy": "numpy.core.multiarray"},
    {"old_names": True, "protocol": 2, "numpy": "numpy.core.multiarray"},
    {"rebuild": "_rebuild_tensor", "parameters": False},
    {"protocol": 5},
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("augment", [False, True])
def test_spellings(
    tmp_path: Path, tiny: TriplaneGenerator, pickling: Any, spelling: dict[str, Any], augment: bool
) -> None:
    kind = pickling.Spelling(**spelling)
    source, target = tmp_path / "m.pkl", tmp_path / "m.safetensors"
    source.write_bytes(pickling.dump(pickling.checkpoint(tiny, kind, augment), kind.protocol))
    done = weights.convert(source, target)
    assert done.family == "eg3d"
    assert "non-commercial" in weights.info(target)["licence"]
    again = weights.load(target)
    assert again.config.mapping_lr_mult == 0.01
    assert again.config.axes == EG3D_AXES
    for name, value in tiny.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_settings_of_the_rays(tmp_path: Path, tiny: TriplaneGenerator, pickling: Any) -> None:
    changes = {"ray_start": "auto", "ray_end": "auto", "white_back": True, "box_warp": 1.6, "c_scale": 0.5}
    (tmp_path / "m.pkl").write_bytes(pickling.dump(pickling.checkpoint(tiny, **changes)))
    config = weights.convert(tmp_path / "m.pkl", tmp_path / "m.safetensors").config
    assert config.ray_start is None
    assert config.white_back
    assert (config.box_warp, config.c_scale) == (1.6, 0.5)


def _refused(tmp_path: Path, content: bytes, pattern: str) -> None:
    source = tmp_path / "m.pkl"
    source.write_bytes(content)
    with pytest.raises(ModelError, match=pattern):
        weights.convert(source, tmp_path / "m.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["m.pkl"]


MEASURED = """
import sys
from pathlib import Path
from geoinv_core.weights import conversion

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024

conversion.convert(sys.argv[3], sys.argv[2])  # brings in what torch loads lazily, 80 MB
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
conversion.convert(sys.argv[1], sys.argv[2])
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of a process"
)
def test_memory_stays_within_twice_the_file(tmp_path: Path, tiny: TriplaneGenerator, pickling: Any) -> None:
    config = GeneratorConfig(
        name="m", z_dim=6, w_dim=128, channels=channel_table(32, 8192, 320), axes=EG3D_AXES,
        superresolution="2X", image_resolution=128, sr_conv_clamp=256.0,
    )  # fmt: skip
    source, small = tmp_path / "m.pkl", tmp_path / "small.pkl"
    source.write_bytes(pickling.dump(pickling.checkpoint(TriplaneGenerator(config))))
    small.write_bytes(pickling.dump(pickling.checkpoint(tiny)))
    size = source.stat().st_size
    assert size > 40e6  # so large that the interpreter's own needs do not matter
    line = [sys.executable, "-c", MEASURED, str(source), str(tmp_path / "m.safetensors"), str(small)]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=CHECKOUT)
    peak = int(done.stdout)
    assert peak < 2 * size, f"{peak / size:.2f} of the file"


def test_the_discriminator_can_be_kept(tmp_path: Path, originals: Any) -> None:
    data = originals("full", "eg3d-tiny")
    (source,) = data.folder.glob("*.pkl")
    done = weights.convert(source, tmp_path / "m.safetensors", discriminator=True)
    assert [f.name for f in done.files] == ["m.safetensors", "m.discriminator.safetensors"]
    measure = measure_for(done.path, torch.device("cpu"))
    a, b = torch.rand(2, 1, 3, 64, 64) * 2 - 1
    assert float(measure(a, a)) == 0.0
    assert float(measure(a, b)) > 0.1
    assert "non-commercial" in about(str(done.path))["licence"]
    assert models_in(tmp_path) == [done.path]


def test_no_discriminator_to_keep(tmp_path: Path, tiny: TriplaneGenerator, pickling: Any) -> None:
    source = tmp_path / "m.pkl"
    source.write_bytes(pickling.dump(pickling.checkpoint(tiny)))
    with pytest.raises(ModelError, match="convert without it"):
        weights.convert(source, tmp_path / "m.safetensors", discriminator=True)
    assert [p.name for p in tmp_path.iterdir()] == ["m.pkl"]


def test_flat_stylegan(tmp_path: Path, pickling: Any) -> None:
    empty = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    part = pickling.persistent("SynthesisNetwork", empty, pickling.Spelling())
    network = pickling.persistent(
        "Generator", empty | {"_modules": {"mapping": part, "synthesis": part}}, pickling.Spelling()
    )
    _refused(tmp_path, pickling.dump({"G_ema": network}), "has no 3D inside")


def test_other_density_rule(tmp_path: Path, tiny: TriplaneGenerator, pickling: Any) -> None:
    _refused(tmp_path, pickling.dump(pickling.checkpoint(tiny, clamp_mode="relu")), "density rule")


def test_missing_network(tmp_path: Path, pickling: Any) -> None:
    empty = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    other = pickling.persistent("Generator", empty, pickling.Spelling())
    _refused(tmp_path, pickling.dump({"G": other, "G_ema": None}), r"no network G_ema \(it has G\)")


def test_plain_state_dict(tmp_path: Path, tiny: TriplaneGenerator, pickling: Any) -> None:
    state = {n: pickling.pickled_tensor(v, pickling.Spelling()) for n, v in tiny.state_dict().items()}
    _refused(tmp_path, pickling.dump(state), "no network, at most a state dict")


def test_safetensors_of_something_else(tmp_path: Path) -> None:
    _refused(tmp_path, save({"x": torch.zeros(3)}), "is a safetensors file")


def test_missing_tensor(tmp_path: Path, tiny: TriplaneGenerator, pickling: Any) -> None:
    checkpoint = pickling.checkpoint(tiny)
    state = checkpoint["G_ema"].args[0]["state"]
    del (
        state["_modules"]["backbone"]
        .args[0]["state"]["_modules"]["mapping"]
        .args[0]["state"]["_buffers"]["w_avg"]
    )
    _refused(tmp_path, pickling.dump(checkpoint), r"backbone\.mapping\.w_avg is missing")


def test_not_a_number(tmp_path: Path, tiny: TriplaneGenerator, pickling: Any) -> None:
    checkpoint = pickling.checkpoint(tiny)
    state = (
        checkpoint["G_ema"].args[0]["state"]["_modules"]["backbone"].args[0]["state"]["_modules"]["mapping"]
    )
    bad = pickling.pickled_tensor(torch.full([8], torch.nan), pickling.Spelling())
    state.args[0]["state"]["_buffers"]["w_avg"] = bad
    _refused(tmp_path, pickling.dump(checkpoint), "no numbers")


def test_half_downloaded(tmp_path: Path, tiny: TriplaneGenerator, pickling: Any) -> None:
    whole = pickling.dump(pickling.checkpoint(tiny))
    _refused(tmp_path, whole[: len(whole) // 2], "ends too early")


def test_state_dict_of_torch_save(tmp_path: Path) -> None:
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save({"w": torch.zeros(3)}, buffer, _use_new_zipfile_serialization=zipped)
        _refused(tmp_path, buffer.getvalue(), r"torch\.save")


def test_larger_than_memory(
    tmp_path: Path, tiny: TriplaneGenerator, pickling: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1000)
    _refused(tmp_path, pickling.dump(pickling.checkpoint(tiny)), "GB of memory")


def test_cancelled(tmp_path: Path, tiny: TriplaneGenerator, pickling: Any) -> None:
    (tmp_path / "m.pkl").write_bytes(pickling.dump(pickling.checkpoint(tiny)))

    def stop(progress: Any) -> None:
        if progress.fraction > 0.1:
            raise Cancelled

    with pytest.raises(Cancelled):
        weights.convert(tmp_path / "m.pkl", tmp_path / "m.safetensors", on_progress=stop)
    assert [p.name for p in tmp_path.iterdir()] == ["m.pkl"]


@pytest.mark.parametrize("name", ["eg3d-tiny", "panohead-tiny"])
def test_canary_checkpoints(tmp_path: Path, originals: Any, name: str) -> None:
    """Checkpoints of the original code whose embedded sources raise an error when they are run."""
    data = originals("full", name)
    (source,) = data.folder.glob("*.pkl")
    done = weights.convert(source, tmp_path / "m.safetensors")
    assert done.family == ("panohead" if data.panohead else "eg3d")
    assert done.ignored == ("dataset_label_std",)
    converted, expected = weights.load(tmp_path / "m.safetensors"), data.generator()
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(converted.state_dict()[key], value, rtol=1e-6, atol=1e-6)
    same = {"name": "", "unit_mm": 1.0}
    assert replace(converted.config, **same) == replace(expected.config, **same)
    if os.name == "posix":
        assert (tmp_path / "m.safetensors").stat().st_size < 2 * source.stat().st_size
