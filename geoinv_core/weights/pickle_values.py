"""What the restricted reader makes of a pickle: plain values, inert objects, and tensors still in the file.

Nothing here calls anything that a file names. A name (module, attribute) is looked up in a fixed table of
symbols; the few that take arguments have a function below that builds a value of ours from them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

MAX_DIMENSIONS = 8
MAX_ELEMENTS = 1 << 40


class RefusedError(Exception):
    """The file is damaged or asks for something that a checkpoint has no need of. The text is a clause."""


@dataclass(frozen=True)
class Symbol:
    """A permitted global; calling it is the business of `REDUCERS`."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Bag:
    """An object that is kept but never brought to life: its class's name and its attributes."""

    kind: str
    state: dict[Any, Any] = field(default_factory=dict)


@dataclass(eq=False)
class NumpyType:
    """A numpy dtype: code such as "f8", byte order "<"."""

    code: str
    order: str = "<"


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers of a tensor, still in the file."""

    data: memoryview
    dtype: torch.dtype

    @property
    def count(self) -> int:
        return len(self.data) // self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A view of a storage; every element is checked to lie inside it."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.storage.dtype.itemsize

    def read(self) -> Tensor:
        """A tensor of its own, contiguous, float32 if it is floating point."""
        if not math.prod(self.shape):
            return torch.zeros(self.shape, dtype=self.storage.dtype)
        flat = torch.frombuffer(self.storage.data, dtype=self.storage.dtype)
        view = flat.as_strided(self.shape, self.stride, self.offset)
        return view.to(torch.float32 if view.is_floating_point() else view.dtype, copy=True).contiguous()


STORAGE_TYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def rebuild_tensor(args: tuple[Any, ...]) -> StoredTensor:
    """Arguments of torch's tensor rebuilders: storage, offset, size, stride, ..."""
    if len(args) < 4 or not isinstance(args[0], Storage):
        raise RefusedError("it holds a tensor without a storage")
    storage, offset, shape, stride = args[0], args[1], args[2], args[3]
    for numbers in (shape, stride):
        if not isinstance(numbers, tuple) or not all(
            type(n) is int and 0 <= n <= MAX_ELEMENTS for n in numbers
        ):
            raise RefusedError("it holds a tensor with an impossible shape")
    if len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS or type(offset) is not int or offset < 0:
        raise RefusedError("it holds a tensor with an impossible shape")
    count = math.prod(shape)
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) if count else 0
    # also refuses views that repeat elements, which could blow a small file up to any size
    if count > storage.count or last >= max(storage.count, 1):
        raise RefusedError("it holds a tensor that is larger than its data")
    return StoredTensor(storage, offset, shape, stride)


def _rebuild_parameter(args: tuple[Any, ...]) -> StoredTensor:
    if not args or not isinstance(args[0], StoredTensor):
        raise RefusedError("it holds a parameter without a tensor")
    return args[0]


def _persistent_object(args: tuple[Any, ...]) -> Bag:
    """An object with embedded source code: name and attributes are kept, the source is dropped unread."""
    described = args[0] if len(args) == 1 else None
    if not isinstance(described, dict) or described.get("type") != "class":
        raise RefusedError("it holds an embedded object of an unknown form")
    name, state = described.get("class_name"), described.get("state")
    if not isinstance(name, str) or not isinstance(state, dict):
        raise RefusedError("it holds an embedded object of an unknown form")
    return Bag(name, state)


def _ordered_dict(args: tuple[Any, ...]) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    if args:
        pairs = args[0]
        if len(args) > 1 or not isinstance(pairs, list):
            raise RefusedError("it holds a dictionary of an unknown form")
        for pair in pairs:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise RefusedError("it holds a dictionary of an unknown form")
            result[plain_key(pair[0])] = pair[1]
    return result


def _set(args: tuple[Any, ...]) -> set[Any]:
    if not args:
        return set()
    if len(args) > 1 or not isinstance(args[0], (list, tuple)):
        raise RefusedError("it holds a set of an unknown form")
    return {plain_key(item) for item in args[0]}


def _size(args: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(args) != 1 or not isinstance(args[0], (list, tuple)):
        raise RefusedError("it holds a shape of an unknown form")
    return tuple(args[0])


def _numpy_type(args: tuple[Any, ...]) -> NumpyType:
    if not args or not isinstance(args[0], str) or args[0] not in _NUMPY_FORMATS:
        raise RefusedError("it holds numpy numbers of an unusual type")
    return NumpyType(args[0])


_NUMPY_FORMATS = {
    "f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b",
    "u8": "Q", "u4": "I", "u2": "H", "u1": "B", "b1": "?",
}  # fmt: skip


def _numpy_scalar(args: tuple[Any, ...]) -> float | int | bool:
    if len(args) != 2 or not isinstance(args[0], NumpyType) or not isinstance(args[1], (bytes, memoryview)):
        raise RefusedError("it holds a numpy number of an unknown form")
    layout = ("<" if args[0].order in "<=|" else ">") + _NUMPY_FORMATS[args[0].code]
    if struct.calcsize(layout) != len(args[1]):
        raise RefusedError("it holds a numpy number of the wrong length")
    value: float | int | bool = struct.unpack(layout, args[1])[0]
    return value


def _encode(args: tuple[Any, ...]) -> bytes:
    """Bytes as protocol 2 writes them: a string of the first 256 characters."""
    if len(args) != 2 or not isinstance(args[0], str) or args[1] != "latin1":
        raise RefusedError("it holds bytes of an unknown form")
    try:
        return args[0].encode("latin1")
    except UnicodeEncodeError as error:
        raise RefusedError("it holds bytes of an unknown form") from error


def _inert(args: tuple[Any, ...]) -> None:
    """Devices and the like: of no use here."""


Reducer = Callable[[tuple[Any, ...]], Any]

REDUCERS: dict[tuple[str, str], Reducer] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _numpy_type,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
    ("torch", "Size"): _size,
    ("torch", "device"): _inert,
    ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent_object,
}
"""Permitted callables. torch.storage._load_from_bytes is one more, read by the reader: a file in the file."""

DICTIONARIES = {("dnnlib.util", "EasyDict"), ("dnnlib", "EasyDict"), ("collections", "OrderedDict")}
"""Classes whose instances become plain dictionaries."""

INERT_CLASSES = {
    ("training.triplane", "OSGDecoder"),
    ("training.volumetric_rendering.renderer", "ImportanceRenderer"),
    ("training.volumetric_rendering.ray_marcher", "MipRayMarcher2"),
    ("training.volumetric_rendering.ray_sampler", "RaySampler"),
    *(
        (f"torch.nn.modules.{module}", name)
        for module, names in {
            "activation": ("Softplus", "Sigmoid", "ReLU", "LeakyReLU", "Tanh"),
            "container": ("Sequential", "ModuleList", "ModuleDict"),
            "linear": ("Linear", "Identity"),
            "conv": ("Conv2d",),
        }.items()
        for name in names
    ),
}
"""Classes whose instances become bags."""

INERT_VALUES = {("torch", name) for name in ("float16", "float32", "float64", "bfloat16", "int64", "uint8")}


def plain_key(key: Any) -> Any:
    """A dictionary key or set member that is cheap to hash: text or a number."""
    # numbers are kept small: large ones can be chosen to collide, which makes a dictionary quadratic
    if key is None or isinstance(key, (str, bool)) or (type(key) is int and abs(key) < 1 << 31):
        return key
    raise RefusedError("it holds a dictionary with unusual keys")
