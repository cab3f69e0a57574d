"""Synthetic labelled heads: labels -> geometry -> picture, mask, depth, normals, albedo."""

from geoinv_core.heads.assets import HeadAssets
from geoinv_core.heads.draw import SEGMENTS, Layers, Picture, draw, picture
from geoinv_core.heads.geometry import HeadGeometry, build
from geoinv_core.heads.labels import EVALUATION_SEEDS, HeadLabels, Light, sample
from geoinv_core.heads.layout import LabelLayout

__all__ = [
    "EVALUATION_SEEDS",
    "SEGMENTS",
    "HeadAssets",
    "HeadGeometry",
    "HeadLabels",
    "LabelLayout",
    "Layers",
    "Light",
    "Picture",
    "build",
    "draw",
    "picture",
    "sample",
]
