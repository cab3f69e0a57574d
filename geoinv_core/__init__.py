"""GeoInv: one photo in, an editable 3D head out.

    import geoinv_core as gi
    model = gi.open_model("default")
    head = model.invert("photo.jpg")
    head.edit({"smile": 0.8}).save("out/")

Importing this package is cheap: torch and the native code load with the first use of a name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoinv_core import weights as weights
    from geoinv_core.errors import Cancelled as Cancelled
    from geoinv_core.errors import GeoInvError as GeoInvError
    from geoinv_core.head import Head as Head
    from geoinv_core.head import load_head as load_head
    from geoinv_core.model import Model as Model
    from geoinv_core.model import open_model as open_model

__version__ = "0.1.0"

_HOME = {
    "open_model": "model",
    "Model": "model",
    "Head": "head",
    "load_head": "head",
    "GeoInvError": "errors",
    "Cancelled": "errors",
}
__all__ = ["Cancelled", "GeoInvError", "Head", "Model", "load_head", "open_model", "weights"]


def __getattr__(name: str) -> Any:
    if name == "weights":
        return import_module("geoinv_core.weights")
    if name in _HOME:
        return getattr(import_module(f"geoinv_core.{_HOME[name]}"), name)
    raise AttributeError(f"module 'geoinv_core' has no attribute {name!r}")
