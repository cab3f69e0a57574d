"""From the encoder's first answer to a closer one."""

from geoinv_core.invert.refine import refine

__all__ = ["refine"]
