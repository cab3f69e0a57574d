"""What a generator is made of: one frozen, JSON-able description for every kind of model."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Axes = tuple[tuple[tuple[float, float, float], ...], ...]

_X, _Y, _Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
EG3D_AXES: Axes = ((_X, _Y, _Z), (_X, _Z, _Y), (_Z, _X, _Y))
"""The planes see (x,y), (x,z), (z,x): as in EG3D's code, where none sees (y,z)."""
TRUE_AXES: Axes = ((_X, _Y, _Z), (_X, _Z, _Y), (_Y, _Z, _X))
"""The planes see (x,y), (x,z), (y,z), with the third coordinate z, y, x (PanoHead, and the bundled model)."""

SURFACE_DENSITY = math.log1p(math.exp(9.0))
"""softplus(10 - 1)."""

Density = Literal["softplus", "sdf", "raw"]
Activation = Literal["sigmoid", "lrelu", "none"]
Superresolution = Literal["2X", "4X", "8X", "8XDC"]


@dataclass(frozen=True)
class GeneratorConfig:
    """Every number that shapes a generator or its rendering; the weights are the rest.

    Lengths are world units. The defaults are those of EG3D's FFHQ models where they have one.
    """

    name: str = "generator"
    # mapping: z, c -> w
    z_dim: int = 512
    c_dim: int = 25
    w_dim: int = 512
    mapping_layers: int = 2
    mapping_hidden: int | None = None
    """Width of the hidden layers, w_dim if None."""
    embed_dim: int | None = None
    """Width of the embedded c, w_dim if None."""
    mapping_lr_mult: float = 0.01
    mapping_linear: bool = False
    """A linear path beside the mapping's layers, see Mapping."""
    normalize_z: bool = True
    normalize_c: bool = True
    c_scale: float = 1.0
    zero_c: bool = False
    """Conditioning switched off: c counts as zeros."""
    # synthesis: w -> planes
    channels: tuple[tuple[int, int], ...] = ()
    """(resolution, channels) of every block from 4 up to the plane resolution, each twice the one before."""
    plane_channels: int = 32
    plane_depth: int = 1
    """Depth of every plane; more than 1 makes a tri-grid."""
    axes: Axes = TRUE_AXES
    noise: bool = True
    anchored: bool = False
    """Learned maps in every synthesis block, see SynthesisBlock."""
    flow_rank: int = 0
    """Displacement fields that move the planes' content, see Flow; 0 for none."""
    conv_clamp: float | None = None
    # decoder: plane features -> density or distance, features
    decoder_hidden: int = 64
    features: int = 32
    decoder_lr_mult: float = 1.0
    activation: Activation = "sigmoid"
    density: Density = "softplus"
    beta: float = 0.02
    """Starting value of the learnable sharpness of an "sdf" model, world units."""
    distance_scale: float = 1.0
    distance_radius: float = 0.0
    # volume and rays
    box_warp: float = 1.0
    crop: float | None = None
    signed: bool = True
    white_back: bool = False
    ray_start: float | None = 2.25
    """None: where the ray enters the box."""
    ray_end: float | None = 3.3
    disparity: bool = False
    samples: tuple[int, int] = (48, 48)
    camera_radius: float = 2.7
    """Distance of orbit cameras from the world's origin."""
    camera_target: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """What orbit cameras look at (EG3D's avg_camera_pivot)."""
    surface_opacity: float | None = None
    """Opacity over one world unit at which a density counts as surface (PanoHead's binarize_clouds and
    cull_clouds); None: the rule of `surface_level`."""
    # pictures
    neural_resolution: int = 64
    superresolution: Superresolution | None = None
    image_resolution: int = 64
    sr_noise: Literal["const", "random", "none"] = "none"
    sr_antialias: bool = True
    sr_conv_clamp: float | None = None
    torgb_raw: bool = False
    """The raw picture is a learned mix of all features instead of the first three."""
    background: tuple[tuple[int, int], ...] = ()
    """(resolution, channels) of a background network's blocks; empty: no background."""
    translation: tuple[int, int, int] | None = None
    """(layers, hidden width, width of the embedded c) of a second mapping network that shifts the camera
    (PanoHead's t_mapping)."""
    mask: bool = False
    """Report opacity as a mask with PanoHead's scaling."""
    unit_mm: float = 400.0

    def __post_init__(self) -> None:
        for table in (self.channels, self.background):
            expected = 4
            for resolution, count in table:
                if resolution != expected or count < 1:
                    raise ValueError(
                        f"A channel table must start at 4 and double, with positive widths; got {table}."
                    )
                expected *= 2
        if not self.channels:
            raise ValueError("A generator needs a channel table for its synthesis network.")

    @property
    def plane_resolution(self) -> int:
        return self.channels[-1][0]

    @property
    def num_ws(self) -> int:
        """One style per convolution, and one for the last planes."""
        return 2 * len(self.channels)

    @property
    def surface_level(self) -> float:
        """Raw density (or distance) of the surface: EG3D's shape extraction takes 10 before softplus, which
        is the density 9; a distance is 0."""
        if self.density == "sdf":
            return 0.0
        density = SURFACE_DENSITY
        if self.surface_opacity is not None:
            density = -math.log1p(-self.surface_opacity)
        return 1 + density + math.log(-math.expm1(-density)) if self.density == "softplus" else density

    @property
    def draws_background(self) -> bool:
        """Whether the pictures show more than the head: with a network for it, or as density in the box."""
        return bool(self.background) or self.density != "sdf"

    @property
    def has_albedo(self) -> bool:
        """Whether the features are lit colour and then unlit colour, as the bundled model's are."""
        return self.superresolution is None and not self.torgb_raw and self.features >= 6

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> GeneratorConfig:
        """The inverse of to_json. Raises ValueError for unknown or malformed fields."""
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("A generator's description must be a JSON object.")
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ValueError(f"The generator's description has unknown fields: {', '.join(unknown)}.")
        try:
            return cls(**{key: _tuples(value) for key, value in data.items()})
        except TypeError as error:
            raise ValueError(f"The generator's description is malformed ({error}).") from error


def channel_table(resolution: int, base: int, maximum: int) -> tuple[tuple[int, int], ...]:
    """Widths min(base / r, maximum) for r = 4, 8, ... resolution."""
    table = []
    r = 4
    while r <= resolution:
        table.append((r, max(1, min(base // r, maximum))))
        r *= 2
    if table[-1][0] != resolution:
        raise ValueError(f"A plane resolution must be a power of two from 4 up, got {resolution}.")
    return tuple(table)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
