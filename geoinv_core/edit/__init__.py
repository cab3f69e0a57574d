"""From labels, or named directions, to a new code."""

from geoinv_core.edit.bare import bared
from geoinv_core.edit.directions import Directions, load_directions, save_directions
from geoinv_core.edit.labels import HAIR_COLOUR, MIXES, Labels

__all__ = ["HAIR_COLOUR", "MIXES", "Directions", "Labels", "bared", "load_directions", "save_directions"]
