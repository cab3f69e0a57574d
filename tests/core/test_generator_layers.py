"""The layers one by one: against the original code's numbers, and against slower definitions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, pad

from geoinv_core.generator import GeneratorConfig, TriplaneGenerator, channel_table
from geoinv_core.generator.layers import (
    FullyConnected,
    SynthesisLayer,
    ToRGB,
    fir_filter,
    normalize_2nd_moment,
    upsample2d,
)


def bundled(**changes: Any) -> TriplaneGenerator:
    """A small model of the bundled model's kind."""
    torch.manual_seed(1)
    settings: dict[str, Any] = {
        "z_dim": 6, "c_dim": 5, "w_dim": 8, "mapping_layers": 3, "mapping_lr_mult": 1.0, "normalize_z": False,
        "normalize_c": False, "channels": channel_table(16, 128, 8), "plane_channels": 4, "noise": False,
        "features": 6, "density": "sdf", "distance_scale": 0.5, "distance_radius": 0.3, "decoder_hidden": 8,
        "ray_start": None, "ray_end": None, "samples": (8, 8), "neural_resolution": 8,
    }  # fmt: skip
    return TriplaneGenerator(GeneratorConfig(**(settings | changes))).eval()


@pytest.mark.parametrize("name", ["eg3d-tiny", "panohead-tiny"])
def test_original_units(originals: Any, name: str) -> None:
    known = originals("full", name).arrays("08_units")
    x, styles = known["sg_x"], known["sg_styles"]
    assert torch.equal(fir_filter(), known["fir"])
    torch.testing.assert_close(upsample2d(x), known["upsample2d_out"], rtol=0, atol=1e-6)
    torch.testing.assert_close(normalize_2nd_moment(x[:, :, 0, 0]), known["norm2_out"], rtol=0, atol=1e-6)
    fc = FullyConnected(6, 5, "lrelu", lr_mult=0.01)
    fc.load_state_dict({"weight": known["fc_weight"], "bias": known["fc_bias"]})
    torch.testing.assert_close(fc(known["fc_x"]), known["fc_lrelu_lr0p01_out"], rtol=0, atol=1e-6)
    assert torch.allclose(torch.linalg.inv(known["plane_axes"]), known["plane_axes_inv"])
    for key, up, noise in (("modconv_out", False, "sg_noise7"), ("modconv_up2_out", True, "sg_noise14")):
        layer = SynthesisLayer(3, 5, 3, len(known[noise]), up=up)
        _use_as_styles(layer.affine)
        layer.weight.data, layer.noise_const.data = known["sg_w"], known[noise]
        layer.noise_strength.data.fill_(1.0)
        expected = torch.nn.functional.leaky_relu(known[key], 0.2) * math.sqrt(2)
        torch.testing.assert_close(layer(x, styles), expected, rtol=0, atol=5e-6)
    rgb = ToRGB(3, 4, 3)
    _use_as_styles(rgb.affine)
    rgb.weight.data = known["sg_w1x1"]
    expected = known["modconv_1x1_nodemod_out"] / math.sqrt(3)
    torch.testing.assert_close(rgb(x, styles), expected, rtol=0, atol=5e-6)


def _use_as_styles(affine: FullyConnected) -> None:
    """Let a style vector of as many numbers as channels pass through unchanged."""
    affine.weight.data = torch.eye(len(affine.bias)) / affine.weight_gain
    affine.bias.data.zero_()


