"""Writes pickles opcode by opcode: checkpoints as EG3D's training leaves them, and hostile ones.

Python's pickler refuses to write names that it cannot import, so it can make neither.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from geoinv_core.generator import TriplaneGenerator


@dataclass(frozen=True, eq=False)
class Name:
    """A global; `old` writes it as protocols before 4 do."""

    module: str
    name: str
    old: bool = False


@dataclass(frozen=True, eq=False)
class Call:
    """REDUCE."""

    function: Any
    args: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class New:
    """NEWOBJ, then BUILD with a state or SETITEMS with entries."""

    cls: Name
    state: dict[Any, Any] | None = None
    entries: dict[Any, Any] | None = None


@dataclass(frozen=True, eq=False)
class Raw:
    """Opcodes as they are."""

    code: bytes


def emit(value: Any) -> bytes:
    """Opcodes that leave `value` on the stack."""
    if isinstance(value, Raw):
        return value.code
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        if -(1 << 31) <= value < 1 << 31:
            return b"J" + struct.pack("<i", value)
        size = value.bit_length() // 8 + 1
        return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode()
        return b"X" + struct.pack("<I", len(text)) + text
    if isinstance(value, bytes):
        return b"B" + struct.pack("<I", len(value)) + value
    if isinstance(value, tuple):
        return b"(" + b"".join(map(emit, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(emit, value)) + b"e"
    if isinstance(value, set):
        return b"\x8f(" + b"".join(map(emit, value)) + b"\x90"
    if isinstance(value, dict):
        return b"}" + _entries(value)
    if isinstance(value, Name):
        if value.old:
            return f"c{value.module}\n{value.name}\n".encode()
        return emit(value.module) + emit(value.name) + b"\x93"
    if isinstance(value, Call):
        return emit(value.function) + emit(value.args) + b"R"
    if isinstance(value, New):
        made = emit(value.cls) + b")\x81"
        if value.state is not None:
            made += emit(value.state) + b"b"
        return made + (_entries(value.entries) if value.entries else b"")
    raise TypeError(type(value))


def _entries(entries: dict[Any, Any]) -> bytes:
    return b"(" + b"".join(emit(k) + emit(v) for k, v in entries.items()) + b"u"


def dump(value: Any, protocol: int = 4) -> bytes:
    """A whole pickle."""
    return b"\x80" + bytes([protocol]) + emit(value) + b"."


@dataclass(frozen=True)
class Spelling:
    """How a version of torch and numpy writes things."""

    old_names: bool = False
    numpy: str = "numpy._core.multiarray"
    rebuild: str = "_rebuild_tensor_v2"
    parameters: bool = True
    protocol: int = 4


def storage(tensor: Tensor) -> bytes:
    """The legacy torch file of a tensor's numbers."""
    return bytes(tensor.contiguous()._typed_storage().__reduce__()[1][0])


def pickled_tensor(tensor: Tensor, spelling: Spelling, parameter: bool = False) -> Any:
    """The calls that rebuild a tensor."""
    old = spelling.old_names
    data = Call(Name("torch.storage", "_load_from_bytes", old), (storage(tensor),))
    args: tuple[Any, ...] = (data, 0, tuple(tensor.shape), tuple(tensor.contiguous().stride()))
    empty = Call(Name("collections", "OrderedDict", old), ())
    if spelling.rebuild == "_rebuild_tensor_v2":
        args = (*args, False, empty)
    made = Call(Name("torch._utils", spelling.rebuild, old), args)
    if parameter and spelling.parameters:
        return Call(Name("torch._utils", "_rebuild_parameter", old), (made, True, empty))
    return made


def persistent(kind: str, state: dict[str, Any], spelling: Spelling) -> Call:
    """An object with its class's source, which must never run."""
    described = {
        "type": "class",
        "version": 6,
        "module_src": "raise RuntimeError('embedded source was run')",
        "class_name": kind,
        "state": state,
    }
    return Call(
        Name("torch_utils.persistence", "_reconstruct_persistent_obj", spelling.old_names), (described,)
    )


