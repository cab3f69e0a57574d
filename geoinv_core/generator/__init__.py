"""Style-based tri-plane generators: latent -> styles -> planes -> field."""

from geoinv_core.generator.config import EG3D_AXES, TRUE_AXES, GeneratorConfig, channel_table
from geoinv_core.generator.generator import Picture, TriplaneGenerator, View

__all__ = [
    "EG3D_AXES",
    "TRUE_AXES",
    "GeneratorConfig",
    "Picture",
    "TriplaneGenerator",
    "View",
    "channel_table",
]
