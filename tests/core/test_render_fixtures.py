"""Numbers of the original code: pictures from stored planes, importance sampling, lookups, lattices."""

import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geoinv_core import camera
from geoinv_core.render import EG3D_AXES, PANOHEAD_AXES, Field, build, library, query, render, torch_backend
from geoinv_core.render.example import random_field
from geoinv_core.render.lookup import plane_features

FOLDER = Path(
    os.environ.get("GEOINV_FIXTURES") or Path(__file__).resolve().parents[3] / "shared" / "fixtures"
)
SEED = 20230402

pytestmark = pytest.mark.skipif(
    not (FOLDER / "panohead-tiny").is_dir(),
    reason="reference numbers are absent; set GEOINV_FIXTURES to their folder",
)


def load(family: str, name: str) -> dict[str, torch.Tensor]:
    with np.load(FOLDER / family / f"{name}.npz") as data:
        return {k: torch.from_numpy(data[k]) for k in data.files}


@pytest.fixture(params=["torch", "cpu"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "cpu":
        try:
            build.build()
        except build.BuildError as error:
            pytest.skip(str(error))
        library.forget()
    return str(request.param)


@pytest.fixture(scope="module")
def panohead() -> Field:
    """The stored planes, and the decoder from the published recipe of its random weights."""

    def weight(key: str, shape: tuple[int, ...], scale: float = 1.0) -> torch.Tensor:
        noise = np.random.RandomState(zlib.crc32(key.encode()) ^ SEED).standard_normal(shape)
        return torch.from_numpy((scale * noise).astype(np.float32))

    w2, b2 = weight("decoder.net.2.weight", (33, 64)), weight("decoder.net.2.bias", (33,), 0.5)
    w2[0] *= -32.2321
    b2[0] = -11.356
    return Field(
        load("panohead-tiny", "02_backbone")["planes"].view(1, 3, 32, 3, 32, 32),
        torch.tensor(PANOHEAD_AXES),
        weight("decoder.net.0.weight", (64, 32)) / 32**0.5,
        weight("decoder.net.0.bias", (64,), 0.5),
        w2 / 8,
        b2,
        density="softplus",
        beta=torch.tensor(1.0),
        activation="none",
        signed=False,
        crop=0.1,
    )


def test_pictures(panohead: Field, backend: str) -> None:
    wanted = load("panohead-tiny", "05_render_lowres")
    poses = load("panohead-tiny", "01_mapping")["c"]
    white = replace(panohead, box_warp=1.6, white_back=True)
    draws = (wanted["c5_rand_u_coarse"][..., 0], wanted["c5_rand_u_fine"][None])
    limits: dict[str, Any] = {"near": 2.25, "far": 3.3}
    cases: list[tuple[str, Field, int, dict[str, Any]]] = [
        (f"c{pose}_{mode}_{n[0]}+{n[1]}", panohead, pose, {"samples": n, "jitter": mode, **limits})
        for pose in (0, 1)
        for mode in ("zero", "mid")
        for n in ((48, 0), (48, 48), (12, 20))
    ]
    cases += [
        ("c5_rand_48+48", panohead, 5, {"jitter": draws, **limits}),
        ("c1_auto_mid_32+0", panohead, 1, {"samples": (32, 0)}),
        ("c1_disparity_mid_32+0", panohead, 1, {"samples": (32, 0), "sampling": "disparity", **limits}),
        ("c1_white_boxwarp1.6_mid_24+24", white, 1, {"samples": (24, 24), **limits}),
        ("c1_nocrop_mid_48+48", replace(panohead, crop=None), 1, limits),
    ]
    compared = 0
    for name, field, pose, options in cases:
        if f"{name}_feat" not in wanted:
            continue
        compared += 1
        origins, directions = camera.rays(poses[pose : pose + 1], 24)
        out = render(field, origins, directions, backend=backend, **options)
        features, opacity = wanted[f"{name}_feat"], wanted[f"{name}_wsum"][..., 0]
        seen = opacity > 0.01
        assert (out.features[..., : features.shape[-1]] - features).abs().max() < 1e-4, name
        assert (out.opacity - opacity).abs().max() < 1e-4, name
        assert (out.depth - wanted[f"{name}_depth"][..., 0])[seen].abs().max() < 5e-4, name
    assert compared >= 14


def test_points(panohead: Field, backend: str) -> None:
    wanted = load("panohead-tiny", "03_sample_mixed")
    raw, features = query(panohead, wanted["coordinates"], backend=backend)
    assert (raw - wanted["sigma"]).abs().max() < 1e-4
    assert (features - wanted["rgb"]).abs().max() < 1e-4


def test_lattice(panohead: Field, backend: str) -> None:
    wanted = load("panohead-tiny", "10_shape_grid")
    raw, _ = query(panohead, wanted["sample_coordinates"], backend=backend)
    assert (raw.view(24, 24, 24) - wanted["sigma_grid"]).abs().max() < 2e-4


@pytest.mark.parametrize("family", ["eg3d-tiny", "panohead-tiny"])
def test_units(family: str) -> None:
    units = load(family, "08_units")
    axes = EG3D_AXES if family == "eg3d-tiny" else PANOHEAD_AXES
    assert torch.equal(units["plane_axes"], torch.tensor(axes))
    depth = 1 if family == "eg3d-tiny" else 3
    planes = units["sample_planes"]
    planes = planes if depth == 1 else planes.view(1, 3, 4, 3, 8, 6)
    for box, key in ((1.0, "sample_out"), (1.6, "sample_out_boxwarp1p6")):
        field = replace(random_field(4, 4, 1, (1, 1)), axes=torch.tensor(axes), box_warp=box)
        maps = field.plane_maps()
        for p in range(3):
            found = plane_features(planes[0, p : p + 1], maps[p : p + 1], units["sample_points"][0])
            assert torch.allclose(found, units[key][0, p], atol=1e-5)
    z, weights = units["importance_z"][0, ..., 0], units["importance_weights"][0, ..., 0]
    count = units["importance_out_mid"].shape[2]
    for mode, u in (("mid", (torch.arange(count) + 0.5) / count), ("rand", units["importance_u_rand"])):
        found = torch_backend.fine_depths(z, weights, u.expand(9, count).contiguous())
        assert torch.allclose(found, units[f"importance_out_{mode}"][0, ..., 0], atol=1e-5)
    for kind in ("random", "edge"):
        raw, at = (units[f"march_{kind}_{k}"][..., 0].flatten(0, 1) for k in ("densities", "depths"))
        found = torch_backend.march_weights(random_field(1, 1, 1, (1, 1)), raw, at)
        assert torch.allclose(found, units[f"march_{kind}_out_weights"][..., 0].flatten(0, 1), atol=1e-6)
