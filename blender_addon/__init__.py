"""GeoInv for Blender: choose a photo, get an editable 3D head.

The add-on needs nothing but Blender. The work is done by the GeoInv engine, a program with a Python
environment of its own, to which the add-on talks over HTTP on this computer.
"""

from __future__ import annotations

from . import operators, panels, preferences, properties, results, session

_PARTS = (preferences, properties, session, results, operators, panels)


def register() -> None:
    for part in _PARTS:
        part.register()


def unregister() -> None:
    for part in reversed(_PARTS):
        part.unregister()
