"""What a generator is made of: one frozen, JSON-able description for every kind of model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Axes = tuple[tuple[tuple[float, float, float], ...], ...]

_X, _Y, _Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
EG3D_AXES: Axes = ((_X, _Y, _Z), (_X, _Z, _Y), (_Z, _X, _Y))
"""The planes see (x,y), (x,z), (z,x): as in EG3D's code, where none sees (y,z)."""
TRUE_AXES: Axes = ((_X, _Y, _Z), (_X, _Z, _Y), (_Y, _Z, _X))
"""The planes see (x,y), (x,z), (y,z), with the third coordinate z, y, x (PanoHead, and the bundled model)."""

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
