"""Rendered rays of converted models against the original renderer, with every backend that is at hand."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from geoinv_core import render
from geoinv_core.camera import orbit, rays
from geoinv_core.render import torch_backend

NETWORKS = pytest.mark.parametrize("name", ["eg3d-tiny", "panohead-tiny"])
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "auto": ({}, {"near": "auto", "far": "auto"}),
    "disparity": ({}, {"sampling": "disparity"}),
    "white_boxwarp1.6": ({"white_back": True, "box_warp": 1.6}, {}),
    "nocrop": ({"crop": None}, {}),
}
"""Name in the file -> changes of the field, changes of the call."""
EDGES = 0.01
"""Share of rays that may be off by up to three tolerances."""
NOT_OFFERED = ("cull", "binarize")
"""Options of PanoHead that its released models do not use."""


@NETWORKS
@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_rays(originals: Any, name: str, backend: str) -> None:
    data = originals("full", name)
    known, generator = data.arrays("05_render_lowres"), data.generator()
    cameras = data.arrays("01_mapping")["c"]
    side = int(known["resolution"][0])
    compared, wrong = 0, []
    with torch.no_grad():
        field = generator.field(generator.planes(known["ws"]))
        for key in sorted(known):
            found = re.fullmatch(r"(c(\d)_(?:(.+)_)?(mid|zero|rand)_(\d+)\+(\d+))_feat", key)
            if found is None or (found[3] or "").startswith(NOT_OFFERED):
                continue
            stem, pose, variant, jitter, coarse, fine = found.groups()
            field_changes, call_changes = VARIANTS[variant] if variant else ({}, {})
            draws: Any = jitter
            if jitter == "rand":
                u = known[f"c{pose}_rand_u_coarse"][..., 0], known[f"c{pose}_rand_u_fine"]
                draws = (u[0], u[1].reshape(1, side * side, -1))
            origins, directions = rays(cameras[int(pose)][None], side)
            arguments = {"near": 2.25, "far": 3.3, "samples": (int(coarse), int(fine)), "jitter": draws}
            drawn = render.render(
                replace(field, **field_changes),
                origins,
                directions,
                backend=backend,
                **(arguments | call_changes),
            )
            seen = drawn.opacity > 0.01  # elsewhere the mean depth is ill-conditioned
            expected = known[f"{stem}_depth"][..., 0]
            differences = {
                "features": (drawn.features[..., : known[key].shape[2]] - known[key], 1e-4),
                "opacity": (drawn.opacity - known[f"{stem}_wsum"][..., 0], 1e-4),
                "depth": (torch.where(seen, drawn.depth - expected, 0), 5e-4),
            }
            for what, (difference, tolerance) in differences.items():
                compared += 1
                # at an edge a last bit chooses another interval, on other rays with each kind of processor:
                # u = 1 of the zero mode is one on every ray
                rays_off = difference.abs().reshape(*difference.shape[:2], -1).amax(2).flatten()
                most = float(rays_off.max())
                usual = most if jitter == "zero" else float(rays_off.quantile(1 - EDGES))
                if not (most <= 3 * tolerance and usual <= tolerance * (3 if jitter == "zero" else 1)):
                    wrong.append(f"{stem} {what}: {usual:.1e}, at most {most:.1e}")
    assert not wrong, wrong
    assert compared >= 30


@NETWORKS
def test_samples_of_rays(originals: Any, name: str) -> None:
    """Depths and weights of single samples, for every eighth ray of one view."""
    data = originals("full", name)
    known, generator = data.arrays("05_render_lowres"), data.generator()
    side = int(known["resolution"][0])
    origins, directions = rays(data.arrays("01_mapping")["c"][1:2], side)
    with torch.no_grad():
        field = generator.field(generator.planes(known["ws"]))
        first = render.render(
            field, origins, directions, 2.25, 3.3, (48, 0), backend="torch", return_weights=True
        )
        both = render.render(
            field, origins, directions, 2.25, 3.3, (48, 48), backend="torch", return_weights=True
        )
    stem = "c1_mid_48+48"
    coarse, fine = known[f"{stem}_depths_coarse"][..., 0], known[f"{stem}_depths_fine"][..., 0]
    assert first.depths is not None
    assert first.weights is not None
    assert both.depths is not None
    torch.testing.assert_close(first.depths[:, ::8], coarse, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        first.weights[:, ::8], known[f"{stem}_weights_coarse"][..., 0], rtol=0, atol=1e-4
    )
    merged = torch.cat([coarse, fine], -1).sort(-1).values
    torch.testing.assert_close(both.depths[:, ::8], merged, rtol=0, atol=1e-4)


@NETWORKS
def test_cameras(originals: Any, name: str) -> None:
    known = originals("full", name).arrays("04_rays_cameras")
    for pose, camera in enumerate(known["c"]):
        origins, directions = rays(camera[None], 16)
        assert torch.equal(origins[:, :1], known[f"origins16_c{pose}"])
        torch.testing.assert_close(directions, known[f"dirs16_c{pose}"], rtol=0, atol=2e-7)
    _, directions = rays(known["c"][1:2], 64)
    torch.testing.assert_close(directions, known["dirs64_c1"], rtol=0, atol=2e-7)


@NETWORKS
@pytest.mark.parametrize("kind", ["zero", "mid", "rand"])
def test_importance_sampling(originals: Any, name: str, kind: str) -> None:
    known = originals("full", name).arrays("08_units")
    depths, weights = known["importance_z"][0, ..., 0], known["importance_weights"][0, ..., 0]
    count = known["importance_out_mid"].shape[2]
    u: Tensor = {
        "zero": torch.linspace(0, 1, count).expand(len(depths), count),
        "mid": ((torch.arange(count) + 0.5) / count).expand(len(depths), count),
        "rand": known["importance_u_rand"],
    }[kind]
    found = torch_backend.fine_depths(depths, weights, u.contiguous())
    torch.testing.assert_close(found, known[f"importance_out_{kind}"][0, ..., 0], rtol=0, atol=1e-5)


def test_planes_are_reused(originals: Any) -> None:
    """Drawing from given planes equals drawing from styles, so views and edits need the backbone once."""
    generator = originals("small", "panohead-tiny").generator()
    ws = generator.map(torch.randn(1, 48), torch.randn(1, 25))
    camera = orbit(20, 5)[None]
    with torch.no_grad():
        fresh = generator.synthesize(ws, camera, 16, samples=(8, 8))
        again = generator.synthesize(ws, camera, 16, samples=(8, 8), planes=generator.planes(ws))
    assert torch.equal(fresh.image, again.image)
    assert fresh.image.shape == (1, 3, 128, 128)
