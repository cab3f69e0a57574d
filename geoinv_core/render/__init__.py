"""Rays through feature planes: colour, depth, opacity; values at points and on a lattice."""

from geoinv_core.render.api import query, render, sample_grid
from geoinv_core.render.field import EG3D_AXES, PANOHEAD_AXES, Field, Rendered

__all__ = ["EG3D_AXES", "PANOHEAD_AXES", "Field", "Rendered", "query", "render", "sample_grid"]
