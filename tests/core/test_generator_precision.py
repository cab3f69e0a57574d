"""Super-resolution in 16 bits against the original's float32 pictures, on the CPU.

It is the same code as on a graphics card, where float16 is the default. The bounds are a little wider than
the errors in `precision`'s docstring, relative to the pictures' peaks there.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import geoinv_core as gi
from geoinv_core.errors import ModelError
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.generator.precision import Precision, set_precision

BOUNDS: dict[Precision, tuple[float, float]] = {"bfloat16": (0.04, 0.005), "float16": (0.004, 0.0006)}
"""Largest and root-mean-square difference, in shares of the peak."""
CASES = [
    ("eg3d-tiny", "bfloat16"),
    ("eg3d-tiny", "float16"),
    ("panohead-tiny", "bfloat16"),
    ("panohead-tiny", "float16"),
    ("ffhq-shape", "bfloat16"),  # float16 would take a processor minutes
]


@pytest.fixture
def lowered() -> Any:
    """lowered(generator, precision) until the end of the test; the networks are shared between tests."""
    changed: list[TriplaneGenerator] = []

    def lower(generator: TriplaneGenerator, precision: Precision) -> TriplaneGenerator:
        changed.append(generator)
        set_precision(generator, precision)
        return generator

    yield lower
    for generator in changed:
        set_precision(generator, "float32")


def pictures(data: Any) -> list[tuple[str, Tensor, Tensor]]:
    """(key, camera, expected) of every final picture of one head, or a part of it."""
    cameras = data.arrays("01_mapping")["c"]
    found = []
    for key, expected in data.arrays("06_final").items():
        if match := re.fullmatch(r"c(\d)_mid_nr\d+_image(_stride\d|_crop_224_288)?", key):
            found.append((key, cameras[int(match[1])][None], expected))
    return found


def drawn(generator: TriplaneGenerator, key: str, ws: Tensor, camera: Tensor) -> Tensor:
    side = re.search(r"nr(\d+)", key)
    assert side is not None
    image = generator.synthesize(ws, camera, int(side[1])).image
    if step := re.search(r"stride(\d)", key):
        return image[..., :: int(step[1]), :: int(step[1])]
    return image[..., 224:288, 224:288] if "crop" in key else image


def compare(found: Tensor, expected: Tensor, precision: Precision) -> None:
    worst, usual = BOUNDS[precision]
    peak, apart = float(expected.abs().max()), found - expected
    assert found.dtype == torch.float32
    assert 1e-4 * peak < float(apart.abs().max()) < worst * peak  # from below: it did calculate in 16 bits
    assert float(apart.square().mean().sqrt()) < usual * peak


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_pictures_stay_close_to_the_originals(
    originals: Any, lowered: Any, name: str, precision: Precision
) -> None:
    data = originals("full", name)
    generator, known = lowered(data.generator(), precision), data.arrays("06_final")
    with torch.inference_mode():
        key, camera, expected = pictures(data)[0]
        compare(drawn(generator, key, known["ws"], camera), expected, precision)
        if "batch2_ws1" in known:
            both, cameras = torch.cat([known["ws"], known["batch2_ws1"]]), data.arrays("01_mapping")["c"][1:3]
            pair = generator.synthesize(both, cameras, 32).image[..., ::2, ::2]
            compare(pair, known["batch2_c1c2_nr32_image_stride2"], precision)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_renderer_is_given_and_gives_the_same(originals: Any, lowered: Any, precision: Precision) -> None:
    data = originals("small", "panohead-tiny")
    generator, ws = data.generator(), data.arrays("06_final")["ws"]
    camera = data.arrays("01_mapping")["c"][:1]
    with torch.inference_mode():
        exact = generator.synthesize(ws, camera, 32)
        planes = generator.planes(ws)
        lowered(generator, precision)
        found = generator.synthesize(ws, camera, 32)
        assert torch.equal(generator.planes(ws), planes)
    assert torch.equal(found.features, exact.features)
    assert torch.equal(found.depth, exact.depth)
    compare(found.image, exact.image, precision)


def test_gradients_are_of_full_precision(originals: Any, lowered: Any) -> None:
    data = originals("small", "eg3d-tiny")
    generator, camera = data.generator(), data.arrays("01_mapping")["c"][:1]

    def gradient() -> tuple[Tensor, Tensor]:
        ws = data.arrays("06_final")["ws"].clone().requires_grad_()
        image = generator.synthesize(ws, camera, 16).image
        (found,) = torch.autograd.grad(image.square().mean(), ws)
        return image, found

    image, exact = gradient()
    lowered(generator, "float16")
    again, found = gradient()
    assert torch.equal(again, image)
    torch.testing.assert_close(found, exact)


def test_large_values_do_not_overflow_float16(originals: Any, lowered: Any) -> None:
    """Features at the clamp, and styles and weights far beyond what training gives, one head and two."""
    generator = originals("small", "eg3d-tiny").generator()
    network = generator.superresolution
    x = torch.full([2, generator.config.features, 64, 64], 250.0)
    ws = 30 * torch.randn(2, 1, generator.config.w_dim, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        exact = network(x[:, :3], x, ws)[0]
        lowered(generator, "float16")
        assert not exact.isnan().any()
        for found in (network(x[:, :3], x, ws)[0], network(x[:1, :3], x[:1], ws[:1])[0]):
            apart = found - exact[: len(found)]
            assert bool(found.isfinite().all())
            assert float(apart.square().mean().sqrt()) < 0.002 * float(exact.abs().max())


def test_what_cannot_be_lowered_says_so(originals: Any) -> None:
    generator = originals("small", "eg3d-tiny").generator()
    plain = TriplaneGenerator(replace(generator.config, name="plain", superresolution=None))
    set_precision(plain)  # "auto" takes what there is
    with pytest.raises(ModelError, match="plain cannot calculate in float16"):
        set_precision(plain, "float16")
    with pytest.raises(ModelError, match="no precision; choose one of auto, float32"):
        set_precision(generator, "float8")  # type: ignore[arg-type]


def test_models_are_opened_in_a_precision(originals: Any, tmp_path: Path) -> None:
    file = gi.weights.save(originals("small", "eg3d-tiny").generator(), tmp_path / "m.safetensors")

    def types(model: gi.Model) -> set[torch.dtype]:
        network = model.generator.superresolution
        return {network.block0.dtype, network.block1.dtype}

    assert types(gi.open_model(file, "cpu")) == {torch.float32}
    assert types(gi.open_model(file, "cpu", precision="bfloat16")) == {torch.bfloat16}
    assert types(gi.open_model(file, "cpu")) == {torch.float32}
