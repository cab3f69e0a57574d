"""A pickle machine that cannot run anything: it builds lists, dictionaries and the values of `pickle_values`.

Python's own unpickler looks names up and calls them; restricting it means trusting every corner of it. This
one has no way to import or call: an opcode either builds a plain value or the file is refused. Work is linear
in the length of the file and bounded by `Limits`: what a memo lets a file use again is paid for each time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from geoinv_core.weights import pickle_values as values
from geoinv_core.weights.pickle_values import Bag, NumpyType, RefusedError, Symbol


@dataclass(frozen=True)
class Limits:
    """Real checkpoints need about 40 thousand operations and 10 thousand memo entries."""

    operations: int = 400_000
    """Opcodes, and entries that a call or a state takes over."""
    memo: int = 200_000
    text: int = 4 << 20
    """Longest string, bytes (embedded sources are about 50 kB)."""
    integer: int = 16
    """Longest whole number, bytes."""
    name: int = 200
    """Longest name of a global, characters."""


Lookup = Callable[[str, str], Symbol]
_MARK = object()


class Machine:
    """Runs one pickle after another from a buffer.

    Args:
        data: the file. lookup: turns a global's name into a Symbol or raises RefusedError.
        reduce: builds the value of a call. persistent: builds that of a persistent id, None to refuse them.
    """

    def __init__(
        self,
        data: memoryview,
        lookup: Lookup,
        reduce: Callable[[Symbol, tuple[Any, ...]], Any],
        persistent: Callable[[Any], Any] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.data, self.lookup, self.reduce, self.persistent = data, lookup, reduce, persistent
        self.limits = limits or Limits()
        self.position = 0
        self.operations = 0
        self.handed = 0
        """Bytes and characters given to calls so far."""
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The next pickle's value. Raises RefusedError."""
        self.stack, self.memo = [], {}
        while True:
            self.spend(1)
            opcode = self.take(1)[0]
            if opcode == 0x2E:  # STOP
                value = self.pop()
                if self.stack:
                    raise RefusedError("it is damaged (values left over)")
                return value
            action = _ACTIONS.get(opcode)
            if action is None:
                raise RefusedError(f"it uses the pickle operation 0x{opcode:02x}, which no checkpoint needs")
            action(self)

    def spend(self, operations: int) -> None:
        self.operations += operations
        if self.operations > self.limits.operations:
            raise RefusedError("it is far more complicated than any checkpoint")

    # reading ---------------------------------------------------------------------------------------------

    def take(self, count: int) -> memoryview:
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise RefusedError("it ends too early")
        part = self.data[self.position : end]
        self.position = end
        return part

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def text(self, count: int) -> str:
        if count > self.limits.text:
            raise RefusedError("it holds an absurdly long text")
        try:
            return str(self.take(count), "utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise RefusedError("it is damaged (garbled text)") from error

    def line(self) -> str:
        window = bytes(self.data[self.position : self.position + self.limits.name + 1])
        length = window.find(b"\n")
        if length < 0:
            raise RefusedError("it is damaged (a name without an end)")
        line = self.text(length)
        self.position += 1
        return line

    # stack -----------------------------------------------------------------------------------------------

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise RefusedError("it is damaged (a value is missing)")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise RefusedError("it is damaged (a value is missing)")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        """The values above the last mark, which goes too. The work is paid for by the pushes before."""
        items: list[Any] = []
        while self.stack:
            item = self.stack.pop()
            if item is _MARK:
                items.reverse()
                return items
            items.append(item)
        raise RefusedError("it is damaged (a mark is missing)")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def remember(self, index: int) -> None:
        if len(self.memo) >= self.limits.memo:
            raise RefusedError("it is far more complicated than any checkpoint")
        self.memo[index] = self.top()

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise RefusedError("it is damaged (it refers to nothing)")
        self.push(self.memo[index])

    # building --------------------------------------------------------------------------------------------

    def find(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise RefusedError("it is damaged (a name is no text)")
        if len(module) > self.limits.name or len(name) > self.limits.name:
            raise RefusedError("it asks for a program part with an absurdly long name")
        self.push(self.lookup(module, name))

    def call(self) -> None:
        args, function = self.pop(), self.pop()
        if not isinstance(function, Symbol) or not isinstance(args, tuple):
            raise RefusedError("it calls something that is no function")
        self.spend(sum(len(a) for a in args if isinstance(a, (list, tuple, dict, set))))
        self.handed += sum(len(a) for a in args if isinstance(a, (str, bytes, memoryview)))
        if self.handed > 4 * len(self.data):  # protocol 2 hands each byte over twice, as text and as bytes
            raise RefusedError("it uses more data than it has")
        self.push(self.reduce(function, args))

    def new_object(self) -> None:
        args, cls = self.pop(), self.pop()
        if not isinstance(cls, Symbol) or not isinstance(args, tuple) or args:
            raise RefusedError("it makes an object in an unknown way")
        key = (cls.module, cls.name)
        if key in values.DICTIONARIES:
            self.push({})
        elif key in values.INERT_CLASSES:
            self.push(Bag(cls.name))
        else:
            raise RefusedError(f"it makes an object of {cls}, which no checkpoint needs")

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, Bag) and isinstance(state, dict):
            self.spend(len(state))
            target.state.update(state)
        elif isinstance(target, NumpyType) and isinstance(state, tuple) and len(state) >= 2:
            if state[1] not in ("<", ">", "=", "|"):
                raise RefusedError("it holds numpy numbers of an unusual type")
            target.order = state[1]
        elif not (isinstance(target, dict) and state == {}):
            raise RefusedError("it sets the inner state of something that has none")

    def set_items(self, pairs: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict) or len(pairs) % 2:
            raise RefusedError("it is damaged (entries without a dictionary)")
        for i in range(0, len(pairs), 2):
            target[values.plain_key(pairs[i])] = pairs[i + 1]

    def append_items(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise RefusedError("it is damaged (entries without a list)")
        target.extend(items)

    def add_items(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, set):
            raise RefusedError("it is damaged (entries without a set)")
        target.update(values.plain_key(item) for item in items)

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def integer(self, count: int) -> None:
        if count > self.limits.integer:
            raise RefusedError("it holds an absurdly long number")
        self.push(int.from_bytes(self.take(count), "little", signed=True))

    def persistent_id(self) -> None:
        if self.persistent is None:
            raise RefusedError("it refers to objects outside the file")
        self.push(self.persistent(self.pop()))

    def protocol(self) -> None:
        version = self.take(1)[0]
        if not 2 <= version <= 5:
            raise RefusedError(f"it is written in pickle protocol {version}, and only 2 to 5 are read")

    def discard(self) -> None:
        if not self.stack:
            raise RefusedError("it is damaged (a value is missing)")
        self.stack.pop()

    def swap_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.find(module, name)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def append_item(self) -> None:
        self.append_items([self.pop()])

    def old_text(self, count: int) -> None:
        """Python 2's strings; numpy's dtype codes are the only ones expected."""
        if count > self.limits.text:
            raise RefusedError("it holds an absurdly long text")
        self.push(str(self.take(count), "latin-1"))


_ACTIONS: dict[int, Callable[[Machine], None]] = {
    0x80: Machine.protocol,
    0x95: lambda m: _frame(m),
    ord("("): lambda m: m.push(_MARK),
    ord("0"): Machine.discard,
    ord("1"): lambda m: _drop(m.pop_mark()),
    ord("2"): lambda m: m.push(m.top()),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("J"): lambda m: m.push(m.number("<i")),
    ord("K"): lambda m: m.push(m.number("<B")),
    ord("M"): lambda m: m.push(m.number("<H")),
    0x8A: lambda m: m.integer(m.number("<B")),
    0x8B: lambda m: m.integer(m.number("<I")),
    ord("G"): lambda m: m.push(m.number(">d")),
    ord("X"): lambda m: m.push(m.text(m.number("<I"))),
    0x8C: lambda m: m.push(m.text(m.number("<B"))),
    0x8D: lambda m: m.push(m.text(m.number("<Q"))),
    ord("U"): lambda m: m.old_text(m.number("<B")),
    ord("T"): lambda m: m.old_text(m.number("<I")),
    ord("C"): lambda m: m.push(m.take(m.number("<B"))),
    ord("B"): lambda m: m.push(m.take(m.number("<I"))),
    0x8E: lambda m: m.push(m.take(m.number("<Q"))),
    ord("]"): lambda m: m.push([]),
    ord("}"): lambda m: m.push({}),
    ord(")"): lambda m: m.push(()),
    0x8F: lambda m: m.push(set()),
    ord("t"): lambda m: m.push(tuple(m.pop_mark())),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("s"): Machine.set_item,
    ord("u"): lambda m: m.set_items(m.pop_mark()),
    ord("a"): Machine.append_item,
    ord("e"): lambda m: m.append_items(m.pop_mark()),
    0x90: lambda m: m.add_items(m.pop_mark()),
    ord("q"): lambda m: m.remember(m.number("<B")),
    ord("r"): lambda m: m.remember(m.number("<I")),
    0x94: lambda m: m.remember(len(m.memo)),
    ord("h"): lambda m: m.recall(m.number("<B")),
    ord("j"): lambda m: m.recall(m.number("<I")),
    ord("c"): lambda m: m.find(m.line(), m.line()),
    0x93: Machine.swap_global,
    ord("R"): Machine.call,
    0x81: Machine.new_object,
    ord("b"): Machine.build,
    ord("Q"): Machine.persistent_id,
}
"""Opcode -> action. Absent on purpose: text opcodes of protocol 0, INST, OBJ, EXT*, NEWOBJ_EX, buffers."""


def _frame(machine: Machine) -> None:
    """A frame only says how much to read ahead; it must lie within the file."""
    length = machine.number("<Q")
    if machine.position + length > len(machine.data):
        raise RefusedError("it ends too early")


def _drop(items: list[Any]) -> None:
    items.clear()
