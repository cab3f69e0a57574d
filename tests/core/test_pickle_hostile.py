"""Hostile pickles: each is refused with a sentence, runs nothing, leaves nothing, wastes no time."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from geoinv_core import weights
from geoinv_core.errors import ModelError
from geoinv_core.weights import conversion as conversion  # loaded before modules are counted
from geoinv_core.weights.pickle_reader import network, open_checkpoint
from tests.core.limits import Limits, fill, spend

Maker = Callable[[Any, str], bytes]
CASES: dict[str, tuple[Maker, str]] = {}


def case(pattern: str) -> Callable[[Maker], Maker]:
    """Register a maker of hostile bytes: (pickling helpers, path that must never appear) -> file."""

    def register(make: Maker) -> Maker:
        CASES[make.__name__.strip("_")] = (make, pattern)
        return make

    return register


def _calls(module: str, name: str, *args: Any, old: bool = False) -> Maker:
    def make(p: Any, canary: str) -> bytes:
        filled = tuple(a.replace("CANARY", canary) if isinstance(a, str) else a for a in args)
        return p.dump({"G_ema": p.Call(p.Name(module, name, old), filled)})

    return make


TOUCH = "touch CANARY"
OPEN = "open('CANARY', 'w')"
for _module, _name, *_args in [
    ("os", "system", TOUCH),
    ("posix", "system", TOUCH),
    ("nt", "system", TOUCH),
    ("subprocess", "Popen", ("touch", "CANARY")),
    ("builtins", "eval", OPEN),
    ("builtins", "exec", OPEN),
    ("__builtin__", "eval", OPEN),
    ("builtins", "getattr", "x", "__class__"),
    ("builtins", "__import__", "os"),
    ("builtins", "open", "CANARY", "w"),
    ("importlib", "import_module", "os"),
    ("runpy", "_run_code", OPEN, {}),
    ("functools", "partial", 1),
    ("operator", "attrgetter", "system"),
    ("copyreg", "_reconstructor", 1, 2, 3),
    ("types", "CodeType", 0),
    ("torch", "load", "CANARY"),
    ("torch.hub", "load", "CANARY"),
    ("torch._utils", "_rebuild_tensor_v2.__globals__", 1),
    ("torch._utils", "_import_dotted_name", "os.system"),
    ("numpy.testing._private.utils", "runstring", OPEN, {}),
    ("torch_utils.persistence", "_src_to_module", OPEN),
    ("torch.storage", "io.open", "CANARY"),
    ("dnnlib.util", "open_url", "http://localhost/CANARY"),
]:
    for _old in (False, True):
        CASES[f"{_module}.{_name}{' old' if _old else ''}"] = (
            _calls(_module, _name, *_args, old=_old),
            "asks for",
        )


@case("tensor data")
def _nested_system(p: Any, canary: str) -> bytes:
    inner = p.dump(p.Call(p.Name("os", "system"), (f"touch {canary}",)), 2)
    return p.dump(p.Call(p.Name("torch.storage", "_load_from_bytes"), (inner,)))


@case("tensor data")
def _nested_after_magic(p: Any, canary: str) -> bytes:
    head = p.dump(0x1950A86A20F9469CFC6C, 2) + p.dump(1001, 2)
    inner = head + p.dump(p.Call(p.Name("os", "system"), (f"touch {canary}",)), 2)
    return p.dump(p.Call(p.Name("torch.storage", "_load_from_bytes"), (inner,)))


@case("tensor data")
def _nested_loader(p: Any, canary: str) -> bytes:
    load = p.Name("torch.storage", "_load_from_bytes")
    return p.dump(p.Call(load, (p.dump(p.Call(load, (b"x",))),)))


@case("operation 0x50")
def _nested_zip(p: Any, canary: str) -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, buffer)
    return p.dump(p.Call(p.Name("torch.storage", "_load_from_bytes"), (buffer.getvalue(),)))


@case("0x69")
def _inst(p: Any, canary: str) -> bytes:
    return b"\x80\x04(" + p.emit(f"touch {canary}") + b"ios\nsystem\n."


@case("asks for")
def _obj(p: Any, canary: str) -> bytes:
    return b"\x80\x04(" + p.emit(p.Name("os", "system")) + p.emit(f"touch {canary}") + b"o."


@case("0x6f")
def _obj_of_a_set(p: Any, canary: str) -> bytes:
    return b"\x80\x04(" + p.emit(p.Name("builtins", "set")) + b"o."


@case("0x92")
def _newobj_ex(p: Any, canary: str) -> bytes:
    return b"\x80\x04" + p.emit(p.Name("dnnlib.util", "EasyDict")) + b")}\x92."


@case("0x82")
def _extension(p: Any, canary: str) -> bytes:
    return b"\x80\x04\x82\x01."


@case("0x50")
def _persistent_text(p: Any, canary: str) -> bytes:
    return b"\x80\x04Pos.system\n."


@case("outside the file")
def _persistent(p: Any, canary: str) -> bytes:
    return b"\x80\x04" + p.emit("os.system") + b"Q."


@case("inner state")
def _build_on_a_global(p: Any, canary: str) -> bytes:
    return b"\x80\x04" + p.emit(p.Name("builtins", "set")) + p.emit({"__class__": 1}) + b"b."


@case("inner state")
def _build_on_a_dictionary(p: Any, canary: str) -> bytes:
    return p.dump(p.New(p.Name("collections", "OrderedDict"), {"__reduce__": 1}))


@case("no function")
def _call_of_text(p: Any, canary: str) -> bytes:
    return p.dump(p.Call("os.system", ("x",)))


@case("more complicated")
def _memo_bomb(p: Any, canary: str) -> bytes:
    return b"\x80\x04N" + b"\x94" * 900_000 + b"."


@case("more complicated")
def _operations_bomb(p: Any, canary: str) -> bytes:
    return b"\x80\x04" + b"N0" * 3_000_000 + b"N."


@case("dictionary")
def _deep_tuple(p: Any, canary: str) -> bytes:
    return b"\x80\x04N" + b"\x85" * 390_000 + b"."


@case("unusual keys")
def _exponential_key(p: Any, canary: str) -> bytes:
    return b"\x80\x04}N" + b"2\x86" * 60 + b"Ns."


@case("unusual keys")
def _colliding_keys(p: Any, canary: str) -> bytes:
    numbers = (i * ((1 << 61) - 1) for i in range(1, 60_000))
    return b"\x80\x04}(" + b"".join(p.emit(n) + b"N" for n in numbers) + b"u."


def _bag(p: Any, modules: bytes) -> bytes:
    """A network whose sub-networks are the dictionary that `modules` leaves on the stack."""
    head = p.emit(p.Name("torch.nn.modules.container", "Sequential")) + b")\x81"
    return head + b"}" + p.emit("_modules") + modules + b"sb"


@case("nested too deeply")
def _cyclic_network(p: Any, canary: str) -> bytes:
    inside = p.emit(p.Name("torch.nn.modules.container", "Sequential")) + b")\x81q\x01"
    inside += b"}" + p.emit("_modules") + b"}" + p.emit("again") + b"h\x01ssb"
    return b"\x80\x04}" + p.emit("G_ema") + inside + b"s."


@case("too many networks|too deeply")
def _exponential_network(p: Any, canary: str) -> bytes:
    body = _bag(p, b"}") + b"q\x00"
    for i in range(1, 25):
        before = b"h" + bytes([i - 1])
        body += (
            b"0"
            + _bag(p, b"}" + p.emit("a") + before + b"s" + p.emit("b") + before + b"s")
            + b"q"
            + bytes([i])
        )
    return b"\x80\x04}" + p.emit("G_ema") + body + b"s."


def _again_and_again(setup: bytes, repeated: bytes, times: int) -> bytes:
    """A little that is paid for once and used many times: what a memo makes cheap to ask for."""
    return b"\x80\x04" + setup + repeated * times + b"N."


def _long_list(p: Any) -> bytes:
    return b"](" + b"N" * 100_000 + b"eq\x00"


@case("more complicated")
def _state_set_again(p: Any, canary: str) -> bytes:
    state = b"}(" + b"".join(p.emit(n) + b"N" for n in range(100_000)) + b"uq\x00"
    bag = p.emit(p.Name("torch.nn.modules.container", "Sequential")) + b")\x81"
    return _again_and_again(state + bag, b"h\x00b", 80_000)


@case("more complicated")
def _set_again(p: Any, canary: str) -> bytes:
    return _again_and_again(
        _long_list(p) + p.emit(p.Name("builtins", "set")) + b"q\x01", b"h\x01h\x00\x85R", 60_000
    )


@case("more complicated")
def _shape_again(p: Any, canary: str) -> bytes:
    return _again_and_again(
        _long_list(p) + p.emit(p.Name("torch", "Size")) + b"q\x01", b"h\x01h\x00\x85R", 60_000
    )


@case("more data than it has")
def _text_encoded_again(p: Any, canary: str) -> bytes:
    setup = p.emit("x" * 3_000_000) + b"q\x00" + p.emit("latin1") + b"q\x01"
    setup += p.emit(p.Name("_codecs", "encode")) + b"q\x02"
    return _again_and_again(setup, b"h\x02h\x00h\x01\x86R", 60_000)


@case("more data than it has")
def _nested_again(p: Any, canary: str) -> bytes:
    whole = p.storage(torch.zeros(4))
    inner = whole[: len(p.dump(0x1950A86A20F9469CFC6C, 2))] + b"\x80\x02" + b"N0" * 900 + b"M\xe9\x03."
    load = p.emit(p.Name("torch.storage", "_load_from_bytes")) + b"q\x01"
    inner += whole[len(p.dump(0x1950A86A20F9469CFC6C, 2)) + len(p.dump(1001, 2)) :]
    return _again_and_again(p.emit(inner) + b"q\x00" + load, b"h\x01h\x00\x85R0", 60_000)


@case("it has ok")
def _names_that_mislead(p: Any, canary: str) -> bytes:
    empty = p.emit(p.Name("torch.nn.modules.container", "Sequential")) + b")\x81"
    return b"\x80\x04}(" + p.emit("ok\n\x1b[2J") + empty + b"u."


@case("too many entries")
def _network_of_nothings(p: Any, canary: str) -> bytes:
    nothings = b"}(" + b"".join(p.emit(str(n)) + b"N" for n in range(80_000)) + b"uq\x00"
    sequential = p.emit(p.Name("torch.nn.modules.container", "Sequential"))
    leaf = sequential + b")\x81}" + p.emit("_parameters") + b"h\x00sbq\x01"
    leaves = b"}(" + b"".join(p.emit(str(n)) + b"h\x01" for n in range(1900)) + b"u"
    return b"\x80\x04" + nothings + b"0" + leaf + b"0}" + p.emit("G_ema") + _bag(p, leaves) + b"s."


def _tensor(shape: Any, stride: Any, offset: Any = 0) -> Maker:
    def make(p: Any, canary: str) -> bytes:
        load = p.Call(p.Name("torch.storage", "_load_from_bytes"), (p.storage(torch.zeros(4)),))
        return p.dump(
            {"G_ema": p.Call(p.Name("torch._utils", "_rebuild_tensor_v2"), (load, offset, shape, stride))}
        )

    return make


for _title, _arguments, _message in [
    ("absurd", ((1 << 40,), (1,)), "larger than its data"),
    ("impossible", ((1 << 62, 1 << 62), (1, 1)), "impossible shape"),
    ("repeated", ((1 << 30, 1 << 30), (0, 0)), "larger than its data"),
    ("negative", ((2,), (-1,)), "impossible shape"),
    ("before", ((2,), (1,), -1), "impossible shape"),
    ("beyond", ((2,), (1,), 3), "larger than its data"),
    ("many sides", ((1,) * 70, (1,) * 70), "impossible shape"),
    ("text", (("4",), (1,)), "impossible shape"),
    ("truth", ((True,), (1,)), "impossible shape"),
]:
    CASES[f"tensor {_title}"] = (_tensor(*_arguments), _message)


@case("larger than the file")
def _one_storage_many_names(p: Any, canary: str) -> bytes:
    made = p.emit(p.pickled_tensor(torch.zeros(20_000), p.Spelling())) + b"q\x00"
    entries = p.emit("first") + made + b"".join(p.emit(f"n{i}") + b"h\x00" for i in range(5000))
    body = p.emit(p.Name("torch.nn.modules.container", "Sequential")) + b")\x81}" + p.emit("_parameters")
    return b"\x80\x04}" + p.emit("G_ema") + body + b"}(" + entries + b"usbs."


@case("ends too early")
def _storage_without_numbers(p: Any, canary: str) -> bytes:
    whole = p.storage(torch.zeros(1000))
    cut = whole.replace(struct.pack("<q", 1000) + bytes(100), struct.pack("<q", 1000))
    return p.dump(p.Call(p.Name("torch.storage", "_load_from_bytes"), (cut[:-200],)))


@case("ends too early")
def _endless_bytes(p: Any, canary: str) -> bytes:
    return b"\x80\x04\x8e" + struct.pack("<Q", (1 << 63) - 1) + b"abc."


@case("long text")
def _endless_text(p: Any, canary: str) -> bytes:
    return b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"abc."


@case("long number")
def _endless_number(p: Any, canary: str) -> bytes:
    return b"\x80\x04\x8b" + struct.pack("<I", 1 << 31) + b"abc."


@case("ends too early")
def _endless_frame(p: Any, canary: str) -> bytes:
    return b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N."


@case("protocol 77")
def _future_protocol(p: Any, canary: str) -> bytes:
    return b"\x80MN."


@case("no pickle")
def _text_protocol(p: Any, canary: str) -> bytes:
    return pickle.dumps({"G_ema": None}, protocol=0)


@case("something else")
def _list_of_things(p: Any, canary: str) -> bytes:
    return p.dump([1, 2, 3])


@case("is empty")
def _empty(p: Any, canary: str) -> bytes:
    return b""


@case("no pickle")
def _web_page(p: Any, canary: str) -> bytes:
    return b"<!DOCTYPE html><title>Quota exceeded</title>"


@case("damaged")
def _stack_underflow(p: Any, canary: str) -> bytes:
    return b"\x80\x04R."


@case("damaged")
def _unknown_memo(p: Any, canary: str) -> bytes:
    return b"\x80\x04h\x05."


@pytest.mark.parametrize("name", sorted(CASES))
def test_hostile(tmp_path: Path, pickling: Any, name: str) -> None:
    make, pattern = CASES[name]
    canary, source = tmp_path / "canary", tmp_path / "evil.pkl"
    source.write_bytes(make(pickling, str(canary)))
    modules = set(sys.modules)
    with pytest.raises(ModelError, match=pattern) as refusal, Limits():
        weights.convert(source, tmp_path / "m.safetensors")
    assert str(refusal.value).endswith(".")
    assert "\n" not in str(refusal.value)
    assert [p.name for p in tmp_path.iterdir()] == ["evil.pkl"]
    assert not {m for m in set(sys.modules) - modules if not m.startswith("geoinv_core")}


def test_the_limits_are_measured() -> None:
    """A case that broke them would be seen, whatever this process has used before."""
    if Path("/proc/self/clear_refs").exists():
        fill(150)  # an earlier, larger peak
        with pytest.raises(AssertionError, match="MB"), Limits(megabytes=50):
            fill(100)
    with pytest.raises(AssertionError, match=r"0\.\d s"), Limits(seconds=0.1):
        spend(0.2)
    with Limits(seconds=0.5, megabytes=50):
        fill(10)


def test_there_are_enough() -> None:
    assert len(CASES) >= 60


def _read_all(path: Path) -> None:
    try:
        with open_checkpoint(path) as content:
            for key in list(content):
                found = network(content, str(key), path)
                for tensor in list(found.tensors.values())[:20]:
                    tensor.read()
    except ModelError as error:
        refused = str(error)
    else:
        return
    assert refused.endswith(".")


def test_random_mutations(tmp_path: Path, pickling: Any) -> None:
    """Damaged and spliced checkpoints never crash the reader, only make it refuse.

    GEOINV_FUZZ_SECONDS=600 makes it look longer.
    """
    seconds = float(os.environ.get("GEOINV_FUZZ_SECONDS", "3"))
    chance = random.Random(5)
    spelling = pickling.Spelling()
    leaf = {
        "_parameters": {"w": pickling.pickled_tensor(torch.ones(3, 4), spelling, True)},
        "_buffers": {},
        "_modules": {},
    }
    inner = pickling.persistent("Part", leaf, spelling)
    outer = leaf | {"_modules": {"a": inner, "b": inner}}
    seeds = [pickling.dump({"G_ema": pickling.persistent("G", outer, spelling), "n": [1.5, None, {2}]})]
    seeds += [make(pickling, str(tmp_path / "canary")) for make, _ in CASES.values()]
    seeds = [s for s in seeds if 0 < len(s) < 20_000]
    path, end, rounds = tmp_path / "m.pkl", time.monotonic() + seconds, 0
    while time.monotonic() < end or rounds < 200:
        data = bytearray(seeds[0] if chance.random() < 0.6 else chance.choice(seeds))
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data))
            kind = chance.random()
            if kind < 0.4:
                data[at] = chance.randrange(256)
            elif kind < 0.55:
                del data[at : at + chance.randint(1, 8)]
            elif kind < 0.75:
                data[at:at] = bytes(
                    chance.choices(b"(.012NJKMRtsuabehqr}])\x81\x85\x86\x87\x88\x93\x94\x95", k=3)
                )
            else:
                other = chance.choice(seeds)
                cut = chance.randrange(len(other))
                data[at:at] = other[cut : cut + chance.randint(1, 60)]
            if not data:
                data = bytearray(b"\x80")
        path.write_bytes(bytes(data))
        start = time.process_time()
        _read_all(path)
        assert time.process_time() - start < 2, bytes(data)
        rounds += 1
    assert not (tmp_path / "canary").exists()