def test_upsampling_is_zeros_then_filter() -> None:
    x = torch.randn(2, 3, 5, 5)
    spread = torch.zeros(2, 3, 10, 10)
    spread[..., ::2, ::2] = x
    kernel = (fir_filter() * 4).expand(3, 1, 4, 4)
    expected = conv2d(pad(spread, (2, 1, 2, 1)), kernel, groups=3)
    torch.testing.assert_close(upsample2d(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("up", [False, True])
def test_layer_is_per_sample_convolution(up: bool) -> None:
    """Scaled activations equal scaled weights, the definition, for every head of the batch."""
    layer = SynthesisLayer(4, 6, 8, 10, up=up, noise=False, clamp=1.5)
    layer.bias.data.normal_()
    x, w = torch.randn(3, 4, 5 if up else 10, 5 if up else 10), torch.randn(3, 8)
    for b in range(3):
        weight = layer.weight * layer.affine(w[b : b + 1])[0][None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            wide = conv_transpose2d(x[b : b + 1], weight.transpose(0, 1), stride=2)
            y = conv2d(wide, (fir_filter() * 4).expand(6, 1, 4, 4), padding=1, groups=6)
        else:
            y = conv2d(x[b : b + 1], weight, padding=1)
        y = torch.nn.functional.leaky_relu(y + layer.bias[:, None, None], 0.2) * math.sqrt(2)
        torch.testing.assert_close(layer(x, w)[b : b + 1], y.clamp(-1.5, 1.5), rtol=1e-4, atol=1e-5)


def test_signed_distance_model() -> None:
    generator = bundled()
    with torch.no_grad():
        ws = generator.map(torch.randn(2, 6), torch.randn(2, 5))
        planes = generator.planes(ws)
        assert planes.shape == (2, 3, 4, 16, 16)
        points = torch.rand(2, 30, 3) - 0.5
        raw, features = generator.query(planes, points)
        assert raw.shape == (2, 30)
        assert features.shape == (2, 30, 6)
        generator.decoder.net[2].weight.data[0] = 0
        generator.decoder.net[2].bias.data[0] = 0.1
        raw, _ = generator.query(planes, points)
        torch.testing.assert_close(raw, 0.05 + points.norm(dim=-1) - 0.3)
        density = generator.density(torch.tensor([-1.0, 0.0, 1.0]))
        torch.testing.assert_close(density, torch.tensor([50.0, 25.0, 0.0]))
        grid = generator.sample_grid(planes, 5)
        torch.testing.assert_close(grid[:, 2, 2, 2], torch.tensor([-0.25, -0.25]))
        view = generator.render(planes, _frontal(), 8)
    assert view.features.shape == (2, 6, 8, 8)
    assert view.depth.shape == view.opacity.shape == (2, 1, 8, 8)
    middle = view.depth[:, 0, 3:5, 3:5]
    torch.testing.assert_close(middle, torch.full_like(middle, 2.7 - 0.25), rtol=0, atol=0.03)


def _frontal() -> Tensor:
    from geoinv_core.camera import orbit

    return orbit(0, 0)[None]


def test_query_and_field_agree() -> None:
    from geoinv_core import render

    generator = bundled()
    points = torch.rand(1, 40, 3) - 0.5
    with torch.no_grad():
        planes = generator.planes(generator.map(torch.randn(1, 6), torch.randn(1, 5)))
        raw, features = generator.query(planes, points)
        other = render.query(generator.field(planes), points)
    torch.testing.assert_close(other[0][..., 0], raw, rtol=0, atol=1e-5)
    torch.testing.assert_close(other[1], features, rtol=0, atol=1e-5)


def test_everything_learns() -> None:
    generator = bundled().train()
    planes = generator.planes(generator.map(torch.randn(2, 6), torch.randn(2, 5)))
    raw, features = generator.query(planes, torch.rand(2, 30, 3) - 0.5)
    (generator.density(raw).mean() + features.square().mean()).backward()
    still = [n for n, p in generator.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 0)]
    assert not still


def test_second_derivatives() -> None:
    """An eikonal loss reaches the weights."""
    generator = bundled()
    planes = generator.planes(generator.map(torch.randn(1, 6), torch.randn(1, 5)))
    points = (torch.rand(1, 20, 3) - 0.5).requires_grad_()
    raw, _ = generator.query(planes, points)
    (slope,) = torch.autograd.grad(raw.sum(), points, create_graph=True)
    (slope.norm(dim=-1) - 1).square().mean().backward()
    assert float(generator.backbone.synthesis.b4.const.grad.abs().max()) > 0


def test_truncation_and_cutoff() -> None:
    generator = bundled()
    generator.w_avg.normal_()
    z, c = torch.randn(2, 6), torch.randn(2, 5)
    full = generator.map(z, c)
    part = generator.map(z, c, truncation=0.5, cutoff=3)
    torch.testing.assert_close(part[:, :3], generator.w_avg + 0.5 * (full[:, :3] - generator.w_avg))
    assert torch.equal(part[:, 3:], full[:, 3:])
    zero = generator.map(z, c, truncation=0.0)
    torch.testing.assert_close(zero, generator.w_avg.expand_as(zero))


def test_noise_modes() -> None:
    generator = bundled(noise=True)
    for name, value in generator.named_parameters():
        if name.endswith("noise_strength"):
            value.data.fill_(0.5)
    with torch.no_grad():
        ws = generator.map(torch.randn(1, 6), torch.randn(1, 5))
        const, none = generator.planes(ws), generator.planes(ws, "none")
        assert torch.equal(generator.planes(ws, "const"), const)
        assert not torch.allclose(const, none)
        assert not torch.equal(generator.planes(ws, "random"), generator.planes(ws, "random"))


def test_conditioning_is_required_and_can_be_off() -> None:
    generator = bundled()
    with pytest.raises(ValueError, match="needs c"):
        generator.map(torch.randn(1, 6))
    off = bundled(zero_c=True)
    z = torch.randn(1, 6)
    assert torch.equal(off.map(z, torch.randn(1, 5)), off.map(z, torch.randn(1, 5)))


def test_configuration_round_trip() -> None:
    config = bundled().config
    assert GeneratorConfig.from_json(config.to_json()) == config
    assert config.num_ws == 2 * len(config.channels)
    for broken in ("[]", '{"channels": [[4, 8], [16, 8]]}', '{"z_dim": 3}', '{"unknown": 1}'):
        with pytest.raises(ValueError, match=r"generator|channel"):
            GeneratorConfig.from_json(broken)
    with pytest.raises(ValueError, match="power of two"):
        channel_table(48, 64, 8)
    assert replace(config, name="x").name == "x"


def test_bfloat16_stays_close() -> None:
    generator = bundled()
    with torch.no_grad():
        ws = generator.map(torch.randn(2, 6), torch.randn(2, 5))
        exact = generator.planes(ws)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = generator.planes(ws)
    error = float((rough.float() - exact).abs().mean() / exact.abs().mean())
    assert error < 0.03


@pytest.mark.parametrize("noise", ["const", "none"])
def test_one_head_equals_the_batch(noise: Any) -> None:
    """A single head without gradients takes another order of operations."""
    generator = bundled(noise=True, conv_clamp=2.0)
    for name, value in generator.named_parameters():
        if name.endswith("noise_strength"):
            value.data.fill_(0.5)
    ws = generator.map(torch.randn(2, 6), torch.randn(2, 5))
    batch = generator.planes(ws, noise)
    with torch.no_grad():
        single = torch.cat([generator.planes(ws[i : i + 1], noise) for i in range(2)])
    torch.testing.assert_close(single, batch, rtol=1e-4, atol=1e-5)
