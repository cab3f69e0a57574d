"""Super-resolution: the rendered picture and its features to the final picture (EG3D's four variants)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from geoinv_core.generator.config import GeneratorConfig, Superresolution
from geoinv_core.generator.layers import NoiseMode
from geoinv_core.generator.synthesis import SynthesisBlock


@dataclass(frozen=True)
class Variant:
    """Input side, widths of the two blocks, whether the first doubles the resolution."""

    inputs: int
    widths: tuple[int, int]
    first_up: bool
    enlarge_only: bool = False
    """Inputs larger than the side are used as they are (a quirk of 4X)."""

    @property
    def output(self) -> int:
        return self.inputs * (4 if self.first_up else 2)


VARIANTS: dict[Superresolution, Variant] = {
    "2X": Variant(64, (128, 64), first_up=False),
    "4X": Variant(128, (128, 64), first_up=False, enlarge_only=True),
    "8X": Variant(128, (128, 64), first_up=True),
    "8XDC": Variant(128, (256, 128), first_up=True),
}


class SuperresolutionNetwork(nn.Module):
    """Two synthesis blocks that are all driven by the last style."""

    def __init__(self, config: GeneratorConfig, kind: Superresolution) -> None:
        super().__init__()
        self.variant = VARIANTS[kind]
        self.antialias = config.sr_antialias
        first, second = self.variant.widths
        side = self.variant.output // 2
        clamp = config.sr_conv_clamp
        self.block0 = SynthesisBlock(
            config.features, first, config.w_dim, side, 3, up=self.variant.first_up, clamp=clamp
        )
        self.block1 = SynthesisBlock(first, second, config.w_dim, 2 * side, 3, clamp=clamp)

    def forward(
        self, raw: Tensor, features: Tensor, ws: Tensor, noise: NoiseMode = "none"
    ) -> tuple[Tensor, Tensor]:
        """The final picture, and the raw one as the original reports it.

        Where the first block keeps the size of its input (2X and 4X at their own side), the original adds the
        block's correction to the raw picture in place, and so reports the sum; elsewhere `raw` is unchanged.

        Args:
            raw: [B, 3, R, R]. features: [B, F, R, R]. ws: [B, L, w_dim], of which the last style is used.
        Returns: [B, 3, out, out] and [B, 3, R, R].
        """
        styles = ws[:, -1:].expand(-1, 3, -1)
        side = self.variant.inputs
        fitting = features.shape[-1] == side or (features.shape[-1] > side and self.variant.enlarge_only)
        picture = raw
        if not fitting:
            features = resize(features, side, self.antialias)
            picture = resize(raw, side, self.antialias)
        # twice as quick on a CPU; unlike the planes, this picture does not magnify the last bit
        features = features.clone(memory_format=torch.channels_last)
        x, picture = self.block0(features, picture, styles, noise)
        if fitting and not self.variant.first_up:
            raw = picture
        _, picture = self.block1(x, picture, styles, noise)
        return picture, raw


def resize(x: Tensor, side: int, antialias: bool = True) -> Tensor:
    """[B, C, R, R] -> [B, C, side, side], bilinear."""
    if x.shape[-1] == side:
        return x
    return interpolate(x, size=(side, side), mode="bilinear", align_corners=False, antialias=antialias)
