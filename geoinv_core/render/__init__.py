"""Rays through feature planes: colour, depth, opacity; values at points and on a lattice."""

from geoinv_core.render.api import query, render
from geoinv_core.render.dispatch import report as backends
from geoinv_core.render.field import EG3D_AXES, PANOHEAD_AXES, Field, Rendered
from geoinv_core.render.lattice import sample_grid

__all__ = ["EG3D_AXES", "PANOHEAD_AXES", "Field", "Rendered", "backends", "query", "render", "sample_grid"]
