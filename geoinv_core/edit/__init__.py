"""From labels to a new code."""

from geoinv_core.edit.labels import MIXES, Labels

__all__ = ["MIXES", "Labels"]
