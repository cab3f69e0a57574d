"""MakeHuman's pictures to the small ones of the head data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geoinv_core.heads.makehuman import Installation

ATLAS = 1024
REGIONS = (
    ((0.63, 0.13, 1.0, 0.835), (0, 0, 537, 1023)),
    ((0.0, 0.53, 0.16, 0.65), (552, 0, 180, 140)),
    ((0.745, 0.0, 0.94, 0.128), (748, 0, 220, 145)),
    ((0.18, 0.76, 0.56, 1.0), (552, 160, 460, 290)),
)
"""Parts of a skin texture that a bust shows (u0, v0, u1, v1, origin lower left): head, ears, inside of the
mouth, torso; and where each lies in the atlas (x, y, width, height in pixels, origin top left)."""
_PLAIN = (560.0, 300.0)
"""A spot of plain skin in the atlas, for the few faces that lie in no region."""
_LIPS = ((0.9116, 0.4832), (0.0224, 0.0242))
"""Centre and half axes of the ellipse of the uv square that the skin textures paint as lips; one half of the
face is mirrored."""
_HAIR_MEAN = 0.4

SKINS = {
    "middleage_darkskinned_male": "middleage_darkskinned_male_diffuse",
    "middleage_lightskinned_female2": "middleage_lightskinned_female_diffuse2",
    "middleage_lightskinned_male": "middleage_lightskinned_male_diffuse",
    "middleage_lightskinned_male2": "middleage_lightskinned_male_diffuse2",
    "old_darkskinned_male": "old_darkskinned_male_diffuse",
    "young_darkskinned_male": "young_darkskinned_male_diffuse",
    "young_lightskinned_female2": "young_lightskinned_female_diffuse2",
    "young_lightskinned_female3": "young_lightskinned_female_diffuse3",
    "young_lightskinned_male": "young_lightskinned_male_diffuse",
    "young_lightskinned_male2": "young_lightskinned_male_diffuse2",
}
HAIR = ("bob02", "braid01", "long01", "ponytail01", "short01", "short02", "short03", "short04")
BROWS = tuple(f"eyebrow{k:03d}" for k in range(1, 13) if k != 10)
LASHES = tuple(f"eyelashes{k:02d}" for k in range(1, 5))
IRISES = ("blue", "bluegreen", "brown", "brownlight", "deepblue", "green", "grey", "lightblue")

Make = Callable[[Path, Path], None]


def sources(source: Installation) -> dict[str, tuple[Path, Make]]:
    """File in tex/ to the original picture and what makes the one from the other."""
    wanted: dict[str, tuple[str, Make]] = {}
    for name, file in SKINS.items():
        wanted[f"skin_{name}.jpg"] = (f"textures/{file}.png", skin)
    for name in HAIR:
        wanted[f"hair_{name}.png"] = (f"{name}/{name}_diffuse.png", hair)
    for name in BROWS:
        wanted[f"brow_{name}.png"] = (f"{name}/{name}.png", opacity)
    for name in LASHES:
        wanted[f"lash_{name}.png"] = (f"{name}/{name}.png", opacity)
    for name in IRISES:
        wanted[f"eye_{name}.png"] = (f"materials/{name}_eye.png", partial(resized, mode="RGBA", size=512))
    wanted["teeth.jpg"] = ("materials/teeth.png", partial(resized, mode="RGB", size=256))
    wanted["tongue.jpg"] = ("tongue01/tongue01_diffuse.png", partial(resized, mode="RGB", size=128))
    return {name: (source.need(end), make) for name, (end, make) in wanted.items()}


def to_atlas(uv: NDArray[np.float64]) -> NDArray[np.float64]:
    """uv of skin triangles [T, 3, 2] (origin lower left) to the atlas, 0..1, origin top left.

    A triangle goes to the first region that holds its middle.
    """
    middle = uv.mean(1)
    result = np.broadcast_to(np.array(_PLAIN) / ATLAS, uv.shape).copy()
    free = np.ones(len(uv), bool)
    for (u0, v0, u1, v1), (x, y, width, height) in REGIONS:
        low, high = np.array([u0, v0]), np.array([u1, v1])
        here = free & (middle >= low).all(1) & (middle <= high).all(1)
        free &= ~here
        share = ((uv[here] - low) / (high - low)).clip(0, 1)
        share[..., 1] = 1 - share[..., 1]
        result[here] = (share * [width, height] + [x, y]) / ATLAS
    return result


def lips(uv: NDArray[np.float64], triangles: NDArray[Any], count: int) -> NDArray[np.uint8]:
    """uint8 [count], 255 at vertices whose uv (of their triangles' corners, [T, 3, 2]) lies on the lips."""
    centre, half = np.array(_LIPS[0]), np.array(_LIPS[1])
    on = (((uv - centre) / half) ** 2).sum(2) < 1.1
    mask = np.zeros(count, np.uint8)
    mask[triangles[on]] = 255
    return mask


def skin(path: Path, target: Path) -> None:
    """The regions of a skin texture, repacked."""
    picture = Image.open(path).convert("RGB")
    W, H = picture.size
    atlas = Image.new("RGB", (ATLAS, ATLAS))
    for (u0, v0, u1, v1), (x, y, width, height) in REGIONS:
        box = (u0 * W, (1 - v1) * H, u1 * W, (1 - v0) * H)
        atlas.paste(picture.resize((width, height), Image.Resampling.LANCZOS, box), (x, y))
    atlas.save(target, quality=90)


def hair(path: Path, target: Path) -> None:
    """Brightness (mean 0.4 over the opaque part, colour removed) and opacity."""
    picture = Image.open(path).convert("RGBA").resize((768, 768), Image.Resampling.LANCZOS)
    pixels = np.asarray(picture, np.float64) / 255
    grey, alpha = pixels[..., :3] @ [0.2126, 0.7152, 0.0722], pixels[..., 3]
    mean = (grey * alpha).sum() / max(alpha.sum(), 1e-9)
    grey = (grey * (_HAIR_MEAN / max(mean, 1e-9))).clip(0, 1)
    packed = np.rint(np.stack([grey, alpha], 2) * 255).astype(np.uint8)
    Image.fromarray(packed, "LA").save(target)


def opacity(path: Path, target: Path) -> None:
    """The alpha channel alone."""
    picture = Image.open(path).convert("RGBA").getchannel("A")
    picture.resize((256, 256), Image.Resampling.LANCZOS).save(target)


def resized(path: Path, target: Path, mode: str, size: int) -> None:
    Image.open(path).convert(mode).resize((size, size), Image.Resampling.LANCZOS).save(target)
