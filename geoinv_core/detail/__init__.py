"""E1, the local branch: what a photo shows and the code cannot say, kept in every view and edit.

After E3DGE (arXiv 2212.07409, section 3.2), with four differences. Features are looked up where the surface
is seen (`sides`, `evidence`), so that nothing is sampled along rays when a view is drawn. What is visible is
tested against the drawn depth, not against the picture's frame. The outcome is baked once per head into extra
channels of the planes (`bake`), which the ordinary renderer draws. And under edits detail moves with the
generator's own displacement fields (`carry`), exactly as the rest of the planes does, where the paper aligns
residual pictures with a network; where an edit takes colour away, detail loses its hue, too (`tone`). And the
photo's own cast turns every colour of the head before all that (`tint`).
"""

from geoinv_core.detail.bake import Texture, bake
from geoinv_core.detail.carry import carried
from geoinv_core.detail.evidence import Evidence, gather
from geoinv_core.detail.network import Detail, DetailConfig
from geoinv_core.detail.sides import look, sides_of
from geoinv_core.detail.store import load_detail, save_detail
from geoinv_core.detail.take import take
from geoinv_core.detail.tone import hue_left, toned

__all__ = [
    "Detail",
    "DetailConfig",
    "Evidence",
    "Texture",
    "bake",
    "carried",
    "gather",
    "hue_left",
    "load_detail",
    "look",
    "save_detail",
    "sides_of",
    "take",
    "toned",
]
