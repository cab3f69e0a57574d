"""From a network in a checkpoint to the configuration that rebuilds it here."""

from __future__ import annotations

import re
from typing import Any

from geoinv_core.generator.config import Activation, GeneratorConfig, Superresolution
from geoinv_core.weights.pickle_reader import Network, printable
from geoinv_core.weights.pickle_values import Bag, StoredTensor

HUMAN_UNIT_MM = round(100 / (0.27 * 2.7 / (2.7 + 0.161)), 1)
"""Length of one world unit, 392 mm: the camera poses of FFHQ come from a face model in decimetres, times .27,
and are then pulled nearer, see `photo.framing`."""


class UnsupportedError(Exception):
    """The network is of a kind that cannot be rebuilt. The text is a clause."""


def describe(network: Network, name: str) -> GeneratorConfig:
    """The configuration of an EG3D or PanoHead generator.

    Raises: UnsupportedError for other networks, or settings that are not supported.
    """
    _require_3d(network)
    options = _dictionary(network.attributes.get("rendering_kwargs"), "rendering settings")
    if options.get("clamp_mode", "softplus") != "softplus":
        raise UnsupportedError("its density rule is not softplus")
    panohead = "triplane_depth" in options or "t_mapping" in network.modules
    activation = _activation(options.get("decoder_activation", "sigmoid"))
    axes = _axes(network)
    depth = _whole(options.get("triplane_depth", 1), "plane depth")
    channels = _table(network, "backbone.synthesis")
    hidden, inputs = _shape(network, "decoder.net.0.weight", 2)
    outputs, _ = _shape(network, "decoder.net.2.weight", 2)
    mapping = _mapping(network, "backbone.mapping")
    first = network.modules.get("backbone.synthesis.b4.conv1", Bag(""))
    last_block = network.modules.get("backbone.synthesis.b4", Bag(""))
    if last_block.state.get("architecture", "skip") != "skip":
        raise UnsupportedError("its synthesis network is not of the skip kind")
    noise_mode = options.get("superresolution_noise_mode", "none")
    background = panohead and bool(options.get("use_background"))
    return GeneratorConfig(
        name=name,
        z_dim=_whole(network.attributes.get("z_dim"), "z_dim"),
        c_dim=mapping["c_dim"],
        w_dim=_whole(network.attributes.get("w_dim"), "w_dim"),
        mapping_layers=mapping["layers"],
        mapping_hidden=mapping["hidden"],
        embed_dim=mapping["embed"],
        mapping_lr_mult=mapping["lr_mult"],
        c_scale=_real(options.get("c_scale", 1.0), "c_scale"),
        zero_c=bool(options.get("c_gen_conditioning_zero", False)),
        channels=channels,
        plane_channels=inputs,
        plane_depth=depth,
        axes=axes,
        noise=bool(first.state.get("use_noise", True)),
        conv_clamp=_optional_real(first.state.get("conv_clamp"), "conv_clamp"),
        decoder_hidden=hidden,
        features=outputs - 1,
        decoder_lr_mult=_real(options.get("decoder_lr_mul", 1.0), "decoder_lr_mul"),
        activation=activation,
        density="softplus",
        box_warp=_real(options.get("box_warp", 1.0), "box_warp"),
        crop=_optional_real(options.get("triplane_crop", 0.1), "crop") if panohead else None,
        signed=activation == "sigmoid",
        white_back=bool(options.get("white_back", False)),
        ray_start=_bound(options.get("ray_start"), "ray_start"),
        ray_end=_bound(options.get("ray_end"), "ray_end"),
        disparity=bool(options.get("disparity_space_sampling", False)),
        samples=(
            _whole(options.get("depth_resolution", 48), "depth_resolution"),
            _whole(options.get("depth_resolution_importance", 48), "depth_resolution_importance"),
        ),
        camera_radius=_real(options.get("avg_camera_radius", 2.7), "camera radius"),
        # PanoHead trains with cameras that look at the origin, whatever EG3D's options in its pickle say
        camera_target=(0.0, 0.0, 0.0) if panohead else _point(options.get("avg_camera_pivot", [0, 0, 0])),
        surface_opacity=_surface_opacity(options) if panohead else None,
        neural_resolution=_whole(network.attributes.get("neural_rendering_resolution", 64), "resolution"),
        superresolution=_superresolution(network),
        image_resolution=_whole(network.attributes.get("img_resolution"), "img_resolution"),
        sr_noise="none" if noise_mode not in ("const", "random") else noise_mode,
        sr_antialias=bool(network.modules["superresolution"].state.get("sr_antialias", True)),
        sr_conv_clamp=_optional_real(
            network.modules.get("superresolution.block0.conv0", Bag("")).state.get("conv_clamp"), "conv_clamp"
        ),
        torgb_raw=panohead and bool(options.get("use_torgb_raw")),
        background=_table(network, "bcg_synthesis") if background else (),
        translation=_translation(network) if "t_mapping" in network.modules else None,
        mask=panohead,
        unit_mm=HUMAN_UNIT_MM,
    )


