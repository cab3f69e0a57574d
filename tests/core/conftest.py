"""The bundled model's skin, and numbers computed with the original EG3D and PanoHead code, with the networks
they belong to.

The full set lies in the folder that GEOINV_FIXTURES names, or in shared/fixtures beside the checkout; a small
part of it is in tests/data/parity, so that the comparison always runs. Networks are rebuilt from a recipe
(pseudo-random weights by name), so no weights are stored.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import zlib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from geoinv_core.generator import EG3D_AXES, TRUE_AXES, GeneratorConfig, TriplaneGenerator, channel_table
from geoinv_core.heads.skin import Skin, skin_of
from geoinv_core.model import open_model

CHECKOUT = Path(__file__).parents[2]
SMALL = CHECKOUT / "tests" / "data" / "parity"


def full_root() -> Path | None:
    """The folder of the full set, None if there is none."""
    named = os.environ.get("GEOINV_FIXTURES")
    root = Path(named) if named else CHECKOUT.parent / "shared" / "fixtures"
    return root if (root / "eg3d-tiny" / "config.json").is_file() else None


class Originals:
    """One network's numbers.

    Args:
        size: "small" or "full". name: "eg3d-tiny", "panohead-tiny" or "ffhq-shape".
    """

    def __init__(self, size: str, name: str) -> None:
        root = SMALL if size == "small" else full_root()
        if root is None:
            pytest.skip("the numbers of the original code are not here (set GEOINV_FIXTURES to their folder)")
        self.folder = root / ("eg3d-tiny/ffhq-shape" if name == "ffhq-shape" else name)
        self.config: dict[str, Any] = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        self.panohead = name == "panohead-tiny"

    def arrays(self, file: str) -> dict[str, Tensor]:
        """All arrays of one file."""
        path = self.folder / f"{file}.npz"
        if not path.is_file():
            pytest.skip(f"{path.name} is not part of this set")
        with np.load(path) as found:
            return {name: torch.from_numpy(found[name]) for name in found.files}

    def generator(self) -> TriplaneGenerator:
        """The network, in eval mode; built once for every recipe."""
        return _build(json.dumps(self.config), self.panohead)


@cache
def _build(text: str, panohead: bool) -> TriplaneGenerator:
    described = json.loads(text)
    generator = TriplaneGenerator(_configuration(described, panohead))
    calibration = described["calibration_decoder_net_2_row0"]
    state = {
        name: _recipe(name, tuple(value.shape), described["seed"])
        for name, value in generator.state_dict().items()
    }
    state["decoder.net.2.weight"][0] *= calibration["row_scale"]
    state["decoder.net.2.bias"][0] = calibration["bias"]
    generator.load_state_dict(state)
    return generator.eval().requires_grad_(False)


def _recipe(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    n = np.random.RandomState(zlib.crc32(name.encode()) ^ seed).standard_normal(shape)
    n = torch.from_numpy(np.asarray(n, np.float32))
    if "t_mapping" in name and "w_avg" in name:
        return n * 0.01
    if "t_mapping" in name:
        return n * 0.02 if ".fc1." in name else n
    for part, value in (
        ("noise_strength", 0.05 * n + 0.1),
        ("noise_const", n),
        ("affine.weight", n),
        ("affine.bias", 0.1 * n + 1),
        ("w_avg", 0.3 * n),
        ("mapping.embed.weight", n),
        ("mapping.embed.bias", 0.5 * n),
    ):
        if part in name:
            return value
    if "mapping.fc" in name:
        return n * (100 if name.endswith("weight") else 20)
    if name.startswith("decoder") and name.endswith("bias"):
        return n * 0.5
    return n * 0.1 if name.endswith("bias") else n


def _configuration(described: dict[str, Any], panohead: bool) -> GeneratorConfig:
    k = described["G_kwargs"]
    r = k["rendering_kwargs"]
    resolution = r.get("triplane_size", 256)
    mapping = k["mapping_kwargs"]
    options: dict[str, Any] = {}
    if panohead:
        options = {
            "plane_depth": r["triplane_depth"],
            "axes": TRUE_AXES,
            "crop": 0.1,
            "mask": True,
            "camera_target": (0.0, 0.0, 0.0),
            "torgb_raw": r["use_torgb_raw"],
            "background": channel_table(64, k["channel_base"] // 2, k["channel_max"]),
            "translation": (2, mapping["layer_features"], mapping["embed_features"]),
        }
    activation = r.get("decoder_activation", "sigmoid")
    return GeneratorConfig(
        **{
            "axes": EG3D_AXES,
            "z_dim": k["z_dim"],
            "mapping_hidden": mapping.get("layer_features"),
            "embed_dim": mapping.get("embed_features"),
            "channels": channel_table(resolution, k["channel_base"], k["channel_max"]),
            "activation": activation,
            "signed": activation == "sigmoid",
            "neural_resolution": described["neural_rendering_resolution"],
            "superresolution": r["superresolution_module"].rpartition("Hybrid")[2],
            "image_resolution": described["common"]["img_resolution"],
            "sr_conv_clamp": 256.0,
            "camera_target": (0.0, 0.0, 0.2),
        }
        | options
    )


@pytest.fixture(scope="session")
def originals() -> Any:
    """originals(size, name) -> Originals."""
    return Originals


@pytest.fixture(scope="session")
def skin() -> Skin:
    """The bundled model's."""
    space = open_model("default").label_space
    assert space is not None
    found = skin_of(space.layout)
    assert found is not None
    return found


def _module_beside(name: str) -> ModuleType:
    """tests/core/NAME.py; test folders are no packages, so it has no name to import."""
    file = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"geoinv_tests_{name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def pickling() -> ModuleType:
    return _module_beside("pickling")


@pytest.fixture(scope="session")
def twins() -> ModuleType:
    return _module_beside("twins")


@pytest.fixture(scope="session")
def host_cuda() -> ModuleType:
    return _module_beside("host_cuda")
