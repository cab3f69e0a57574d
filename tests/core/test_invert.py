"""Inversion by optimisation and tuning, on a small generator whose answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d

from geoinv_core.camera import orbit
from geoinv_core.errors import Cancelled, ModelError
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.generator.layers import fir_filter
from geoinv_core.invert import Settings, Start, mean_start, optimise, tune, tuned_copy
from geoinv_core.invert.lpips import VGG16, load_lpips
from geoinv_core.invert.optimise import moved
from geoinv_core.invert.perceptual import discriminator_distance, load_discriminator
from geoinv_core.progress import Progress
from tests.core.tiny import solid

QUICK = Settings(steps=40, size=24, samples=(8, 8), similar=0.0, hold=0.0)


@pytest.fixture(scope="module", params=["eg3d", "panohead"])
def generator(request: pytest.FixtureRequest) -> TriplaneGenerator:
    return solid(request.param == "panohead")


@pytest.fixture(scope="module")
def camera() -> Tensor:
    return orbit(target=(0.0, 0.0, 0.2))[None]


@pytest.fixture(scope="module")
def start(generator: TriplaneGenerator, camera: Tensor) -> Start:
    return mean_start(generator, camera, camera, seed=1, count=64)


@pytest.fixture(scope="module")
def image(generator: TriplaneGenerator, camera: Tensor) -> Tensor:
    """[1, 3, 48, 48] of another head from a slightly different place."""
    with torch.no_grad():
        ws = generator.map(torch.randn(1, 6, generator=torch.Generator().manual_seed(5)), camera)
        there = orbit(6, -4, target=(0.0, 0.0, 0.2))[None]
        return generator.raw_picture(generator.planes(ws), ws, there, 48).features * 2 - 1


def test_the_loss_falls_in_both_spaces_and_more_in_the_larger(
    generator: TriplaneGenerator, start: Start, image: Tensor
) -> None:
    assert QUICK.space == Settings().space == "w+"
    w_plus = optimise(generator, start, image, None, Settings(**{**vars(QUICK), "space": "w+"}))
    one = optimise(generator, start, image, None, Settings(**{**vars(QUICK), "space": "w"}))
    assert min(w_plus.losses) < 0.6 * w_plus.losses[0]
    assert min(one.losses) < 0.8 * one.losses[0]
    assert torch.equal(one.ws, one.ws[:, :1].expand_as(one.ws))
    assert not torch.equal(w_plus.ws, w_plus.ws[:, :1].expand_as(w_plus.ws))
    assert not torch.equal(w_plus.camera, start.camera)
    R = w_plus.camera[0, :16].view(4, 4)[:3, :3]
    torch.testing.assert_close(R @ R.T, torch.eye(3), atol=1e-5, rtol=0)


def test_seeds_decide(generator: TriplaneGenerator, start: Start, image: Tensor) -> None:
    few = {**vars(QUICK), "steps": 4}
    first, again, other = (
        optimise(generator, start, image, None, Settings(**{**few, "seed": s})) for s in (1, 1, 2)
    )
    # threads add gradients in the order in which they finish, so the last digits are not the seed's
    assert first.losses == pytest.approx(again.losses, rel=1e-5)
    assert first.losses != pytest.approx(other.losses, rel=1e-3)
    assert torch.equal(mean_start(generator, start.camera, start.camera, 1, 64).ws, start.ws)


def test_progress_previews_and_cancel(generator: TriplaneGenerator, start: Start, image: Tensor) -> None:
    heard: list[Progress] = []
    optimise(generator, start, image, None, Settings(**{**vars(QUICK), "steps": 12}), heard.append)
    assert [p.fraction for p in heard] == sorted(p.fraction for p in heard)
    assert heard[-1].fraction == 1.0
    assert {p.stage for p in heard} == {"refine"}
    pictures = [p.preview for p in heard if p.preview is not None]
    assert len(pictures) == 2
    assert isinstance(pictures[0], Image.Image)

    def stop(p: Progress) -> None:
        if p.fraction > 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        optimise(generator, start, image, None, QUICK, stop)
    with pytest.raises(Cancelled):
        tune(generator, start.ws, start.camera, image, 9, None, QUICK, stop)


def test_it_ends_early_where_nothing_is_gained(generator: TriplaneGenerator, start: Start) -> None:
    with torch.no_grad():
        seen = generator.raw_picture(generator.planes(start.ws), start.ws, start.camera, 24, (8, 8)).features
    there = Start(start.ws, start.spread, start.camera, blind=False)
    settings = Settings(**{**vars(QUICK), "steps": 60, "patience": 3})
    found = optimise(generator, there, seen * 2 - 1, None, settings)
    assert found.stopped_early
    assert len(found.losses) < 40
    assert torch.equal(found.ws, start.ws)  # the start was the best


def test_tuning_closes_the_gap_and_leaves_the_generator_alone(
    generator: TriplaneGenerator, start: Start, image: Tensor
) -> None:
    before = {n: p.clone() for n, p in generator.state_dict().items()}
    changes = tune(generator, start.ws, start.camera, image, 20, None, QUICK)
    for name, value in generator.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert any(n.startswith("decoder.") for n in changes)
    assert any(n.startswith("backbone.synthesis.") for n in changes)

    def error(g: TriplaneGenerator) -> float:
        with torch.no_grad():
            seen = g.raw_picture(g.planes(start.ws), start.ws, start.camera, 48).features * 2 - 1
        return float((seen - image).abs().mean())

    assert error(tuned_copy(generator, changes)) < 0.97 * error(generator)
    assert tuned_copy(generator, {}) is generator


def test_a_moved_camera_orbits_and_shifts() -> None:
    camera = orbit(10, 5)[None]
    zero = torch.zeros(1, 3)
    torch.testing.assert_close(moved(camera, zero, zero), camera)
    turn = torch.tensor([[0.0, 0.1, 0.0]])  # about the camera's own downward axis
    position = moved(camera, turn, zero)[0, :16].view(4, 4)[:3, 3]
    assert float(position.norm()) == pytest.approx(2.7, abs=1e-5)
    back = moved(camera, zero, torch.tensor([[0.0, 0.0, -0.3]]))[0, :16].view(4, 4)[:3, 3]
    assert float(back.norm()) == pytest.approx(3.0, abs=1e-5)
    parameters = torch.full((1, 6), 0.05, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: moved(camera.double(), p[:, :3], p[:, 3:]), parameters)


def _vgg(path: Path) -> dict[str, Tensor]:
    torch.manual_seed(0)
    state, inputs = {}, 3
    for number, (stage, width) in enumerate(zip(VGG16, (64, 128, 256, 512, 512), strict=True)):
        for i in stage:
            state[f"features.{i}.weight"] = torch.randn(width, inputs, 3, 3) * (2 / (9 * inputs)) ** 0.5
            state[f"features.{i}.bias"] = torch.randn(width) * 0.1
            inputs = width
        state[f"lin{number}.model.1.weight"] = torch.rand(1, width, 1, 1)
    save_file(state, path)
    return state


def test_lpips_of_a_persons_own_weights(tmp_path: Path) -> None:
    state = _vgg(tmp_path / "lpips.safetensors")
    distance = load_lpips([tmp_path / "lpips.safetensors"], torch.device("cpu"))
    a, b = torch.rand(2, 1, 3, 32, 32) * 2 - 1
    assert float(distance(a, a)) == 0.0

    def reference(x: Tensor) -> list[Tensor]:
        """The published definition, step by step."""
        x = (x - torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)) / torch.tensor(
            [0.458, 0.448, 0.450]
        ).view(3, 1, 1)
        found = []
        for number, stage in enumerate(VGG16):
            x = max_pool2d(x, 2) if number else x
            for i in stage:
                x = torch.relu(
                    conv2d(x, state[f"features.{i}.weight"], state[f"features.{i}.bias"], padding=1)
                )
            found.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
        return found

    expected = sum(
        float(((p - q) ** 2 * state[f"lin{k}.model.1.weight"]).sum(1).mean())
        for k, (p, q) in enumerate(zip(reference(a), reference(b), strict=True))
    )
    assert float(distance(a, b)) == pytest.approx(expected, rel=1e-4)
    # a state dict by torch.save, in two files, is as good
    torch.save({n: v for n, v in state.items() if n.startswith("features")}, tmp_path / "vgg16.pth")
    torch.save({n: v for n, v in state.items() if n.startswith("lin")}, tmp_path / "vgg.pth")
    two = load_lpips([tmp_path / "vgg16.pth", tmp_path / "vgg.pth"], torch.device("cpu"))
    assert float(two(a, b)) == pytest.approx(expected, rel=1e-4)


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("ran",))


def test_wrong_lpips_files_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cpu = torch.device("cpu")
    with pytest.raises(ModelError, match="no file"):
        load_lpips([tmp_path / "none.pth"], cpu)
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=r"features\.0\.weight is missing"):
        load_lpips([tmp_path / "x.safetensors"], cpu)
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ModelError, match="no plain weights"):
        load_lpips([tmp_path / "evil.pth"], cpu)
    assert "ran" not in capsys.readouterr().out


def test_discriminator_features_follow_stylegan2(tmp_path: Path) -> None:
    """Against the definition written out: zero-padded low-pass, stride, equalised weights."""
    torch.manual_seed(1)
    weights = {
        "b16.fromrgb.weight": torch.randn(4, 6, 1, 1), "b16.fromrgb.bias": torch.randn(4),
        "b16.conv0.weight": torch.randn(4, 4, 3, 3), "b16.conv0.bias": torch.randn(4),
        "b16.conv1.weight": torch.randn(5, 4, 3, 3), "b16.conv1.bias": torch.randn(5),
        "b16.skip.weight": torch.randn(5, 4, 1, 1),
    }  # fmt: skip
    distance = discriminator_distance(weights)
    a, b = torch.rand(2, 1, 3, 16, 16) * 2 - 1

    def act(x: Tensor) -> Tensor:
        return torch.where(x < 0, x * 0.2, x) * 2**0.5

    def low(x: Tensor, border: int) -> Tensor:
        x = torch.nn.functional.pad(x, [border] * 4)
        return torch.cat([conv2d(c, fir_filter()[None, None]) for c in x.split(1, 1)], 1)

    def features(x: Tensor) -> Tensor:
        x = torch.cat([x, x], 1)
        x = act(conv2d(x, weights["b16.fromrgb.weight"] / 6**0.5, weights["b16.fromrgb.bias"]))
        skip = avg_pool2d(low(x, 1)[..., :16, :16].unfold(2, 1, 2).unfold(3, 1, 2)[..., 0, 0], 1)
        skip = conv2d(skip, weights["b16.skip.weight"] / 2) * 0.5**0.5
        x = act(conv2d(x, weights["b16.conv0.weight"] / 6, weights["b16.conv0.bias"], padding=1))
        y = (
            act(conv2d(low(x, 2), weights["b16.conv1.weight"] / 6, weights["b16.conv1.bias"], stride=2))
            * 0.5**0.5
        )
        y = y + skip
        return y / y.norm(dim=1, keepdim=True)

    expected = float((features(a) - features(b)).square().sum(1).mean())
    assert float(distance(a, b)) == pytest.approx(expected, rel=1e-4)
    assert float(distance(a, a)) == 0.0
    with pytest.raises(ModelError, match="damaged"):
        load_discriminator(tmp_path / "none.safetensors", torch.device("cpu"))
