"""Model files: load, save and describe generators, and convert checkpoints of other projects safely.

Importing this package is cheap; torch loads with the first use of a name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoinv_core.weights.conversion import Conversion as Conversion
    from geoinv_core.weights.conversion import convert as convert
    from geoinv_core.weights.store import info as info
    from geoinv_core.weights.store import load as load
    from geoinv_core.weights.store import save as save

_HOME = dict.fromkeys(("info", "load", "save"), "store")
_HOME |= dict.fromkeys(("Conversion", "convert"), "conversion")
__all__ = ["Conversion", "convert", "info", "load", "save"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"geoinv_core.weights.{_HOME[name]}"), name)
    raise AttributeError(f"module 'geoinv_core.weights' has no attribute {name!r}")