def checkpoint(
    generator: TriplaneGenerator, spelling: Spelling | None = None, augment: bool = False, **changes: Any
) -> dict[str, Any]:
    """The dictionary that EG3D's training pickles, around a generator of ours.

    Args:
        changes: replace entries of the rendering settings.
    """
    spelling = spelling or Spelling()
    k = generator.config
    old = spelling.old_names
    gain = Call(
        Name(spelling.numpy, "scalar", old),
        (_float64(old), struct.pack("<d", k.mapping_lr_mult)),
    )
    settings: dict[str, Any] = {
        "clamp_mode": "softplus",
        "c_gen_conditioning_zero": k.zero_c,
        "c_scale": 1,
        "superresolution_noise_mode": "none",
        "decoder_lr_mul": 1,
        "depth_resolution": 48,
        "depth_resolution_importance": 48,
        "ray_start": 2.25,
        "ray_end": "auto" if k.ray_end is None else k.ray_end,
        "box_warp": 1,
        "avg_camera_pivot": [0, 0, 0.2],
    } | changes
    extra: dict[str, dict[str, Any]] = {
        "": {
            "z_dim": k.z_dim,
            "w_dim": k.w_dim,
            "img_resolution": k.image_resolution,
            "neural_rendering_resolution": k.neural_resolution,
            "rendering_kwargs": New(Name("dnnlib.util", "EasyDict", old), entries=settings),
        },
        "backbone.mapping.fc0": {"bias_gain": gain},
        "superresolution": {"sr_antialias": True},
        "superresolution.block0.conv0": {"conv_clamp": 256},
        "renderer": {"plane_axes": pickled_tensor(generator.axes, spelling)},
    }
    kinds = {"": "TriPlaneGenerator", "superresolution": f"SuperresolutionHybrid{k.superresolution}"}
    tree: dict[str, dict[str, Any]] = {"": {}, "renderer": {}}
    parameters = dict(generator.named_parameters())
    for name, value in generator.state_dict().items():
        path, _, leaf = name.rpartition(".")
        group = "_parameters" if name in parameters else "_buffers"
        tree.setdefault(path, {}).setdefault(group, {})[leaf] = pickled_tensor(
            value, spelling, group == "_parameters"
        )
        while path:
            path = path.rpartition(".")[0]
            tree.setdefault(path, {})

    def module(path: str) -> Any:
        prefix = path + "." if path else ""
        children = {
            p[len(prefix) :]: module(p)
            for p in tree
            if p and p.startswith(prefix) and "." not in p[len(prefix) :] and p != path
        }
        state = {
            "training": False,
            "_parameters": {},
            "_buffers": {},
            "_modules": children,
            "_backward_hooks": Call(Name("collections", "OrderedDict", old), ()),
            "_non_persistent_buffers_set": _empty_set(old),
        }
        state |= tree[path] | extra.get(path, {})
        if path == "decoder":
            return New(Name("training.triplane", "OSGDecoder", old), state)
        if path == "decoder.net":
            return New(Name("torch.nn.modules.container", "Sequential", old), state)
        return persistent(kinds.get(path, "Part"), state, spelling)

    network = module("")
    pipe = persistent("AugmentPipe", {"_parameters": {}, "_buffers": {}, "_modules": {}}, spelling)
    return {
        "training_set_kwargs": {"class_name": "training.dataset.ImageFolderDataset", "resolution": 512},
        "G": network,
        "D": persistent("DualDiscriminator", {"_parameters": {}, "_buffers": {}, "_modules": {}}, spelling),
        "G_ema": network,
        "augment_pipe": pipe if augment else None,
    }


def _float64(old: bool) -> Raw:
    made = emit(Call(Name("numpy", "dtype", old), ("f8", False, True)))
    return Raw(made + emit((3, "<", None, None, None, -1, -1, 0)) + b"b")


def _empty_set(old: bool) -> Any:
    return Call(Name("__builtin__", "set", True), ([],)) if old else set()
