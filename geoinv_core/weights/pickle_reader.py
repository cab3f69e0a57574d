"""Reads EG3D and PanoHead checkpoints ("network-snapshot.pkl") without running anything they carry.

The file is mapped into memory; tensors stay in it until they are asked for.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geoinv_core.errors import ModelError
from geoinv_core.weights import pickle_values as values
from geoinv_core.weights.pickle_machine import Limits, Machine
from geoinv_core.weights.pickle_values import Bag, RefusedError, Storage, StoredTensor, Symbol

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
MAX_DEPTH = 30
MAX_TENSORS = 20_000
MAX_MODULES = 2_000
MAX_ENTRIES = 100_000
"""Of all networks together, the empty ones too, counted again wherever a network is shared."""


@dataclass(frozen=True)
class Network:
    """One network of a checkpoint."""

    kind: str
    """Its class, for example TriPlaneGenerator."""
    attributes: dict[str, Any]
    """Plain attributes of the network itself (no tensors' contents, no sub-networks)."""
    tensors: dict[str, StoredTensor]
    """Parameters and buffers by dotted name."""
    modules: dict[str, Bag] = field(default_factory=dict)
    """Every sub-network by dotted name."""


@contextmanager
def open_checkpoint(path: str | Path, limits: Limits | None = None) -> Iterator[dict[str, Any]]:
    """The top-level dictionary of a checkpoint, as inert values; tensors are valid inside the block only.

    Raises: ModelError when the file is missing, damaged, hostile or something else.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            # copy-on-write: torch wants writable memory, and nothing is ever written
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except ValueError as error:
        raise ModelError(f"{path.name} is empty; download the checkpoint again.") from error
    except OSError as error:
        raise ModelError(
            f"The checkpoint {path} cannot be read ({error.strerror}); check the name."
        ) from error
    # the mapping is freed with its last view, so it needs no closing (and must not be closed under a tensor)
    data = memoryview(mapped)
    head = bytes(data[:8])
    if head[:2] == b"PK":
        raise ModelError(
            f"{path.name} is a zip archive as torch.save writes it, a state dict without its configuration; "
            "convert the network-snapshot pickle that the training wrote."
        )
    if bytes(data[8:9]) == b"{" and int.from_bytes(head, "little") <= len(data):
        raise ModelError(
            f"{path.name} is a safetensors file and needs no conversion: use it if GeoInv made it; "
            "others hold weights without the network's settings, so convert the original pickle."
        )
    if head[:1] != b"\x80":
        raise ModelError(f"{path.name} is no pickle, so it cannot be an EG3D or PanoHead checkpoint.")
    try:
        content = Machine(data, _lookup, _reduce, limits=limits).load()
    except RefusedError as error:
        raise _refusal(path, error) from error
    if isinstance(content, int) and content == _LEGACY_MAGIC:
        raise ModelError(
            f"{path.name} was written by torch.save, which keeps no description of the network; "
            "convert the network-snapshot pickle that the training wrote."
        )
    if not isinstance(content, dict):
        raise ModelError(f"{path.name} is a pickle of something else; an EG3D checkpoint is a dictionary.")
    yield content


def network(content: dict[str, Any], name: str, path: str | Path) -> Network:
    """One network of an open checkpoint, with everything inside it by dotted name.

    Raises: ModelError if it isn't there or is no network.
    """
    path = Path(path)
    root = content.get(name)
    if not isinstance(root, Bag):
        found = ", ".join(sorted(printable(str(k)) for k, v in content.items() if isinstance(v, Bag))[:20])
        if not found:
            raise ModelError(
                f"{path.name} holds no network, at most a state dict without its configuration; "
                "convert the network-snapshot pickle that the training wrote."
            )
        raise ModelError(f"{path.name} holds no network {name} (it has {found}); choose another one.")
    result = Network(root.kind, {}, {})
    try:
        _Walk(result).visit(root)
    except RefusedError as error:
        raise _refusal(path, error) from error
    for key, value in root.state.items():
        if isinstance(key, str) and not key.startswith(("_parameters", "_buffers", "_modules")):
            result.attributes[key] = value
    if sum(t.nbytes for t in result.tensors.values()) > path.stat().st_size:
        raise _refusal(path, RefusedError("its tensors would be larger than the file"))
    return result


def _refusal(path: Path, error: RefusedError) -> ModelError:
    return ModelError(
        f"{path.name} was not converted, because {error}; nothing in it was run. "
        "Get the checkpoint again from its authors."
    )


def _lookup(module: str, name: str) -> Symbol:
    key = (module, name)
    known = (
        key in values.REDUCERS
        or key in values.DICTIONARIES
        or key in values.INERT_CLASSES
        or key in values.INERT_VALUES
        or key == ("torch.storage", "_load_from_bytes")
    )
    if not known:
        raise RefusedError(f"it asks for {printable(module)}.{printable(name)}, which no checkpoint needs")
    return Symbol(module, name)


def _reduce(function: Symbol, args: tuple[Any, ...]) -> Any:
    key = (function.module, function.name)
    if key == ("torch.storage", "_load_from_bytes"):
        if len(args) != 1 or not isinstance(args[0], (bytes, memoryview)):
            raise RefusedError("it holds tensor data of an unknown form")
        return _nested_storage(memoryview(args[0]))
    if key in values.REDUCERS:
        return values.REDUCERS[key](args)
    if key in values.DICTIONARIES and not args:
        return {}
    raise RefusedError(f"it calls {function}, which no checkpoint needs")


def _nested_storage(data: memoryview) -> Storage:
    """The file within the file: torch's legacy format, that is five pickles and the raw numbers."""
    wanted: list[tuple[str, Any, int]] = []

    def storage_type(module: str, name: str) -> Symbol:
        if module not in ("torch", "torch.cuda", "torch.storage") or name not in values.STORAGE_TYPES:
            raise RefusedError(f"its tensor data asks for {printable(module)}.{printable(name)}")
        return Symbol(module, name)

    def no_calls(function: Symbol, args: tuple[Any, ...]) -> Any:
        raise RefusedError("its tensor data contains a call")

    def reference(pid: Any) -> Bag:
        valid = (
            isinstance(pid, tuple)
            and len(pid) in (5, 6)
            and pid[0] == "storage"
            and isinstance(pid[1], Symbol)
            and isinstance(pid[2], str)
            and type(pid[4]) is int
            and 0 <= pid[4] <= values.MAX_ELEMENTS
            and (len(pid) == 5 or pid[5] is None)
        )
        if not valid or wanted:
            raise RefusedError("it holds tensor data of an unknown form")
        wanted.append((pid[2], values.STORAGE_TYPES[pid[1].name], pid[4]))
        return Bag("storage")

    machine = Machine(data, storage_type, no_calls, reference, Limits(operations=2000, memo=200, text=1000))
    if machine.load() != _LEGACY_MAGIC or machine.load() != _LEGACY_PROTOCOL:
        raise RefusedError("it holds tensor data in an unknown format")
    system = machine.load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise RefusedError("it holds tensor data in an unknown byte order")
    machine.load()
    keys = machine.load()
    if len(wanted) != 1 or keys != [wanted[0][0]]:
        raise RefusedError("it holds tensor data of an unknown form")
    _, dtype, count = wanted[0]
    if machine.number("<q") != count:
        raise RefusedError("it holds tensor data of the wrong length")
    return Storage(machine.take(count * dtype.itemsize), dtype)


class _Walk:
    """Collects what lies inside a network, which may hold one thing under many names."""

    def __init__(self, result: Network) -> None:
        self.result, self.entries = result, 0

    def visit(self, module: Bag, prefix: str = "", depth: int = 0) -> None:
        if depth > MAX_DEPTH:
            raise RefusedError("its networks are nested too deeply")
        skipped = module.state.get("_non_persistent_buffers_set")
        for group in ("_parameters", "_buffers"):
            for name, value in self._named(module, group):
                if value is None or (group == "_buffers" and isinstance(skipped, set) and name in skipped):
                    continue
                if not isinstance(value, StoredTensor):
                    raise RefusedError(f"{printable(prefix + name)} is no tensor")
                self.result.tensors[prefix + name] = value
                if len(self.result.tensors) > MAX_TENSORS:
                    raise RefusedError("it holds too many tensors")
        for name, value in self._named(module, "_modules"):
            if value is None:
                continue
            if not isinstance(value, Bag):
                raise RefusedError(f"{printable(prefix + name)} is no network")
            if len(self.result.modules) > MAX_MODULES:
                raise RefusedError("it holds too many networks")
            self.result.modules[prefix + name] = value
            self.visit(value, f"{prefix}{name}.", depth + 1)

    def _named(self, module: Bag, group: str) -> list[tuple[str, Any]]:
        entries = module.state.get(group, {})
        if not isinstance(entries, dict):
            raise RefusedError("a network in it has an unknown form")
        self.entries += len(entries)
        if self.entries > MAX_ENTRIES:
            raise RefusedError("its networks have too many entries")
        if not all(isinstance(name, str) and len(name) < 200 for name in entries):
            raise RefusedError("a network in it has an unknown form")
        return list(entries.items())


def printable(text: str) -> str:
    """`text` from a file as it may stand in a sentence: short, on one line, without control characters."""
    return "".join(c if c.isprintable() else "?" for c in text[:60])