def _require_3d(network: Network) -> None:
    parts = set(network.modules)
    if {"backbone.mapping", "backbone.synthesis", "decoder", "renderer", "superresolution"} <= parts:
        return
    if {"mapping", "synthesis"} <= parts:
        raise UnsupportedError(
            f"its network ({printable(network.kind)}) draws flat pictures, as StyleGAN does, "
            "and has no 3D inside"
        )
    raise UnsupportedError(f"its network ({printable(network.kind)}) is neither EG3D's nor PanoHead's")


def _shape(network: Network, name: str, dimensions: int) -> tuple[int, ...]:
    tensor = network.tensors.get(name)
    if tensor is None or len(tensor.shape) != dimensions:
        raise UnsupportedError(f"its tensor {name} is missing or of another shape")
    return tensor.shape


def _table(network: Network, prefix: str) -> tuple[tuple[int, int], ...]:
    table = []
    resolution = 4
    while f"{prefix}.b{resolution}" in network.modules:
        table.append((resolution, _shape(network, f"{prefix}.b{resolution}.conv1.weight", 4)[0]))
        resolution *= 2
    if not table:
        raise UnsupportedError(f"its {prefix} has no blocks")
    return tuple(table)


def _mapping(network: Network, prefix: str) -> dict[str, Any]:
    layers = 0
    while f"{prefix}.fc{layers}.weight" in network.tensors:
        layers += 1
    if not layers:
        raise UnsupportedError(f"its {prefix} has no layers")
    conditioned = f"{prefix}.embed.weight" in network.tensors
    embed, c_dim = _shape(network, f"{prefix}.embed.weight", 2) if conditioned else (0, 0)
    hidden = _shape(network, f"{prefix}.fc0.weight", 2)[0]
    bias_gain = network.modules.get(f"{prefix}.fc0", Bag("")).state.get("bias_gain", 0.01)
    return {
        "layers": layers,
        "hidden": hidden if layers > 1 else None,
        "embed": embed if conditioned else None,
        "c_dim": c_dim,
        "lr_mult": _real(bias_gain, "learning rate of the mapping"),
    }


def _translation(network: Network) -> tuple[int, int, int]:
    found = _mapping(network, "t_mapping")
    return found["layers"], found["hidden"] or 3, found["embed"] or 3


def _axes(network: Network) -> tuple[tuple[tuple[float, float, float], ...], ...]:
    stored = network.modules["renderer"].state.get("plane_axes")
    if not isinstance(stored, StoredTensor) or stored.shape != (3, 3, 3):
        raise UnsupportedError("its plane axes are missing")
    axes = stored.read().float()
    if not bool(axes.isfinite().all()) or bool((axes.double().det().abs() < 1e-6).any()):
        raise UnsupportedError("its plane axes are damaged")
    return tuple(tuple((row[0], row[1], row[2]) for row in plane) for plane in axes.tolist())


def _superresolution(network: Network) -> Superresolution:
    kind = network.modules["superresolution"].kind
    found = re.fullmatch(r"SuperresolutionHybrid(2X|4X|8XDC|8X)", kind)
    variants: dict[str, Superresolution] = {"2X": "2X", "4X": "4X", "8X": "8X", "8XDC": "8XDC"}
    if found is None:
        raise UnsupportedError(f"its super-resolution ({printable(kind)}) is of an unknown kind")
    return variants[found[1]]


def _dictionary(value: Any, what: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise UnsupportedError(f"its {what} are missing")
    return value


def _activation(value: Any) -> Activation:
    options: tuple[Activation, ...] = ("sigmoid", "lrelu", "none")
    for option in options:
        if value == option:
            return option
    raise UnsupportedError("its decoder uses an unknown activation")


def _whole(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value <= 1 << 16:
        raise UnsupportedError(f"its {what} is missing or out of range")
    return value


def _real(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e9 < value < 1e9:
        raise UnsupportedError(f"its {what} is missing or out of range")
    return float(value)


def _optional_real(value: Any, what: str) -> float | None:
    return None if value is None else _real(value, what)


def _point(value: Any) -> tuple[float, float, float]:
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        raise UnsupportedError("its camera pivot is no point")
    x, y, z = (_real(v, "camera pivot") for v in value)
    return x, y, z


def _surface_opacity(options: dict[Any, Any]) -> float | None:
    """PanoHead's optional thresholds of opacity; the mesh alone follows them."""
    value = options.get("binarize_clouds")
    value = _optional_real(options.get("cull_clouds") if value is None else value, "opacity threshold")
    if value is not None and not 0 < value < 1:
        raise UnsupportedError("its opacity threshold is out of range")
    return value


def _bound(value: Any, what: str) -> float | None:
    return None if value == "auto" else _real(value, what)
